#include "journal/journal_state.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <cstring>
#include <exception>

namespace uext4 {

Handle::Handle(Handle&& o) noexcept
    : journal_(std::exchange(o.journal_, nullptr)),
      transaction_(std::exchange(o.transaction_, nullptr)),
      credits_(std::exchange(o.credits_, 0)),
      refused_credits_(std::exchange(o.refused_credits_, 0)),
      exceptions_at_start_(o.exceptions_at_start_) {}

Handle& Handle::operator=(Handle&& o) noexcept {
    if (this != &o) {
        stop();
        journal_ = std::exchange(o.journal_, nullptr);
        transaction_ = std::exchange(o.transaction_, nullptr);
        credits_ = std::exchange(o.credits_, 0);
        refused_credits_ = std::exchange(o.refused_credits_, 0);
        exceptions_at_start_ = o.exceptions_at_start_;
    }
    return *this;
}

Tid Handle::tid() const { return transaction_ ? transaction_->tid : 0; }

bool Handle::extend(unsigned wanted) {
    if (!transaction_ || credits_ >= wanted) return transaction_ != nullptr;
    MutexLock guard(journal_->lock);
    const unsigned more = wanted - credits_;
    if (journal_->log_blocks_of(*transaction_) + transaction_->outstanding_credits + more > journal_->max_credits) {
        refused_credits_ = std::max(refused_credits_, wanted);
        return false;
    }
    transaction_->outstanding_credits += more;
    credits_ = wanted;
    return true;
}

bool Handle::needs_restart() const {
    if (!transaction_) return false;
    MutexLock guard(journal_->lock);
    return transaction_->bytes(journal_->block_size) > journal_->options.max_transaction_bytes;
}

namespace {

// The memory for a change ran out in its middle: half of it is in the transaction, which must never be committed.
void abandon(JournalState& s) noexcept {
    try {
        s.abort(Error{ENOMEM, "out of memory"});
    } catch (const std::exception&) {  // told to nobody, then
    }
}

}  // namespace

void Handle::stop() {
    if (!transaction_) return;
    JournalState& s = *journal_;
    Transaction* t = std::exchange(transaction_, nullptr);
    const SourceLocation where = rank_checker::taken_at(&s);
    rank_checker::pop_rank(Rank::Transaction, &s);
    if (std::uncaught_exceptions() > exceptions_at_start_) abandon(s);
    MutexLock guard(s.lock, where);
    t->outstanding_credits -= std::min(t->outstanding_credits, credits_);
    credits_ = 0;
    if (t->bytes(s.block_size) > s.options.max_transaction_bytes && s.commit_wanted < t->tid) {
        s.commit_wanted = t->tid;
        s.work.notify_all(where);
    }
    if (--t->handles == 0) {
        if (t->locked) s.drained.notify_all(where);
        s.changed.notify_all(where);
    }
}

// A block joins: counts against the handle, makes an earlier freeing of it void, starts the clock.
void JournalState::add_block(Transaction& t, std::uint64_t block, bool fresh, unsigned& credits) {
    t.revoked_blocks.erase(block);
    t.freed_blocks.erase(block);
    if (!fresh) return;
    if (credits > 0) {
        --credits;
        if (t.outstanding_credits) --t.outstanding_credits;
    }
    start_commit_timer(t);
}

void JournalState::start_commit_timer(Transaction& t) {
    if (t.started.count() != 0) return;
    t.started = monotonic_now();
    // Otherwise it looks in time by itself: this transaction is due later than what it waits for.
    if (thread_idle) work.notify_all();
}

Result<void> Handle::get_write_access(const BufferRef& buffer) {
    if (!transaction_) return fail(EIO, "block {}: changed outside of a transaction", buffer->block());
    atomic_point("JournalState::aborted", &journal_->aborted);
    if (journal_->aborted.load()) return journal_->aborted_error();
    Transaction& t = *transaction_;
    atomic_point("Buffer::joined", &buffer->transaction_);
    if (buffer->transaction_.load(std::memory_order_acquire) == t.tid) return {};
    // Under the lock, so that a checkpoint which is copying the block's committed image is either done or sees this.
    MutexLock guard(journal_->lock);
    if (buffer->transaction_.load() == t.tid) return {};
    const bool fresh = t.buffers.emplace(buffer->block().value, buffer).second;
    journal_->add_block(t, buffer->block().value, fresh, credits_);
    atomic_point("Buffer::joined", &buffer->transaction_);
    buffer->transaction_.store(t.tid, std::memory_order_release);
    return {};
}

Result<void> Handle::get_create_access(const BufferRef& buffer) {
    // First the access: until then an older image of the block may be on its way home.
    TRY(get_write_access(buffer));
    MutexLock guard(buffer->read_lock_);
    std::memset(buffer->data_.get(), 0, buffer->size_);
    buffer->set_kind(BlockKind::unchecked);
    buffer->uptodate_.store(true, std::memory_order_release);
    return {};
}

Result<void> Handle::revoke(BlockNr block) {
    if (!transaction_) return fail(EIO, "block {}: freed outside of a transaction", block);
    JournalState& s = *journal_;
    atomic_point("JournalState::aborted", &s.aborted);
    if (s.aborted.load()) return s.aborted_error();
    if (block.value >= s.buffers.blocks_count())
        return fail(EUCLEAN, "journal: block {} of {} is freed", block, s.buffers.blocks_count());
    BufferRef buffer = s.buffers.find(block);
    BufferRef logged;  // given back after the lock, as is the owner of data
    std::shared_ptr<JournaledData> data;
    MutexLock guard(s.lock);
    Transaction& t = *transaction_;
    if (auto it = t.buffers.find(block.value); it != t.buffers.end()) {
        logged = std::move(it->second);
        t.buffers.erase(it);
    }
    if (auto it = t.data.find(block.value); it != t.data.end()) {
        data = std::move(it->second);
        t.data.erase(it);
    }
    if (s.has_log) t.revoked_blocks.insert(block.value);
    t.freed_blocks.insert(block.value);
    s.start_commit_timer(t);
    if (logged) logged->transaction_.store(0);
    if (buffer) {
        buffer->transaction_.store(0);
        buffer->set_kind(BlockKind::unchecked);
    }
    return {};
}

Result<void> Handle::journal_data(BlockNr block, std::shared_ptr<JournaledData> owner) {
    if (!transaction_) return fail(EIO, "block {}: journaled outside of a transaction", block);
    JournalState& s = *journal_;
    atomic_point("JournalState::aborted", &s.aborted);
    if (s.aborted.load()) return s.aborted_error();
    if (block.value >= s.buffers.blocks_count())
        return fail(EUCLEAN, "journal: file contents in block {} of {}", block, s.buffers.blocks_count());
    std::shared_ptr<JournaledData> older;  // destroyed after the lock
    MutexLock guard(s.lock);
    Transaction& t = *transaction_;
    auto [it, fresh] = t.data.try_emplace(block.value);
    older = std::exchange(it->second, std::move(owner));
    s.add_block(t, block.value, fresh, credits_);
    return {};
}

void Handle::on_durable(std::function<void()> action) {
    if (!transaction_) return;
    MutexLock guard(journal_->lock);
    transaction_->durable_callbacks.push_back(std::move(action));
    journal_->start_commit_timer(*transaction_);
}

}  // namespace uext4

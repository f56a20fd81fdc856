#include "journal/journal_state.h"

#include <cstring>

namespace uext4 {

Handle::Handle(Handle&& o) noexcept
    : journal_(std::exchange(o.journal_, nullptr)), transaction_(std::exchange(o.transaction_, nullptr)), credits_(std::exchange(o.credits_, 0)) {}

Handle& Handle::operator=(Handle&& o) noexcept {
    if (this != &o) {
        stop();
        journal_ = std::exchange(o.journal_, nullptr);
        transaction_ = std::exchange(o.transaction_, nullptr);
        credits_ = std::exchange(o.credits_, 0);
    }
    return *this;
}

Tid Handle::tid() const { return transaction_ ? transaction_->tid : 0; }

bool Handle::extend(unsigned wanted) {
    if (!transaction_ || credits_ >= wanted) return transaction_ != nullptr;
    MutexLock guard(journal_->lists);
    const unsigned more = wanted - credits_;
    if (journal_->weight(*transaction_) + transaction_->outstanding + more > journal_->max_credits) return false;
    transaction_->outstanding += more;
    credits_ = wanted;
    return true;
}

void Handle::stop() {
    if (!transaction_) return;
    JournalState& s = *journal_;
    Transaction* t = std::exchange(transaction_, nullptr);
    rank_checker::pop_rank(Rank::Transaction, &s);
    MutexLock guard(s.lists);
    t->outstanding -= std::min(t->outstanding, credits_);
    credits_ = 0;
    if (t->blocks() * s.block_size > s.options.close_at_bytes && s.commit_wanted < t->tid) {
        s.commit_wanted = t->tid;
        s.work.notify_all();
    }
    if (--t->handles == 0) {
        if (t->locked) s.work.notify_all();
        s.changed.notify_all();
    }
}

namespace {
void use_credit(Transaction& t, unsigned& credits) {
    if (credits == 0) return;
    --credits;
    if (t.outstanding) --t.outstanding;
}
}  // namespace

Result<void> Handle::write_access(const BufferRef& buffer) {
    if (!transaction_) return fail(EIO, "block {}: changed outside of a transaction", buffer->block());
    if (journal_->aborted.load()) return journal_->aborted_error();
    Transaction& t = *transaction_;
    if (buffer->joined_.load(std::memory_order_relaxed) == t.tid) return {};
    MutexLock guard(journal_->lists);
    if (buffer->joined_.load() == t.tid) return {};
    if (t.buffers.emplace(buffer->block().value, buffer).second) use_credit(t, credits_);
    t.revoked.erase(buffer->block().value);
    t.forgotten.erase(buffer->block().value);
    buffer->joined_.store(t.tid);
    return {};
}

Result<void> Handle::create_access(const BufferRef& buffer) {
    {
        MutexLock guard(buffer->reading_);
        std::memset(buffer->data_.get(), 0, buffer->size_);
        buffer->set_kind(BlockKind::unchecked);
        buffer->uptodate_.store(true, std::memory_order_release);
    }
    return write_access(buffer);
}

Result<void> Handle::forget(BlockNr block) {
    if (!transaction_) return fail(EIO, "block {}: freed outside of a transaction", block);
    JournalState& s = *journal_;
    if (s.aborted.load()) return s.aborted_error();
    BufferRef buffer = s.buffers.find(block);
    MutexLock guard(s.lists);
    Transaction& t = *transaction_;
    t.buffers.erase(block.value);
    t.data.erase(block.value);
    if (s.has_log) t.revoked.insert(block.value);
    t.forgotten.insert(block.value);
    if (buffer) {
        buffer->joined_.store(0);
        buffer->set_kind(BlockKind::unchecked);
    }
    return {};
}

Result<void> Handle::journal_data(BlockNr block, std::shared_ptr<JournaledData> owner) {
    if (!transaction_) return fail(EIO, "block {}: journaled outside of a transaction", block);
    if (journal_->aborted.load()) return journal_->aborted_error();
    MutexLock guard(journal_->lists);
    Transaction& t = *transaction_;
    if (t.data.insert_or_assign(block.value, std::move(owner)).second) use_credit(t, credits_);
    t.revoked.erase(block.value);
    t.forgotten.erase(block.value);
    return {};
}

void Handle::when_durable(std::function<void()> action) {
    if (!transaction_) return;
    MutexLock guard(journal_->lists);
    transaction_->actions.push_back(std::move(action));
}

}  // namespace uext4

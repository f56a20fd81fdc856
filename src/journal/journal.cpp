#include "base/seam.h"
#include "journal/journal_state.h"
#include "sync/atomic_point.h"
#include "sync/resource_tracking.h"

#include <algorithm>
#include <cstring>
#include <exception>

namespace uext4 {

std::unexpected<Error> JournalState::aborted_error(int code) const {
    return fail(code, "the journal was aborted: {}", abort_reason.what);
}

Journal::Journal(std::unique_ptr<JournalState> state) : state_(std::move(state)) {
    state_->owner = this;
    if (state_->has_log) state_->log_free = state_->layout.ring_end() - state_->layout.first;
}

Journal::~Journal() {
    JournalState& s = *state_;
    {
        MutexLock guard(s.lock);
        s.stop = true;
        s.work.notify_all();
    }
    s.thread.join();
}

std::unique_ptr<Journal> Journal::create_without_log(BufferCache& buffers, JournalOptions options) {
    auto state = std::make_unique<JournalState>(buffers, std::move(options));
    state->max_credits = 1u << 16;
    std::unique_ptr<Journal> journal(new Journal(std::move(state)));
    JournalState* s = journal->state_.get();
    s->thread = Thread("uext4-commit", [s] { s->run(); });
    return journal;
}

Result<std::unique_ptr<Journal>> Journal::open(BufferCache& buffers, const std::vector<BlockRun>& log,
                                               JournalOptions options) {
    auto state = std::make_unique<JournalState>(buffers, std::move(options));
    JournalState* s = state.get();
    s->has_log = true;
    s->log = LogMap(log);
    const std::uint64_t blocks = s->log.blocks();
    s->super_bytes.resize(s->block_size);
    const BlockNr first = TRY(s->log.block_at(0));
    TRY(s->device.read(first.value * s->block_size, s->super_bytes));
    s->layout = TRY(
        format::parse_journal_super(view_as<format::JournalSuper>(ConstBytes(s->super_bytes)), s->block_size, blocks));
    const bool resumes = s->options.replaces_fast_commits && s->layout.start != 0;
    if (s->layout.start != 0 && !resumes)
        return fail(EUCLEAN, "journal: s_start is {}, it needs recovery", s->layout.start);
    if (s->layout.has(format::journal::incompat_async_commit) && !resumes) {
        // Commits here are ordered by flushes; the log stops claiming otherwise when it is next used.
        auto& super = view_as<format::JournalSuper>(Bytes(s->super_bytes));
        super.feature_incompat = super.feature_incompat & ~format::journal::incompat_async_commit;
        s->layout.incompat &= ~format::journal::incompat_async_commit;
    }
    // An empty log takes on what the file system has, as the kernel does at each mount.
    auto& super = view_as<format::JournalSuper>(Bytes(s->super_bytes));
    if (super.header.blocktype == format::journal::super_v2 && !resumes) {
        namespace j = format::journal;
        std::uint32_t features = super.feature_incompat;
        if (s->options.checksums && !super.checksum_v2or3()) {
            features |= j::incompat_csum_v3;
            super.feature_compat = super.feature_compat & ~j::compat_checksum;
            super.checksum_type = j::checksum_crc32c;
        }
        if (s->options.block_numbers_64bit) features |= j::incompat_64bit;
        // Otherwise the kernel, which sets this once it has recovered the log, might find the log's head in what it
        // takes for their area then, and go on from there beyond the end of the log.
        if (s->options.reserves_fast_commit_area && format::has_room_for_fast_commits(super))
            features |= j::incompat_fast_commit;
        super.feature_incompat = features;
        if (super.checksum_v2or3()) super.checksum = format::journal_super_checksum(super);
        s->layout = TRY(format::parse_journal_super(super, s->block_size, blocks));
    }
    s->clears_fast_commit_feature =
        s->options.reserves_fast_commit_area && s->layout.has(format::journal::incompat_fast_commit);
    s->recorded_error = s->layout.error_code();
    view_as<format::JournalSuper>(Bytes(s->super_bytes)).error = 0u;
    // The superblock says already where the transaction is looked for.
    s->head = resumes ? s->layout.start : s->layout.first;
    s->log_in_use = resumes;
    const std::uint64_t ring = s->layout.ring_end() - s->layout.first;
    s->log_sequence = s->layout.sequence ? s->layout.sequence : 1;
    // One transaction must hold all that fast commits did, and has the log for itself.
    const std::uint64_t most = resumes ? ring - ring / 16 - std::min<std::uint64_t>(ring / 4, 32) : ring / 4;
    s->max_credits = static_cast<unsigned>(std::max<std::uint64_t>(most, 16));
    s->max_log_blocks = std::min<std::uint64_t>(ring - 1, s->max_credits + s->max_credits / 4 + 32);
    std::unique_ptr<Journal> journal(new Journal(std::move(state)));
    s->thread = Thread("uext4-commit", [s] { s->run(); });
    return journal;
}

bool Journal::has_log() const { return state_->has_log; }
unsigned Journal::max_credits() const { return state_->max_credits; }
bool Journal::is_aborted() const {
    atomic_point("JournalState::aborted", &state_->aborted);
    return state_->aborted.load();
}
void Journal::abort(const Error& why) { state_->abort(why); }

Result<Handle> Journal::start(unsigned credits, SourceLocation where) {
    JournalState& s = *state_;
    rank_checker::check_rank(Rank::Transaction, &s, "handle of transaction", 0, where);
    if (credits > s.max_credits)
        return fail(ENOSPC, "journal: an operation of {} blocks, at most {}", credits, s.max_credits);
    MutexLock guard(s.lock, where);
    for (;;) {
        if (s.aborted.load()) return s.aborted_error();
        if (s.stop) return fail(EROFS, "the journal is closed");
        if (s.is_synchronous() && s.has_work()) {
            s.wake(where);
            continue;
        }
        if (s.running && s.running->locked) {
            s.changed.wait(s.lock, s.log_writer_resource("commit of transaction", s.running->tid), where);
            continue;
        }
        if (!s.running) {
            // Whenever a transaction runs there is room in the log for it and for the one that is being committed.
            if (!s.has_log_space(s.committing ? s.committing_log_blocks : 0, s.committing_bytes()) &&
                UEXT4_SEAM(log_has_room)) {
                if (!s.committing && s.checkpoints.empty() && !s.tail_update_pending)
                    return fail(ENOSPC, "journal: too small");
                s.space_wanted = true;
                if (s.is_synchronous()) continue;
                s.work.notify_all(where);
                s.changed.wait(s.lock, s.log_writer_resource("room in the log for transaction", s.next_tid), where);
                continue;
            }
            s.running = std::make_unique<Transaction>();
            s.running->tid = s.next_tid++;
        }
        Transaction& t = *s.running;
        if (s.is_full(t, credits)) {
            s.commit_wanted = std::max(s.commit_wanted, t.tid);
            if (s.is_synchronous()) continue;
            s.work.notify_all(where);
            s.changed.wait(s.lock, s.log_writer_resource("commit of transaction", t.tid), where);
            continue;
        }
        ++t.handles;
        t.outstanding_credits += credits;
        ++s.counters.handles;
        Handle handle;
        handle.journal_ = &s;
        handle.transaction_ = &t;
        handle.credits_ = credits;
        handle.exceptions_at_start_ = std::uncaught_exceptions();
        rank_checker::push_rank(Rank::Transaction, s.handles_resource("handle of transaction", t.tid), 0, false, where);
        return handle;
    }
}

Result<void> Handle::restart(unsigned wanted, SourceLocation where) {
    JournalState* s = journal_;
    // A structure that has grown asks for more than its caller knows; with less it would find no room again and again.
    if (s) wanted = std::max(wanted, std::min(refused_credits_, s->max_credits));
    stop();
    if (!s) return fail(EIO, "a handle that is not open was restarted");
    Journal* journal = s->owner;
    *this = TRY(journal->start(wanted, where));
    return {};
}

Tid Journal::running_tid() const {
    MutexLock guard(state_->lock);
    return state_->running ? state_->running->tid : state_->next_tid - 1;
}

int Journal::recorded_error() const { return state_->recorded_error; }
Result<void> Journal::clear_recorded_error() {
    const auto& super = view_as<format::JournalSuper>(Bytes(state_->super_bytes));
    return state_->write_super(super.start, super.sequence);
}

bool Journal::is_open(Tid tid) const {
    MutexLock guard(state_->lock);
    return state_->running && state_->running->tid == tid;
}

Tid Journal::durable_tid() const {
    MutexLock guard(state_->lock);
    return state_->durable_tid;
}

void Journal::request_commit(Tid tid) {
    JournalState& s = *state_;
    MutexLock guard(s.lock);
    // A transaction that is not there yet needs no commit; remembered, it would have every one committed at once.
    tid = std::min(tid, s.next_tid - 1);
    if (s.commit_wanted >= tid) return;
    s.commit_wanted = tid;
    s.work.notify_all();
}

Result<void> Journal::commit(Tid tid, SourceLocation where) {
    JournalState& s = *state_;
    assert_nothing_held_at_or_below(Rank::Transaction, where);
    MutexLock guard(s.lock, where);
    if (s.durable_tid >= tid) return {};
    tid = std::min(tid, s.next_tid - 1);
    s.commit_wanted = std::max(s.commit_wanted, tid);
    while (s.durable_tid < tid && !s.aborted.load() && !s.stopped) {
        if (!s.writing && s.running && s.running->tid <= tid) s.commit_in_caller(where);
        else s.changed.wait(s.lock, s.log_writer_resource("commit of transaction", tid), where);
    }
    if (s.is_synchronous() && s.has_work()) s.wake(where);
    if (s.durable_tid >= tid) return {};
    return fail(EIO, "transaction {} was not committed: {}", tid, s.abort_reason.what);
}

Result<void> Journal::commit_all(SourceLocation where) {
    Tid tid = 0;
    {
        MutexLock guard(state_->lock);
        if (state_->aborted.load()) return state_->aborted_error(EIO);
        tid = state_->next_tid - 1;
    }
    return commit(tid, where);
}

Result<void> JournalState::wait_for_checkpoint(Tid last, SourceLocation where) {
    checkpoint_wanted = std::max(checkpoint_wanted, last);
    wake(where);
    // Until the tail has passed them, a replay brings them back over what is written without the log. Whoever came
    // while others move it finds them off the list already.
    while (!aborted.load() && !stopped &&
           (tail_update_pending || (!checkpoints.empty() && checkpoints.begin()->first <= last)))
        changed.wait(lock, log_writer_resource("checkpoint of transaction", last), where);
    if (aborted.load()) return aborted_error(EIO);
    return {};
}

Result<void> Journal::checkpoint(Tid tid, SourceLocation where) {
    assert_nothing_held_at_or_below(Rank::Transaction, where);
    MutexLock guard(state_->lock, where);
    return state_->wait_for_checkpoint(std::min(tid, state_->durable_tid), where);
}

Result<void> Journal::wait_for_checkpoint_writes(SourceLocation where) {
    assert_nothing_held_at_or_below(Rank::Transaction, where);
    JournalState& s = *state_;
    MutexLock guard(s.lock, where);
    const std::uint64_t before = s.checkpoint_writes_done;
    while (s.checkpoint_writing && s.checkpoint_writes_done == before && !s.aborted.load() && !s.stopped)
        s.changed.wait(s.lock, s.log_writer_resource("home writes of transactions up to", s.durable_tid), where);
    if (s.aborted.load()) return s.aborted_error(EIO);
    return {};
}

Result<void> Journal::checkpoint_all(SourceLocation where) {
    JournalState& s = *state_;
    TRY(commit_all(where));
    MutexLock guard(s.lock, where);
    const Tid last = s.durable_tid;
    TRY(s.wait_for_checkpoint(last, where));
    if (!s.running && s.checkpoints.empty() && s.log_in_use && !s.aborted.load() && !s.stopped) {
        s.clean_wanted = true;
        s.wake(where);
        while (s.clean_wanted && !s.aborted.load() && !s.stopped)
            s.changed.wait(s.lock, s.log_writer_resource("empty log behind transaction", last), where);
    }
    if (s.aborted.load()) return s.aborted_error(EIO);
    return {};
}

Result<void> Journal::close(SourceLocation where) {
    JournalState& s = *state_;
    Result<void> done = checkpoint_all(where);
    {
        MutexLock guard(s.lock);
        s.stop = true;
        s.work.notify_all();
    }
    s.thread.join();
    return done;
}

JournalCounters Journal::counters() const {
    MutexLock guard(state_->lock);
    return state_->counters;
}

bool Journal::has_uncommitted_frees(BlockNr first, std::uint64_t count) const {
    const JournalState& s = *state_;
    MutexLock guard(s.lock);
    for (const Transaction* t : {s.running.get(), s.committing.get()}) {
        if (!t || t->freed_blocks.empty()) continue;
        for (std::uint64_t i = 0; i < count; ++i)
            if (t->freed_blocks.contains(first.value + i)) return true;
    }
    return false;
}

bool Journal::has_uncommitted_frees() const {
    const JournalState& s = *state_;
    MutexLock guard(s.lock);
    return (s.running && !s.running->freed_blocks.empty()) || (s.committing && !s.committing->freed_blocks.empty());
}

Tid Journal::newest_tid_out_of_log() const { return state_->newest_tid_out_of_log.load(); }

bool Journal::read_journaled_data(BlockNr block, std::size_t offset, Bytes out) {
    JournalState& s = *state_;
    BufferRef buffer;
    if (!UEXT4_SEAM(journal_is_asked_locked)) buffer = s.buffers.find(block);
    // A commit lets a folio go before the buffer that takes its contents is up to date, and holds the lock until it is.
    MutexLock guard(s.lock);
    if (UEXT4_SEAM(journal_is_asked_locked)) buffer = s.buffers.find(block);
    if (s.running)
        if (const auto it = s.running->data.find(block.value);
            it != s.running->data.end() && it->second->copy_uncommitted(out))
            return true;
    if (!buffer || buffer->kind() != BlockKind::journaled_data) return false;
    const bool in_commit = s.committing && s.committing->buffers.contains(block.value);
    if (!buffer->checkpoint_tid_ && !in_commit) return false;
    std::memcpy(out.data(), buffer->data().data() + offset, out.size());
    return true;
}

}  // namespace uext4

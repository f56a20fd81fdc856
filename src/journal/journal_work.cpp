// What the journal does with its transactions: limits, the log writer's pieces of work, the journal's thread, abort.
#include "base/seam.h"
#include "journal/journal_state.h"
#include "sync/atomic_point.h"
#include "sync/resource_tracking.h"

#include <exception>

namespace uext4 {

std::size_t JournalState::revokes_per_block() const {
    if (!has_log) return 1024;
    return (block_size - sizeof(format::JournalRevokeHeader) - layout.tail_bytes()) / (layout.wide() ? 8 : 4);
}

void JournalState::abort(const Error& why) {
    std::function<void(const Error&)> tell;
    {
        MutexLock guard(lock);
        if (aborted.load()) return;
        abort_reason = why;
        atomic_point("JournalState::aborted", &aborted);
        aborted.store(true);
        tell = options.on_abort;
        changed.notify_all();
        drained.notify_all();
        work.notify_all();
    }
    if (tell) tell(why);
}

bool JournalState::needs_checkpoint() const {
    return has_log && !checkpoints.empty() &&
           (log_free < (layout.ring_end() - layout.first) / 2 || checkpoint_bytes() > options.max_checkpoint_bytes / 2);
}

// Each handle asks: small transactions that are not home yet may be thousands.
std::uint64_t JournalState::checkpoint_bytes() const { return checkpoint_of_block.size() * block_size; }

std::uint64_t JournalState::committing_bytes() const { return committing ? committing->bytes(block_size) : 0; }

bool JournalState::is_full(const Transaction& t, unsigned credits) const {
    return log_blocks_of(t) + t.outstanding_credits + credits > max_credits ||
           t.bytes(block_size) >= 2 * options.max_transaction_bytes;
}

bool JournalState::has_log_space(std::uint64_t committed_blocks, std::uint64_t committed_bytes) const {
    return (!has_log || log_free >= max_log_blocks + committed_blocks) &&
           checkpoint_bytes() + committed_bytes <= options.max_checkpoint_bytes;
}

void JournalState::commit_after_making_space() {
    const Tid tid = running->tid;
    const auto leaves_room = [this](const Transaction& t) UEXT4_REQUIRES(lock) {
        return has_log_space(log_blocks_for(t, t.blocks() + t.outstanding_credits), t.bytes(block_size));
    };
    while (UEXT4_SEAM(log_has_room) && !checkpoints.empty() && !leaves_room(*running)) {
        checkpoint_oldest();
        if (aborted.load() || !running || running->tid != tid) return;
    }
    commit_running();
}

void JournalState::begin_writing(SourceLocation where) {
    writing = true;
    writer_location = where;
    note_held({&writing, "log"}, where);
}

void JournalState::end_writing() {
    writing = false;
    note_released(&writing);
}

template <class Work>
bool JournalState::with_log_writer(Work work, SourceLocation where) {
    begin_writing(where);
    writer_holds_lock = true;
    bool done = true;
    try {
        done = work();
    } catch (const std::exception& e) {
        if (writer_holds_lock) lock.unlock();
        try {
            abort(Error{ENOMEM, e.what()});
        } catch (const std::exception&) {  // told to nobody, then
        }
        retake_lock();
    }
    end_writing();
    // Somebody may wait to commit what ran meanwhile, or for the journal's thread to be idle.
    changed.notify_all();
    return done;
}

// One piece of work: commits first, then checkpoints, one transaction at a time. False when there is none. The caller
// is the writer.
bool JournalState::do_work() {
    if (running && commit_wanted >= running->tid) {
        commit_after_making_space();
        return true;
    }
    if (running && options.commit_interval.count() > 0 && running->started.count() != 0 &&
        monotonic_now() - running->started >= options.commit_interval) {
        commit_after_making_space();
        return true;
    }
    if (!checkpoints.empty() &&
        (checkpoint_wanted >= checkpoints.begin()->first || space_wanted || needs_checkpoint())) {
        checkpoint_oldest();
        return true;
    }
    if (space_wanted && running && running->handles == 0 && !running->empty()) {
        commit_running();
        return true;
    }
    space_wanted = false;
    if (!clean_wanted) return false;
    if (has_log && !running && checkpoints.empty()) {
        if (Result<void> r = empty_log(); !r) {
            release_lock();
            abort(r.error());
            retake_lock();
        }
    }
    clean_wanted = false;  // now that it is done: who waits for it says next that nothing needs to be replayed
    changed.notify_all();
    return true;
}

// The journal's thread.
void JournalState::run() {
    MutexLock guard(lock);
    bool marked_abort = false, tried_to_mark = false;
    for (;;) {
        if (writing) {
            thread_waits = true;
            work.wait(lock, {&writing, "log"});
            thread_waits = false;
            continue;
        }
        if (aborted.load()) {
            // The next mount shall know; the log itself stays as it is. A device that fails now may be well at the end.
            if (has_log && !marked_abort && (!tried_to_mark || stop)) {
                const bool last = stop;
                tried_to_mark = true;
                begin_writing(SourceLocation::current());
                guard.unlock();
                marked_abort = write_abort_mark().has_value() || last;
                guard.lock();
                end_writing();
                continue;
            }
            if (stop) break;
            work.wait(lock);
            continue;
        }
        if (is_synchronous() && !work_requested && !stop) {
            work.wait(lock);
            continue;
        }
        if (with_log_writer([&]() UEXT4_REQUIRES(lock) { return do_work(); }, SourceLocation::current())) continue;
        if (stop) break;
        if (std::exchange(work_requested, false)) {
            changed.notify_all();
            continue;
        }
        if (options.commit_interval.count() > 0 && running && running->started.count() != 0) {
            const auto left = running->started + options.commit_interval - monotonic_now();
            work.wait_for(lock, std::max<std::chrono::nanoseconds>(left, std::chrono::milliseconds(1)));
        } else {
            thread_idle = true;
            work.wait(lock);
            thread_idle = false;
        }
    }
    stopped = true;
    changed.notify_all();
}

// In the calling thread, while no thread is the log writer.
void JournalState::commit_in_caller(SourceLocation where) {
    const auto commit = [&]() UEXT4_REQUIRES(lock) {
        commit_after_making_space();
        return true;
    };
    with_log_writer(commit, where);
    if (thread_waits || needs_checkpoint()) work.notify_all();
}

}  // namespace uext4

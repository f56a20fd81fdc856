// Work of the journal's thread where it must not go on beside its users (JournalOptions::fixed_time).
#include "journal/journal_state.h"

namespace uext4 {

bool JournalState::has_work() const {
    return (running && commit_wanted >= running->tid) || space_wanted || clean_wanted ||
           (!checkpoints.empty() && (checkpoint_wanted >= checkpoints.begin()->first || needs_checkpoint()));
}

void JournalState::wake(SourceLocation where) {
    work_requested = is_synchronous();
    work.notify_all(where);
    while (work_requested && !aborted.load() && !stopped)
        changed.wait(lock, log_writer_resource("work up to transaction", next_tid - 1), where);
}

}  // namespace uext4

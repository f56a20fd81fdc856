// Space that is on its way back: what an operation waits for before it answers ENOSPC.
#include "volume/volume_state.h"

namespace uext4 {

std::uint64_t Volume::times_space_was_given_back() const { return state_->layers->allocator->times_given_back(); }

bool Volume::gain_space(std::uint64_t given_back) {
    State& s = *state_;
    Allocator& space = s.fs().allocator;
    s.walks.finish_unless_frozen(s.gate);
    const bool deletes = s.deleter && s.deleter->busy();
    // Somebody else may have waited for all of it since the attempt.
    if (!deletes && !space.has_space_later()) return space.times_given_back() != given_back;
    if (deletes) s.deleter->finish_unless_frozen();
    if (space.claimed_clusters() != 0) {
        const FreezeGate::SyncPass pass(s.gate);
        // What fails is told by each file's fsync.
        if (pass) {
            const Walks::Walk walk(s.walks);
            (void)Flusher::flush_all(*s.layers->inodes);
        }
    }
    if (!s.fs().journal.commit_all()) return false;
    space.finish_discards();
    return true;
}

}  // namespace uext4

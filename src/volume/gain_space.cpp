// Space that is on its way back: what an operation waits for before it answers ENOSPC.
#include "volume/volume_state.h"

namespace uext4 {

std::uint64_t Volume::free_count_generation() const { return state_->layers->allocator->free_count_generation(); }

bool Volume::wait_for_space(std::uint64_t given_back) {
    State& s = *state_;
    Allocator& space = s.fs().allocator;
    s.walks.wait_for_walks_unless_frozen(s.gate);
    const bool deletes = s.deleter && s.deleter->is_busy();
    // Somebody else may have waited for all of it since the attempt.
    if (!deletes && !space.has_pending_free()) return space.free_count_generation() != given_back;
    if (deletes) s.deleter->wait_for_deletions_unless_frozen();
    if (space.reserved_clusters() != 0) {
        const FreezeGate::SyncEntry pass(s.gate);
        // What fails is told by each file's fsync.
        if (pass) {
            const InodeWalks::ActiveWalk walk(s.walks);
            (void)Flusher::flush_all(*s.layers->inodes);
        }
    }
    if (!s.fs().journal.commit_all()) return false;
    space.finish_discards();
    return true;
}

}  // namespace uext4

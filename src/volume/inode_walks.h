// Walks over all files in memory. What they look at is held meanwhile, and what was removed is not deleted before.
#pragma once

#include "sync/condition.h"
#include "sync/pending_operations.h"
#include "volume/freeze_gate.h"

namespace uext4 {

class InodeWalks {
public:
    class ActiveWalk {
    public:
        explicit ActiveWalk(InodeWalks& walks, SourceLocation where = SourceLocation::current()) : walks_(walks) {
            MutexLock guard(walks_.lock_);
            number_ = walks_.pending_.begin("walk over the files", where);
        }
        ~ActiveWalk() {
            MutexLock guard(walks_.lock_);
            walks_.pending_.end(number_);
            walks_.changed_.notify_all();
        }
        ActiveWalk(const ActiveWalk&) = delete;
        ActiveWalk& operator=(const ActiveWalk&) = delete;

    private:
        InodeWalks& walks_;
        std::uint64_t number_ = 0;
    };

    // Until those that are under way are over.
    void wait_for_walks() {
        MutexLock guard(lock_);
        const std::uint64_t last = pending_.begun();
        while (const auto oldest = pending_.oldest(last)) changed_.wait(lock_, *oldest);
    }
    // The same for who may be the one that is to thaw: not while the gate is closed, which a walk may wait for.
    void wait_for_walks_unless_frozen(const FreezeGate& gate) {
        std::uint64_t last = 0;
        {
            MutexLock guard(lock_);
            last = pending_.begun();
        }
        while (!gate.is_closed()) {
            MutexLock guard(lock_);
            if (!pending_.oldest(last)) return;
            changed_.wait_for(lock_, FreezeGate::poll_interval);
        }
    }

private:
    Mutex lock_{Rank::Leaf, "Walks"};
    CondVar changed_{"walks"};
    PendingOperations pending_ UEXT4_GUARDED_BY(lock_);
};

}  // namespace uext4

// Walks over all files in memory. What they look at is held meanwhile, and what was removed is not deleted before.
#pragma once

#include "sync/condition.h"
#include "sync/under_way.h"
#include "volume/freeze_gate.h"

namespace uext4 {

class Walks {
public:
    class Walk {
    public:
        explicit Walk(Walks& walks, SourceLocation where = SourceLocation::current()) : walks_(walks) {
            MutexLock guard(walks_.lock_);
            number_ = walks_.under_way_.begin("walk over the files", where);
        }
        ~Walk() {
            MutexLock guard(walks_.lock_);
            walks_.under_way_.end(number_);
            walks_.changed_.notify_all();
        }
        Walk(const Walk&) = delete;
        Walk& operator=(const Walk&) = delete;

    private:
        Walks& walks_;
        std::uint64_t number_ = 0;
    };

    // Until those that are under way are over.
    void finish() {
        MutexLock guard(lock_);
        const std::uint64_t last = under_way_.begun();
        while (const auto oldest = under_way_.oldest(last)) changed_.wait(lock_, *oldest);
    }
    // The same for who may be the one that is to thaw: not while the gate is closed, which a walk may wait for.
    void finish_unless_frozen(const FreezeGate& gate) {
        std::uint64_t last = 0;
        {
            MutexLock guard(lock_);
            last = under_way_.begun();
        }
        while (!gate.closed()) {
            MutexLock guard(lock_);
            if (!under_way_.oldest(last)) return;
            changed_.wait_for(lock_, FreezeGate::glance);
        }
    }

private:
    Mutex lock_{Rank::Leaf, "Walks"};
    CondVar changed_{"walks"};
    UnderWay under_way_ UEXT4_GUARDED_BY(lock_);
};

}  // namespace uext4

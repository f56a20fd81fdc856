// Claims on the space that is left: as long as there is one, it is spoken for.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <set>

namespace uext4::fuse {

// Thread-safe.
class SpaceClaims {
public:
    // Its number, to be dropped by.
    std::uint64_t make() {
        const std::lock_guard guard(lock_);
        count_.fetch_add(1);
        claims_.insert(++made_);
        return made_;
    }
    void drop(std::uint64_t number) {
        {
            const std::lock_guard guard(lock_);
            claims_.erase(number);
            count_.fetch_sub(1);
        }
        changed_.notify_all();
    }
    bool any() const { return count_.load() != 0; }
    // Not for what is made meanwhile: one claim may follow the other without an end.
    void wait_for_those_made() {
        std::unique_lock guard(lock_);
        changed_.wait(guard, [this, last = made_] { return claims_.empty() || *claims_.begin() > last; });
    }

private:
    std::mutex lock_;
    std::condition_variable changed_;
    std::atomic<unsigned> count_{0};  // changed with lock_
    std::uint64_t made_ = 0;
    std::set<std::uint64_t> claims_;
};

}  // namespace uext4::fuse

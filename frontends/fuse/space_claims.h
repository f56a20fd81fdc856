// Claims on the space that is left: as long as there is one, it is spoken for.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace uext4::fuse {

// Thread-safe.
class SpaceClaims {
public:
    void make() {
        const std::lock_guard guard(lock_);
        count_.fetch_add(1);
    }
    void drop() {
        {
            const std::lock_guard guard(lock_);
            count_.fetch_sub(1);
        }
        changed_.notify_all();
    }
    bool any() const { return count_.load() != 0; }
    void wait_for_none() {
        std::unique_lock guard(lock_);
        changed_.wait(guard, [this] { return !any(); });
    }

private:
    std::mutex lock_;
    std::condition_variable changed_;
    std::atomic<unsigned> count_{0};  // changed with lock_
};

}  // namespace uext4::fuse

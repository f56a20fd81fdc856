// A thread that makes a copy's calls of the host ahead of it: it walks a directory in the order of the copy, and
// prepares each thing that it meets (HostSource::prepare).
//
// Invariants:
// 1. The thread hands over what is in a folder in the order of the folder's names, and what lies below one of them
//    before the next one. The copy takes it in the same order; the thread drops what the copy leaves out.
// 2. The thread reports no errors. What it could not prepare, the copy does itself, and meets the error in its place.
// 3. What waits to be taken is bounded: once the entries, open descriptors or bytes reach `AheadLimits`, the thread
//    adds nothing.
// 4. The thread frees what it has allocated, when the copy gives that back: two threads that use one arena of the
//    allocator would wait for each other.
// 5. The thread calls nothing but the host: it does not know of the image.
#pragma once

#include "cli/host_source.h"
#include "sync/condition.h"
#include "sync/mutex.h"
#include "sync/thread.h"

#include <vector>

namespace uext4::cli {

// Of what waits to be taken. As much again may wait to be freed.
struct AheadLimits {
    std::size_t entries = 512, descriptors = 16, bytes = std::size_t{4} << 20;
};

class HostAhead {
public:
    // Null if there is no thread to be had. `top` is the folder to walk, which is not changed from now on.
    static std::unique_ptr<HostAhead> start(const std::shared_ptr<HostFolder>& top, const ReadAhead& how,
                                            const AheadLimits& limits = {});
    // Waits for the call that the thread is in.
    ~HostAhead();
    HostAhead(const HostAhead&) = delete;
    HostAhead& operator=(const HostAhead&) = delete;

    // What has this name in a folder that the thread walks; null if it could not be looked at. For one thread, which
    // asks in the order of invariant 1.
    std::unique_ptr<HostSource> take(const HostFolder& folder, const std::string& name) EXCLUDES(mutex_);

    // For the same thread: what it has taken.
    void give_back(std::unique_ptr<HostSource> source) EXCLUDES(mutex_);

    // What waits to be taken, for tests.
    AheadLimits waiting() const EXCLUDES(mutex_);

private:
    struct Entry {
        std::shared_ptr<const HostFolder> folder;
        const std::string* name;  // one of the folder's
        std::unique_ptr<HostSource> source;
    };

    HostAhead(const ReadAhead& how, const AheadLimits& limits) : how_(how), limits_(limits), entries_(limits.entries) {}
    void walk(std::shared_ptr<const HostFolder> top);
    std::unique_ptr<HostSource> prepared(const std::shared_ptr<const HostFolder>& folder, const std::string& name);
    // Whether there is room, which it waits for. False if the walk is to end.
    bool wait_for_room() EXCLUDES(mutex_);
    void hand_over(Entry entry) EXCLUDES(mutex_);
    void end() EXCLUDES(mutex_);
    std::optional<Entry> next() EXCLUDES(mutex_);
    bool is_full() const REQUIRES(mutex_);
    bool has_room_again() const REQUIRES(mutex_);

    const ReadAhead how_;
    const AheadLimits limits_;
    mutable Mutex mutex_{Rank::Leaf, "HostAhead"};
    CondVar has_room_{"room to read ahead"}, has_entry_{"what is read ahead"};
    std::vector<Entry> entries_ GUARDED_BY(mutex_);  // a ring: held_.entries of them, from first_ on
    std::size_t first_ GUARDED_BY(mutex_) = 0;
    std::vector<std::unique_ptr<HostSource>> given_back_ GUARDED_BY(mutex_);
    AheadLimits held_ GUARDED_BY(mutex_){0, 0, 0};
    bool reader_waits_ GUARDED_BY(mutex_) = false, taker_waits_ GUARDED_BY(mutex_) = false;
    bool stopped_ GUARDED_BY(mutex_) = false;           // by the destructor
    bool ended_ GUARDED_BY(mutex_) = false;             // nothing more comes
    std::vector<std::unique_ptr<HostSource>> to_free_;  // the walking thread's
    Thread thread_;
};

}  // namespace uext4::cli

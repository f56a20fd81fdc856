// A thread that makes a copy's calls of the host ahead of it: it walks a directory in the order of the copy, and
// prepares each thing that it meets (HostSource::prepare).
//
// Invariants:
// 1. The thread hands over what is in a folder in the order of the folder's names, and what lies below one of them
//    before the next one. The copy takes it in the same order; the thread drops what the copy leaves out.
// 2. The thread reports no errors. If a call fails, the copy makes it again, and meets the error in its place.
// 3. Entries that the copy has not taken are bounded: once their number, their open descriptors or their bytes reach
//    `AheadLimits`, the thread adds none.
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

// Of entries that the copy has not taken. As many again may wait to be freed.
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

    // The prepared file, directory or link of this name in a folder that the thread walks; null if the thread could not
    // look at it. One thread calls this, in the order of invariant 1.
    std::unique_ptr<HostSource> take(const HostFolder& folder, const std::string& name) UEXT4_EXCLUDES(mutex_);

    // The same thread gives back what it has taken.
    void give_back(std::unique_ptr<HostSource> source) UEXT4_EXCLUDES(mutex_);

    // For tests: waits until the thread can add nothing, or has ended; then, of the entries that were not taken.
    AheadLimits wait_until_full() UEXT4_EXCLUDES(mutex_);

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
    bool wait_for_room() UEXT4_EXCLUDES(mutex_);
    void hand_over(Entry entry) UEXT4_EXCLUDES(mutex_);
    void end() UEXT4_EXCLUDES(mutex_);
    std::optional<Entry> next() UEXT4_EXCLUDES(mutex_);
    bool is_full() const UEXT4_REQUIRES(mutex_);
    bool has_room_again() const UEXT4_REQUIRES(mutex_);

    const ReadAhead how_;
    const AheadLimits limits_;
    mutable Mutex mutex_{Rank::Leaf, "HostAhead"};
    CondVar has_room_{"room to read ahead"}, has_entry_{"an entry that is read ahead"};
    CondVar idle_{"the reading thread to be idle"};
    std::vector<Entry> entries_ UEXT4_GUARDED_BY(mutex_);  // a ring: held_.entries of them, from first_ on
    std::size_t first_ UEXT4_GUARDED_BY(mutex_) = 0;
    std::vector<std::unique_ptr<HostSource>> given_back_ UEXT4_GUARDED_BY(mutex_);
    AheadLimits held_ UEXT4_GUARDED_BY(mutex_){0, 0, 0};
    bool reader_waits_ UEXT4_GUARDED_BY(mutex_) = false, taker_waits_ UEXT4_GUARDED_BY(mutex_) = false;
    bool stopped_ UEXT4_GUARDED_BY(mutex_) = false;     // by the destructor
    bool ended_ UEXT4_GUARDED_BY(mutex_) = false;       // nothing more comes
    std::vector<std::unique_ptr<HostSource>> to_free_;  // the walking thread's
    Thread thread_;
};

}  // namespace uext4::cli

#include "cli/host_ahead.h"

#include "cli/failure.h"

#include <chrono>
#include <new>
#include <utility>

namespace uext4::cli {

namespace {

constexpr std::size_t freed_at_once = 32, entries_to_wake = 16;
// After that the copy takes what there is.
constexpr std::chrono::milliseconds longest_wait(1);

}  // namespace

std::unique_ptr<HostAhead> HostAhead::start(const std::shared_ptr<HostFolder>& top, const ReadAhead& how,
                                            const AheadLimits& limits) {
    std::unique_ptr<HostAhead> out(new HostAhead(how, limits));
    top->ahead = out.get();
    Result<Thread> thread = Thread::start("uext4-ahead", [ahead = out.get(), top] { ahead->walk(top); });
    if (thread) {
        out->thread_ = std::move(*thread);
        return out;
    }
    top->ahead = nullptr;
    return nullptr;
}

HostAhead::~HostAhead() {
    {
        const MutexLock lock(mutex_);
        stopped_ = true;
        has_room_.notify_one();
    }
    thread_.join();
}

// A stack of its own, as a tree may be deeper than a thread's stack.
void HostAhead::walk(std::shared_ptr<const HostFolder> top) {
    struct Level {
        std::shared_ptr<const HostFolder> folder;
        std::size_t next = 0;
    };
    try {
        std::vector<Level> levels;
        levels.push_back({std::move(top)});
        while (!levels.empty()) {
            Level& level = levels.back();
            if (level.next == level.folder->names.size()) {
                levels.pop_back();
                continue;
            }
            if (!wait_for_room()) break;
            const std::string& name = level.folder->names[level.next++].first;
            std::unique_ptr<HostSource> source = prepared(level.folder, name);
            std::shared_ptr<const HostFolder> inner = source ? source->folder() : nullptr;
            hand_over({level.folder, &name, std::move(source)});
            if (inner) levels.push_back({std::move(inner)});
        }
    } catch (const std::bad_alloc&) {
        // The copy goes on without what would have come.
    }
    end();
}

std::unique_ptr<HostSource> HostAhead::prepared(const std::shared_ptr<const HostFolder>& folder,
                                                const std::string& name) {
    try {
        auto source = std::make_unique<HostSource>(below(folder->path, name), how_.follow, folder);
        source->prepare(how_, *this);
        return source;
    } catch (const Failure&) {
        return nullptr;
    }
}

bool HostAhead::is_full() const {
    return held_.entries >= limits_.entries || held_.descriptors >= limits_.descriptors || held_.bytes >= limits_.bytes;
}

// Less than full, so that the thread is not woken for each entry.
bool HostAhead::has_room_again() const {
    return held_.entries <= limits_.entries / 2 && held_.descriptors <= limits_.descriptors / 2 &&
           held_.bytes <= limits_.bytes / 2;
}

bool HostAhead::wait_for_room() {
    to_free_.clear();
    const MutexLock lock(mutex_);
    if (given_back_.size() >= freed_at_once) to_free_.swap(given_back_);
    if (is_full()) {
        reader_waits_ = true;
        idle_.notify_all();
        while (!stopped_ && !has_room_again()) has_room_.wait(mutex_);
        reader_waits_ = false;
    }
    return !stopped_;
}

void HostAhead::hand_over(Entry entry) {
    const MutexLock lock(mutex_);
    Entry& place = entries_[(first_ + held_.entries++) % entries_.size()];
    if (entry.source) {
        held_.descriptors += entry.source->holds_descriptor();
        held_.bytes += entry.source->bytes_held();
    }
    place = std::move(entry);
    // A copy that is faster than the thread would else be woken for each entry.
    if (!taker_waits_ || held_.entries < entries_to_wake) return;
    taker_waits_ = false;
    has_entry_.notify_one();
}

void HostAhead::end() {
    const MutexLock lock(mutex_);
    ended_ = true;
    has_entry_.notify_one();
    idle_.notify_all();
}

std::optional<HostAhead::Entry> HostAhead::next() {
    const MutexLock lock(mutex_);
    while (held_.entries == 0 && !ended_) {
        taker_waits_ = true;
        has_entry_.wait_for(mutex_, longest_wait);
    }
    taker_waits_ = false;
    if (held_.entries == 0) return {};
    Entry out = std::move(entries_[first_]);
    first_ = (first_ + 1) % entries_.size();
    --held_.entries;
    if (out.source) {
        held_.descriptors -= out.source->holds_descriptor();
        held_.bytes -= out.source->bytes_held();
    }
    if (reader_waits_ && has_room_again()) has_room_.notify_one();
    return out;
}

std::unique_ptr<HostSource> HostAhead::take(const HostFolder& folder, const std::string& name) {
    while (std::optional<Entry> entry = next())
        if (entry->folder.get() == &folder && *entry->name == name) return std::move(entry->source);
    return nullptr;
}

void HostAhead::give_back(std::unique_ptr<HostSource> source) {
    const MutexLock lock(mutex_);
    given_back_.push_back(std::move(source));
}

AheadLimits HostAhead::wait_until_full() {
    const MutexLock lock(mutex_);
    while (!ended_ && !(reader_waits_ && !has_room_again())) idle_.wait(mutex_);
    return held_;
}

}  // namespace uext4::cli

#include "volume/flusher.h"

#include "file/file_io.h"
#include "sync/atomic_point.h"

#include <chrono>
#include <optional>

namespace uext4 {

namespace {

using namespace std::chrono_literals;
constexpr auto period = 1s;
constexpr std::uint64_t old_enough_ms = 5000;
// Looks that find nothing dirty before it sleeps: what was changed last is committed by then, and may leave the table.
constexpr int last_looks = 6;

std::uint64_t steady_milliseconds() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(monotonic_now()).count());
}

// Of the files in the row of those that are dirty, so many are looked at together.
constexpr std::size_t files_at_a_time = 64;

}  // namespace

Flusher::Flusher(FsContext& fs, InodeTable& inodes, FreezeGate& gate, InodeWalks& walks)
    : fs_(fs), inodes_(inodes), gate_(gate), walks_(walks) {
    fs_.pages.set_flusher([this] { wake(); });
    thread_ = Thread("uext4-flush", [this] { run(); });
}

Flusher::~Flusher() {
    {
        MutexLock guard(lock_);
        stop_ = true;
        changed_.notify_all();
    }
    gate_.stop_waiting_for_activity();
    thread_.join();
    fs_.pages.set_flusher({});
}

void Flusher::wake() {
    MutexLock guard(lock_);
    if (woken_) return;
    woken_ = true;
    changed_.notify_all();
}

Result<void> Flusher::flush_all(InodeTable& inodes, const std::function<void(const std::string&)>& log) {
    constexpr std::uint64_t most_named = 32;
    Result<void> first;
    std::uint64_t failed = 0;
    inodes.for_each([&](InodeRef inode) {
        atomic_point("Inode::deleted", &inode->deleted);
        if (inode->deleted.load()) return;
        Result<void> r = write_back_for_sync(*inode);
        if (r) r = store_pending_times(*inode);
        if (r) return;
        if (++failed <= most_named && log) log(fmt::format("writeback: {}", r.error().what));
        if (first) first = std::move(r);
    });
    if (failed > most_named && log) log(fmt::format("writeback: {} files more", failed - most_named));
    return first;
}

Result<void> Flusher::flush_at_unmount(InodeTable& inodes, const std::function<void(const std::string&)>& log) {
    Result<void> given_up;
    inodes.for_each([&](InodeRef inode) {
        if (inode->deleted.load()) return;
        const Result<void> written = write_back(*inode);
        if (written || written.error().code != ENOSPC) return;
        const Result<std::uint64_t> lost = discard_unreserved_data(*inode);
        if (!lost || *lost == 0) return;
        Result<void> told = fail(ENOSPC, "inode {}: {} bytes have found no space and are lost", inode->number(), *lost);
        log(told.error().what);
        if (given_up) given_up = std::move(told);
    });
    if (Result<void> others = flush_all(inodes, log); !others) return others;
    return given_up;
}

// What an aborted journal keeps from being written was told of when it was aborted. Nor is it told each time that there
// is still no space.
void Flusher::log_result(const Result<void>& done, bool known_to_fail) {
    const bool told = fs_.journal.is_aborted() || (known_to_fail && !done && done.error().code == ENOSPC);
    if (!done && !told) fs_.log(fmt::format("writeback: {}", done.error().what));
}

// Those that have been dirty for long enough, and, where the cache has asked, others until there is less. The answer:
// the gate is shut.
bool Flusher::write_dirty_files(std::uint64_t now, bool pressed) {
    PageCache& pages = fs_.pages;
    // Others may go on making files dirty.
    std::uint64_t budget = pages.dirty_bytes() / pages.folio_size() + 1;
    for (bool some = true; some;) {
        some = false;
        for (const auto& [number, since] : pages.oldest_dirty_files(files_at_a_time)) {
            if (budget == 0) return false;
            const bool is_due = since + old_enough_ms <= now;
            if (!is_due && !(pressed && pages.dirty_bytes() > pages.background_limit() / 2)) continue;
            const InodeRef inode = inodes_.find(InodeNr(number));
            if (!inode) continue;
            // What failed is tried again when it is old enough, as if it had been written then.
            const bool known_to_fail = inode->last_writeback_failed.load();
            if (!is_due && known_to_fail) continue;
            const FreezeGate::TryEntry pass(gate_);
            if (!pass) return true;
            --budget;
            some = true;
            Result<void> done = write_back(*inode);
            // With them comes a commit, and a flush of the device: also for data that was written in its place.
            if (done && is_due) done = store_pending_times(*inode);
            pages.requeue_dirty_file(inode->pages());
            log_result(done, known_to_fail);
        }
    }
    return false;
}

// Of files that are not dirty. The answer: the gate is shut.
bool Flusher::store_all_pending_times() {
    bool shut = false;
    inodes_.for_each([&](InodeRef inode) {
        if (shut || inode->pages().dirty_folios() != 0) return;
        {
            MutexLock guard(inode->map_lock);
            if (!inode->times_pending() || inode->deleted.load()) return;
        }
        const FreezeGate::TryEntry pass(gate_);
        shut = !pass;
        if (!shut) log_result(store_pending_times(*inode), false);
    });
    return shut;
}

void Flusher::run() {
    std::uint64_t times_due = 0;  // when the times of files without dirty data are stored; 0: none were seen to wait
    bool pressed = false;         // the cache has asked
    for (int idle = 0;; ++idle) {
        // Nothing becomes dirty but inside the gate.
        const auto has_work = [this] { return fs_.pages.dirty_bytes() != 0 && !fs_.read_only.load(); };
        if (has_work() || times_due != 0) idle = 0;
        else if (idle >= last_looks) gate_.wait_for_activity(has_work), idle = 0;
        {
            MutexLock guard(lock_);
            if (!stop_ && !woken_) changed_.wait_for(lock_, period);
            if (stop_) return;
            pressed = std::exchange(woken_, false) || pressed;
        }
        std::optional<InodeWalks::ActiveWalk> walk(std::in_place, walks_);
        // Who closes the gate waits for the end of a walk that has begun by then.
        if (fs_.read_only.load() || gate_.is_closed()) continue;
        const std::uint64_t now = steady_milliseconds();
        const bool store_times = times_due != 0 && times_due <= now;
        bool shut = write_dirty_files(now, pressed);
        if (!shut && store_times) shut = store_all_pending_times();
        walk.reset();
        if (shut) continue;
        pressed = false;
        if (fs_.times_pending.load(std::memory_order_relaxed) == 0) times_due = 0;
        else if (times_due == 0 || store_times) times_due = now + old_enough_ms;
        inodes_.shrink_to_limit();
        fs_.pages.release_idle_memory();
    }
}

}  // namespace uext4

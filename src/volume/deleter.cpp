#include "volume/deleter.h"

#include "file/file_io.h"
#include "sync/atomic_point.h"
#include "sync/holding.h"

#include <utility>

namespace uext4 {

namespace {

// Whoever takes away many names would otherwise wake the thread for each, and meet it at every lock.
constexpr std::size_t batch = 256;
constexpr std::chrono::milliseconds patience{2};
// This much space is not kept waiting.
constexpr std::uint64_t large_file = 1 << 20;

}  // namespace

Deleter::Deleter(FsContext& fs, InodeTable& inodes, Orphans& orphans, FreezeGate& gate, bool background)
    : fs_(fs), inodes_(inodes), orphans_(orphans), gate_(gate) {
    inodes_.set_deleter([this](InodeRef inode) { queue(std::move(inode)); });
    if (background) thread_ = Thread("uext4-delete", [this] { run(); });
}

Deleter::~Deleter() {
    finish();
    {
        MutexLock guard(lock_);
        stop_ = true;
        changed_.notify_all();
    }
    thread_.join();
    inodes_.set_deleter({});
}

void Deleter::ask_who_keeps(std::function<bool(const InodeRef&)> keeps) {
    MutexLock guard(lock_);
    keeps_ = std::move(keeps);
}

void Deleter::queue(InodeRef inode) {
    {
        MutexLock guard(lock_);
        if (keeps_ && keeps_(inode)) return;
    }
    const bool large = inode->size_hint() > large_file;
    // Who has the lock now writes it back; then the deletion itself will count it.
    if (inode->map_lock.try_lock()) {
        inode->count_as_free();
        inode->map_lock.unlock();
    }
    fs_.allocator.expect_inodes(1);
    MutexLock guard(lock_);
    doomed_.push_back(std::move(inode));
    ++queued_;
    hurry_ = hurry_ || large || doomed_.size() >= batch;
    if (idle_ || (hurry_ && pausing_)) changed_.notify_all();
}

void Deleter::destroy(InodeRef inode) {
    FreezeGate::InnerPass pass(gate_);
    if (Result<void> r = delete_inode(*inode, inodes_, orphans_); !r) {
        // It stays an orphan: the next mount tries again. Without the mark its last reference would come back here.
        if (!fs_.journal.aborted()) {
            fs_.log(fmt::format("inode {} could not be deleted: {}", inode->number(), r.error().what));
            if (fs_.corruption && (r.error().code == EUCLEAN || r.error().code == EIO)) fs_.corruption(r.error());
        }
        atomic_point("Inode::deleted", &inode->deleted);
        inode->deleted.store(true);
    }
    fs_.allocator.expect_inodes(-1);
}

void Deleter::run() {
    MutexLock guard(lock_);
    for (;;) {
        note_given_up(&done_);
        idle_ = true;
        while (doomed_.empty() && !stop_) changed_.wait(lock_);
        idle_ = false;
        if (doomed_.empty()) return;
        note_held(deletions(), SourceLocation::current());
        pausing_ = true;
        changed_.wait_for(lock_, patience, [this] { return hurry_ || stop_; });
        pausing_ = hurry_ = false;
        std::deque<InodeRef> all;
        all.swap(doomed_);
        guard.unlock();
        for (InodeRef& inode : all) {
            destroy(std::move(inode));
            guard.lock();
            ++done_;
            changed_.notify_all();
            guard.unlock();
        }
        guard.lock();
    }
}

void Deleter::finish() {
    MutexLock guard(lock_);
    // Not what others queue meanwhile, which may never end.
    const std::uint64_t last = queued_;
    if (thread_.joinable()) {
        while (done_ < last) {
            if (!doomed_.empty() && !std::exchange(hurry_, true)) changed_.notify_all();
            changed_.wait(lock_, deletions());
        }
        return;
    }
    while (!doomed_.empty()) {
        InodeRef inode = std::move(doomed_.front());
        doomed_.pop_front();
        guard.unlock();
        destroy(std::move(inode));
        guard.lock();
        ++done_;
    }
}

void Deleter::finish_unless_frozen() {
    if (!thread_.joinable()) return finish();
    std::uint64_t last = 0;
    {
        MutexLock guard(lock_);
        last = queued_;
    }
    while (!gate_.closed()) {
        MutexLock guard(lock_);
        if (done_ >= last) return;
        if (!doomed_.empty() && !std::exchange(hurry_, true)) changed_.notify_all();
        changed_.wait_for(lock_, FreezeGate::glance);
    }
}

bool Deleter::busy() {
    MutexLock guard(lock_);
    return done_ < queued_;
}

}  // namespace uext4

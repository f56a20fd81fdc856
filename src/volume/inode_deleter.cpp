#include "volume/inode_deleter.h"

#include "file/file_io.h"
#include "sync/atomic_point.h"
#include "sync/resource_tracking.h"

#include <utility>

namespace uext4 {

namespace {

// Whoever takes away many names would otherwise wake the thread for each, and meet it at every lock.
constexpr std::size_t batch = 256;
constexpr std::chrono::milliseconds patience{2};
// This much space is not kept waiting.
constexpr std::uint64_t large_file = 1 << 20;
constexpr int rounds = 2;  // see wait_for_deletions()

}  // namespace

InodeDeleter::InodeDeleter(FsContext& fs, InodeTable& inodes, OrphanList& orphans, FreezeGate& gate, bool background)
    : fs_(fs), inodes_(inodes), orphans_(orphans), gate_(gate) {
    inodes_.set_delete_callback([this](InodeRef inode) { queue(std::move(inode)); });
    if (background) thread_ = Thread("uext4-delete", [this] { run(); });
}

InodeDeleter::~InodeDeleter() {
    wait_for_deletions();
    {
        MutexLock guard(lock_);
        stop_ = true;
        changed_.notify_all();
    }
    thread_.join();
    inodes_.set_delete_callback({});
}

void InodeDeleter::set_keep_callback(std::function<bool(const InodeRef&)> keeps) {
    MutexLock guard(lock_);
    keeps_ = std::move(keeps);
}

void InodeDeleter::queue(InodeRef inode) {
    {
        MutexLock guard(lock_);
        if (keeps_ && keeps_(inode)) return;
    }
    const bool large = inode->size_hint() > large_file;
    // Who has the lock now writes it back; then the deletion itself will count it.
    if (inode->map_lock.try_lock()) {
        inode->count_as_deleting();
        inode->map_lock.unlock();
    }
    fs_.allocator.add_pending_free_inodes(1);
    MutexLock guard(lock_);
    queue_.push_back(std::move(inode));
    ++queued_;
    wake_requested_ = wake_requested_ || large || queued_ - started_ >= batch;
    if (idle_ || (wake_requested_ && batching_)) changed_.notify_all();
}

void InodeDeleter::destroy(InodeRef inode) {
    FreezeGate::InnerEntry pass(gate_);
    if (Result<void> r = delete_inode(*inode, inodes_, orphans_); !r) {
        // It stays an orphan: the next mount tries again. Without the mark its last reference would come back here.
        if (!fs_.journal.is_aborted()) {
            fs_.log(fmt::format("inode {} could not be deleted: {}", inode->number(), r.error().what));
            if (fs_.corruption_callback && (r.error().code == EUCLEAN || r.error().code == EIO))
                fs_.corruption_callback(r.error());
        }
        atomic_point("Inode::deleted", &inode->deleted);
        inode->deleted.store(true);
    }
    fs_.allocator.add_pending_free_inodes(-1);
}

void InodeDeleter::run() {
    MutexLock guard(lock_);
    for (;;) {
        note_released(deletions().address);
        idle_ = true;
        while (queue_.empty() && !stop_) changed_.wait(lock_);
        idle_ = false;
        if (queue_.empty()) return;
        note_held(deletions(), SourceLocation::current());
        batching_ = true;
        changed_.wait_for(lock_, patience, [this] { return wake_requested_ || stop_; });
        batching_ = wake_requested_ = false;
        const std::uint64_t last = started_ = queued_;
        guard.unlock();
        delete_queued(last);
        guard.lock();
    }
}

void InodeDeleter::delete_queued(std::uint64_t last) {
    // It is over also where memory runs out on the way.
    struct Turn {
        InodeDeleter& deleter;
        std::uint64_t number;
        ~Turn() {
            MutexLock guard(deleter.lock_);
            deleter.pending_.end(number);
            deleter.changed_.notify_all();
        }
    };
    for (;;) {
        InodeRef inode;
        std::uint64_t number = 0;
        {
            MutexLock guard(lock_);
            if (pending_.begun() >= last) return;
            inode = std::move(queue_.front());
            queue_.pop_front();
            number = pending_.begin("deletion", SourceLocation::current());
        }
        const Turn turn{*this, number};
        destroy(std::move(inode));
    }
}

void InodeDeleter::wake_now() {
    if (queued_ > started_ && !std::exchange(wake_requested_, true)) changed_.notify_all();
}

std::uint64_t InodeDeleter::queued() {
    MutexLock guard(lock_);
    return queued_;
}

// Not what others queue meanwhile, which may never end. But who deletes holds the neighbours among the orphans, and
// queues those that were let go meanwhile: so a second time for what was held at the beginning.
void InodeDeleter::wait_for_deletions() {
    for (int round = 0; round < rounds; ++round) {
        const std::uint64_t last = queued();
        if (!thread_.joinable()) delete_queued(last);
        MutexLock guard(lock_);
        while (!is_done(last)) {
            if (thread_.joinable()) wake_now();
            changed_.wait(lock_, thread_.joinable() ? deletions() : *pending_.oldest(last));
        }
    }
}

void InodeDeleter::wait_for_deletions_unless_frozen() {
    for (int round = 0; round < rounds; ++round) {
        const std::uint64_t last = queued();
        for (;;) {
            if (gate_.is_closed()) return;
            if (!thread_.joinable()) delete_queued(last);
            MutexLock guard(lock_);
            if (is_done(last)) break;
            if (thread_.joinable()) wake_now();
            changed_.wait_for(lock_, FreezeGate::poll_interval);
        }
    }
}

bool InodeDeleter::is_busy() {
    MutexLock guard(lock_);
    return !is_done(queued_);
}

}  // namespace uext4

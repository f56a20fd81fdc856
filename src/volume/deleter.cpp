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
constexpr int rounds = 2;  // see finish()

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
    hurry_ = hurry_ || large || queued_ - taken_ >= batch;
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
        note_given_up(deletions().address);
        idle_ = true;
        while (doomed_.empty() && !stop_) changed_.wait(lock_);
        idle_ = false;
        if (doomed_.empty()) return;
        note_held(deletions(), SourceLocation::current());
        pausing_ = true;
        changed_.wait_for(lock_, patience, [this] { return hurry_ || stop_; });
        pausing_ = hurry_ = false;
        const std::uint64_t last = taken_ = queued_;
        guard.unlock();
        take_turns(last);
        guard.lock();
    }
}

void Deleter::take_turns(std::uint64_t last) {
    // It is over also where memory runs out on the way.
    struct Turn {
        Deleter& deleter;
        std::uint64_t number;
        ~Turn() {
            MutexLock guard(deleter.lock_);
            deleter.under_way_.end(number);
            deleter.changed_.notify_all();
        }
    };
    for (;;) {
        InodeRef inode;
        std::uint64_t number = 0;
        {
            MutexLock guard(lock_);
            if (under_way_.begun() >= last) return;
            inode = std::move(doomed_.front());
            doomed_.pop_front();
            number = under_way_.begin("deletion", SourceLocation::current());
        }
        const Turn turn{*this, number};
        destroy(std::move(inode));
    }
}

void Deleter::hurry() {
    if (queued_ > taken_ && !std::exchange(hurry_, true)) changed_.notify_all();
}

std::uint64_t Deleter::queued() {
    MutexLock guard(lock_);
    return queued_;
}

// Not what others queue meanwhile, which may never end. But who deletes holds the neighbours among the orphans, and
// queues those that were let go meanwhile: so a second time for what was held at the beginning.
void Deleter::finish() {
    for (int round = 0; round < rounds; ++round) {
        const std::uint64_t last = queued();
        if (!thread_.joinable()) take_turns(last);
        MutexLock guard(lock_);
        while (!over(last)) {
            if (thread_.joinable()) hurry();
            changed_.wait(lock_, thread_.joinable() ? deletions() : *under_way_.oldest(last));
        }
    }
}

void Deleter::finish_unless_frozen() {
    for (int round = 0; round < rounds; ++round) {
        const std::uint64_t last = queued();
        for (;;) {
            if (gate_.closed()) return;
            if (!thread_.joinable()) take_turns(last);
            MutexLock guard(lock_);
            if (over(last)) break;
            if (thread_.joinable()) hurry();
            changed_.wait_for(lock_, FreezeGate::glance);
        }
    }
}

bool Deleter::busy() {
    MutexLock guard(lock_);
    return !over(queued_);
}

}  // namespace uext4

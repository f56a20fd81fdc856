#include "volume/deleter.h"

#include "file/file_io.h"

namespace uext4 {

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

void Deleter::queue(InodeRef inode) {
    MutexLock guard(lock_);
    doomed_.push_back(std::move(inode));
    changed_.notify_all();
}

void Deleter::destroy(InodeRef inode) {
    FreezeGate::Pass pass(gate_);
    if (Result<void> r = delete_inode(*inode, inodes_, orphans_); !r) {
        // It stays an orphan: the next mount tries again. Without the mark its last reference would come back here.
        if (!fs_.journal.aborted())
            fs_.log(fmt::format("inode {} could not be deleted: {}", inode->number(), r.error().what));
        inode->deleted.store(true);
    }
}

void Deleter::run() {
    MutexLock guard(lock_);
    for (;;) {
        while (doomed_.empty() && !stop_) changed_.wait(lock_);
        if (doomed_.empty()) return;
        InodeRef inode = std::move(doomed_.front());
        doomed_.pop_front();
        busy_ = true;
        guard.unlock();
        destroy(std::move(inode));
        guard.lock();
        busy_ = false;
        changed_.notify_all();
    }
}

void Deleter::finish() {
    MutexLock guard(lock_);
    if (thread_.joinable()) {
        while (!doomed_.empty() || busy_) changed_.wait(lock_);
        return;
    }
    while (!doomed_.empty()) {
        InodeRef inode = std::move(doomed_.front());
        doomed_.pop_front();
        guard.unlock();
        destroy(std::move(inode));
        guard.lock();
    }
}

}  // namespace uext4

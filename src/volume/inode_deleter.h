// Deletes inodes whose last name and last reference are gone.
#pragma once

#include "inode/inode_table.h"
#include "inode/orphan_list.h"
#include "sync/pending_operations.h"
#include "sync/thread.h"
#include "volume/freeze_gate.h"

#include <deque>
#include <functional>

namespace uext4 {

class InodeDeleter {
public:
    InodeDeleter(FsContext& fs, InodeTable& inodes, OrphanList& orphans, FreezeGate& gate, bool background);
    ~InodeDeleter();
    // Until all is deleted that is queued now.
    void wait_for_deletions();
    // The same for who may be the one that is to thaw: not while the gate is closed, which deletions wait for.
    void wait_for_deletions_unless_frozen();
    bool is_busy();
    // Asked of each inode before it is queued: true if a reference to it was kept, and will be given up when nobody can
    // ask for the inode any more, which is then asked of again. Any thread, with a lock of rank Leaf held. Empty: none
    // is kept.
    void set_keep_callback(std::function<bool(const InodeRef&)> keeps);

private:
    void run();
    void queue(InodeRef inode);
    void destroy(InodeRef inode);
    // The caller deletes what nobody has begun with, up to the `last`-th that was queued.
    void delete_queued(std::uint64_t last);
    bool is_done(std::uint64_t last) const UEXT4_REQUIRES(lock_) {
        return pending_.begun() >= last && !pending_.oldest(last);
    }
    std::uint64_t queued();
    void wake_now() UEXT4_REQUIRES(lock_);
    HeldResource deletions() const { return {&queue_, "deletions"}; }

    FsContext& fs_;
    InodeTable& inodes_;
    OrphanList& orphans_;
    FreezeGate& gate_;
    Mutex lock_{Rank::Leaf, "Deleter"};
    CondVar changed_{"deleter"};
    std::function<bool(const InodeRef&)> keeps_;
    std::deque<InodeRef> queue_;
    std::uint64_t queued_ = 0;   // how many so far,
    std::uint64_t started_ = 0;  // and of these the thread has taken on, to be done without a pause
    PendingOperations pending_;  // in the order in which they were queued
    bool stop_ = false;
    bool idle_ = false;            // the thread: without work,
    bool batching_ = false;        // letting work gather,
    bool wake_requested_ = false;  // and not to do so
    Thread thread_;
};

}  // namespace uext4

// Background writeback: by age, by amount, and when the cache asks.
#pragma once

#include "inode/inode_table.h"
#include "sync/thread.h"
#include "volume/inode_walks.h"

#include <functional>
#include <string>

namespace uext4 {

class Flusher {
public:
    Flusher(FsContext& fs, InodeTable& inodes, FreezeGate& gate, InodeWalks& walks);
    ~Flusher();
    void wake();
    // Every file's dirty data and pending times. The first error, after all files were tried; `log`, where given, is
    // told which files failed.
    static Result<void> flush_all(InodeTable& inodes, const std::function<void(const std::string&)>& log = {});
    // For the last time: what has no space now is given up, which `log` is told. Then the error is ENOSPC, unless it is
    // another.
    static Result<void> flush_at_unmount(InodeTable& inodes, const std::function<void(const std::string&)>& log);

private:
    void run();
    void log_result(const Result<void>& done, bool known_to_fail);
    bool write_dirty_files(std::uint64_t now, bool pressed);
    bool store_all_pending_times();

    FsContext& fs_;
    InodeTable& inodes_;
    FreezeGate& gate_;
    InodeWalks& walks_;
    Mutex lock_{Rank::Leaf, "Flusher"};
    CondVar changed_{"flusher"};
    bool stop_ = false, woken_ = false;
    Thread thread_;
};

}  // namespace uext4

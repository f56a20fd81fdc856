// Background writeback: by age, by amount, and when the cache asks.
#pragma once

#include "inode/inode_table.h"
#include "sync/thread.h"
#include "volume/freeze_gate.h"

#include <functional>
#include <string>

namespace uext4 {

class Flusher {
public:
    Flusher(FsContext& fs, InodeTable& inodes, FreezeGate& gate);
    ~Flusher();
    void wake();
    // Until the pass over all files that is under way is over, if one is: what it looks at is held meanwhile, and what
    // was removed is not deleted before. Not while the gate is closed, which ends a pass.
    void finish_pass();
    // While the gate is closed: until nothing is held any more that a pass has looked at.
    void leave();
    // Every file's dirty data and pending times. The first error, after all files were tried; `log`, where given, is
    // told which files failed.
    static Result<void> flush_all(InodeTable& inodes, const std::function<void(const std::string&)>& log = {});
    // For the last time: what has no space now is given up, which `log` is told. Then the error is ENOSPC, unless it is
    // another.
    static Result<void> flush_for_good(InodeTable& inodes, const std::function<void(const std::string&)>& log);

private:
    void run();
    void end_pass();
    Holdable pass() const { return {&in_pass_, "pass of the flusher"}; }

    FsContext& fs_;
    InodeTable& inodes_;
    FreezeGate& gate_;
    Mutex lock_{Rank::Leaf, "Flusher"};
    CondVar changed_{"flusher"};
    bool stop_ = false, woken_ = false, in_pass_ = false;
    std::uint64_t passes_ = 0;
    Thread thread_;
};

}  // namespace uext4

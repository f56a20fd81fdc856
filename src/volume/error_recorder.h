// Has the superblock marked soon after damage was met, by a thread that is there only from then on: who meets it holds
// locks, and after a crash e2fsck is to hear of it all the same.
#pragma once

#include "sync/condition.h"
#include "sync/thread.h"

#include <functional>

namespace uext4 {

class ErrorRecorder {
public:
    ~ErrorRecorder() { stop(); }
    // `mark` is called by the thread, with nothing held: for what was wanted before, too.
    void start(std::function<void()> mark);
    // Any thread, whatever it holds but locks of rank Leaf. Nothing after stop(); where there is no memory for a
    // thread, the mark comes with the next sync.
    void request();
    void stop();

private:
    void run();
    void start_thread() UEXT4_REQUIRES(lock_);

    Mutex lock_{Rank::Leaf, "ErrorMarker"};
    CondVar changed_{"damage to be marked"};
    std::function<void()> record_ UEXT4_GUARDED_BY(lock_);
    bool requested_ UEXT4_GUARDED_BY(lock_) = false;
    bool stop_ UEXT4_GUARDED_BY(lock_) = false;
    Thread thread_ UEXT4_GUARDED_BY(lock_);
};

}  // namespace uext4

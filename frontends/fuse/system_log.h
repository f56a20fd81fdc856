// Lines for syslog(3), from a thread of its own: who takes them may be slow, and may wait for an answer of this mount.
#pragma once

#include <memory>
#include <string>

namespace uext4::fuse {

class SystemLog {
public:
    SystemLog();
    ~SystemLog();
    SystemLog(const SystemLog&) = delete;

    // Waits 20 ms at most, and not at all behind lines that nobody has taken yet. Of what is more than a few hundred
    // lines it tells how many there were.
    void add(std::string line);
    // Before the end: what waits is written, unless nobody takes it for a second.
    void settle();

private:
    struct State;
    std::shared_ptr<State> state_;  // the thread's as well, which may stay behind
};

}  // namespace uext4::fuse

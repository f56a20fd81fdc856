// A small process that takes the mount away when the server cannot.
//
// A server must not walk into its own mount: if it is killed there, nobody answers and the process stays. And before it
// ends on a signal the kernel's cache has to be written, which the server itself must serve. So a second process,
// forked before the image is opened, does both on request; it ends with the server.
#pragma once

#include "base/result.h"

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace uext4::fuse {

class Supervisor {
public:
    // Forks: to be called while the process has one thread. `auto_unmount`: a server that died leaves no mount behind.
    // `sandbox`: it keeps those of its capabilities that it needs. `unwanted`: descriptors that it must not keep open.
    static Result<Supervisor> start(const std::string& directory, bool auto_unmount, bool sandbox,
                                    const std::vector<int>& unwanted);
    Supervisor(Supervisor&& other) noexcept;
    ~Supervisor();  // the process ends, too

    void mounted();    // the mount at the directory is the server's now
    void take_away();  // writes the kernel's cache, then unmounts lazily; answered on descriptor()
    void forget();     // the mount has gone
    void drop();       // unmounts lazily, the kernel's cache not written: nobody serves it any more
    // The supplementary groups of a caller, which a sandboxed server cannot look up. Empty when the caller is gone.
    // Thread-safe.
    std::vector<gid_t> groups_of(pid_t pid);
    int descriptor() const { return socket_; }
    // What there is to read on the descriptor is the answer to take_away(); if not, the process has been killed.
    bool answers();

private:
    Supervisor(int socket, int groups, pid_t pid) : socket_(socket), groups_(groups), pid_(pid) {}
    int socket_, groups_;
    pid_t pid_;
    std::unique_ptr<std::mutex> groups_lock_ = std::make_unique<std::mutex>();  // one question at a time
};

}  // namespace uext4::fuse

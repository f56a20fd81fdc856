// A small process that mounts for a server which has given up its rights before it parsed the image, and takes the
// mount away when the server cannot.
//
// A server must not walk into its own mount: if it is killed there, nobody answers and the process stays. And before it
// ends on a signal the kernel's cache has to be written, which the server itself must serve. So a second process,
// forked before the image is opened, does all of that on request; it ends with the server. What is mounted where, and
// with which options, it knows from before: the server, which a hostile image may have taken over by then, only says
// when, and that the mount is to be read-only.
#pragma once

#include "base/result.h"
#include "fuse/options.h"

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace uext4::fuse {

class Supervisor {
public:
    // Forks: to be called while the process has one thread. With `auto_unmount`, a server that died leaves no mount
    // behind; with `sandbox`, the process keeps those of its capabilities that it needs. What it has to say before it
    // has mounted goes to stderr; it keeps no other descriptor.
    // `mount`: "IMAGE on DIRECTORY", for ps(1).
    static Result<Supervisor> start(const std::string& directory, const MountOptions& options,
                                    const std::string& mount);
    Supervisor(Supervisor&& other) noexcept;
    ~Supervisor();  // the process ends, too

    // Once. The descriptor by which the kernel's requests come, the caller's to close. `read_only`: the image can only
    // be read, whatever the options say.
    Result<int> mount(bool read_only);
    void take_away();  // writes the kernel's cache, then unmounts lazily; answered on descriptor()
    // Unmounts lazily if the mount is still there, the kernel's cache not written: nobody serves it any more. False
    // when the process has been killed.
    bool drop();
    // The supplementary groups of a caller, which a sandboxed server cannot look up. Empty when the caller is gone.
    // Thread-safe.
    std::vector<gid_t> groups_of(pid_t pid);
    int descriptor() const { return socket_; }
    // What there is to read on the descriptor is the answer to take_away(); if not, the process has been killed.
    bool answers();

private:
    Supervisor(std::string directory, int socket, int groups, pid_t pid)
        : directory_(std::move(directory)), socket_(socket), groups_(groups), pid_(pid) {}
    std::string directory_;
    int socket_, groups_;
    pid_t pid_;
    std::unique_ptr<std::mutex> groups_lock_ = std::make_unique<std::mutex>();  // one question at a time
};

}  // namespace uext4::fuse

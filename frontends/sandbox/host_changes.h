// Contents, owners, permissions, times and attributes of files of the host, for a process in the sandbox.
//
// The kernel has no limit for who may change the attributes by name, or by a descriptor that was opened to read; and
// who may make nodes of devices, and open files, opens the disk behind one. So a process that parses an image has no
// such call. Another one, forked before, has them: it never sees the image, is asked for one thing at a time, and does
// it in the folders that it has open since then, or below them, following no link. Out of the sandbox the same calls
// are made at once.
#pragma once

#include "sandbox/sandbox.h"

#include <sys/types.h>
#include <time.h>

#include <cstddef>
#include <span>
#include <string>

namespace uext4 {

// As lchown(2), fchmodat(2) without following links, utimensat(2) the same, lsetxattr(2): 0, or -1 and errno. EACCES
// for what lies nowhere in HostFiles::writable.
int change_owner(const std::string& path, std::uint32_t uid, std::uint32_t gid);
int change_mode(const std::string& path, mode_t mode);
int change_times(const std::string& path, const timespec (&times)[2]);
int change_attribute(const std::string& path, const std::string& name, std::span<const std::byte> value);

// As open(2) of a file that is to be written anew, made where there is none. In the sandbox of files only, and of the
// devices and pipes of HostFiles::writable; links are followed there on the way to one of these places at most.
int open_contents(const std::string& path, bool follow);

// What goes through the socket, in one message; behind it the bytes of the folder, of the name in it, of the
// attribute's name and of its value. The answer is an errno, with a descriptor if contents were asked for. Whoever asks
// may have been taken over: all of it is checked.
struct ChangeRequest {
    enum Kind : std::uint32_t { owner, mode, times, attribute, contents };
    std::uint32_t kind = owner;
    std::uint32_t root = 0;  // of HostFiles::writable; the folder goes on from there
    std::uint32_t uid = 0, gid = 0, permissions = 0;
    std::int64_t seconds[2] = {}, nanoseconds[2] = {};
    std::uint32_t folder_size = 0, name_size = 0, attribute_size = 0, value_size = 0;
};

// Forks: before the process gives anything up, and while it has one thread. The other one ends with it.
Result<void> start_host_changes(const HostFiles& files);

}  // namespace uext4

// Files of the host, made, written, changed and removed for a process in the sandbox.
//
// The kernel limits who may make and open files (Landlock, where it is to be had), but not who changes permissions,
// owners, times and attributes by name, or by a descriptor that was opened to read; and whoever may make nodes of
// devices and open what has been made opens the disk behind one. So a process that parses an image has no call for any
// of it. Another one, forked before, has them: it never sees the image, is asked for one thing at a time, and does it
// in the places that it knows since then, or below them, following no link. Out of the sandbox the same calls are made
// at once.
#pragma once

#include "sandbox/sandbox.h"

#include <sys/types.h>
#include <time.h>

#include <cstddef>
#include <span>
#include <string>

namespace uext4 {

// All of them: 0 (a descriptor), or -1 and errno; EACCES for what lies nowhere in HostFiles::writable. No link at the
// end of a path is followed, unless it is one of these places.

// As lchown(2), fchmodat(2) without following links, utimensat(2) the same, lsetxattr(2).
int change_owner(const std::string& path, std::uint32_t uid, std::uint32_t gid);
int change_mode(const std::string& path, mode_t mode);
// The same of a folder that was made just now: a set-group-ID bit that it has from its parent stays, as by cp(1).
int change_new_folder_mode(const std::string& path, mode_t mode);
int change_times(const std::string& path, const timespec (&times)[2]);
int change_attribute(const std::string& path, const std::string& name, std::span<const std::byte> value);

// As open(2) of a file that is to be written anew, made where there is none. In the sandbox of regular files only, and
// of the devices and pipes that are such a place.
int open_contents(const std::string& path, bool follow);
// The file stays open, for its attributes, until another one is asked for, or until now.
void release_contents();

// Of trees only (HostFiles::whole_trees). As mkdir(2), symlink(2), mknod(2), link(2), unlink(2); for their owner alone.
int make_folder(const std::string& path);
int make_symlink(const std::string& text, const std::string& path);
int make_node(const std::string& path, mode_t kind, dev_t device);
int make_link(const std::string& of, const std::string& path);
int remove_file(const std::string& path);

// Forks: before the process gives anything up, and while it has one thread. The other one ends with it.
Result<void> start_host_changes(const HostFiles& files);

}  // namespace uext4

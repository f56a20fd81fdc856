// The process that changes files of the host for one that parses an image (host_changes.h): what it is asked, and where
// it may do it.
#pragma once

#include "base/descriptor.h"
#include "sandbox/sandbox.h"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace uext4 {

// A place that may be written. Both sides have the same ones in the same order.
struct BlockState {
    enum Kind {
        named,    // whatever has this name, in a folder that is open
        folder,   // what a link led to, or a path without a name of its own
        file,     // the same
        special,  // a device, a pipe or a socket that was there: to be opened, not to be changed
    };
    std::string path;  // as it was given, without slashes at its end
    std::string real;  // without links; of a name nothing
    Kind kind = named;
    std::shared_ptr<const Descriptor> above{};  // the folder that it is in, and its name there; or none
    std::string name{};
    Descriptor own{};  // O_PATH; of a name only where it was a folder
    dev_t device = 0;  // of a special one
    ino_t inode = 0;
};

// Of HostFiles::writable: names, but with a slash at the end the folder that is there, by whatever links. What there
// are no descriptors for is left out, and an error when it is written.
std::vector<BlockState> open_places(const HostFiles& files);

// What goes through the socket, in one message; behind it the bytes of the folder and of the name in it, of those of
// the other file, of the attribute's name and of its value. The answer is an errno, with a descriptor if contents were
// asked for. Whoever asks may have been taken over: all of it is checked.
struct ChangeRequest {
    enum Kind : std::uint32_t {
        owner,
        mode,
        times,
        attribute,
        contents,
        directory,
        symlink,
        node,
        link,
        removal,
        release
    };
    // In a place, by its number: the folder goes on from there. The place itself is "." in no folder.
    struct Spot {
        std::uint32_t place = 0, folder_size = 0, name_size = 0;
    };
    std::uint32_t kind = owner;
    Spot at, other;  // a link is made to the other one
    std::uint32_t uid = 0, gid = 0;
    std::uint32_t permissions = 0;  // of a node its kind
    std::uint32_t inherits = 0;     // 1: a folder keeps the set-group-ID bit that its parent gave it
    std::uint64_t device = 0;
    std::int64_t seconds[2] = {}, nanoseconds[2] = {};
    std::uint32_t attribute_size = 0, value_size = 0;  // the text of a symlink is a value
};

// A change of what `name` leads to from the current directory; the last part of it is followed only on demand.
struct Change {
    ChangeRequest request{};
    std::string attribute{};
    std::span<const std::byte> value{};
    int linked_in = -1;  // of a link: where the other name is
    std::string linked{};

    // 0, a descriptor, or -1 and errno.
    int make(const std::string& name, bool follow) const;
    // The same of an open file: of its owner, permissions, times and attributes.
    int make_on(int fd) const;
    bool is_of_attributes() const;
    // Those that the request gives to what `path` (of an open file: "") leads to.
    mode_t permissions_of(int folder, const char* path) const;
};

// In the child: ends it.
[[noreturn]] void serve_changes(int socket, std::vector<BlockState> places, const HostFiles& files);

}  // namespace uext4

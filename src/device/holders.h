// Which process has an image open: for the sentence that refuses it to another one.
//
// An exclusive lock of an image is a lock of an open file description, which names no process (fcntl(2), F_OFD_GETLK).
// So a process that has locked an image also marks it: by a shared lock of its own, which does, far behind the end of
// any image. A mark excludes nobody. It goes when the process closes any descriptor of the file.
#pragma once

#include <cstdint>
#include <string>

namespace uext4 {

// Locks of images end here, and marks begin.
inline constexpr std::uint64_t first_holder_byte = std::uint64_t{1} << 62;

// The bytes of a file that an image is.
struct ImageRange {
    std::uint64_t begin, end;
    ImageRange(std::uint64_t offset, std::uint64_t length);  // length 0: to the end
};

// Marks the bytes as held by this process.
void record_holder(int fd, const ImageRange& bytes);

// Whether another open file description of this process has a lock that keeps a lock of the bytes out, an exclusive or
// a shared one. False where /proc cannot be read.
bool this_process_holds(int fd, bool exclusive, const ImageRange& bytes);

// The subject of a sentence: "process 4711 (uext4-server)", "this process", or "another process" where nothing more can
// be found out.
// Of the lock that keeps an exclusive or a shared lock of the bytes out.
std::string holder_of(int fd, bool exclusive, const ImageRange& bytes);
// Of a lease of the file, or of a process that has the file or block device open.
std::string opener_of(const std::string& path);

}  // namespace uext4

// The doors to two files of one thread: of the library, or of a mount. Everything returns what the system call returns,
// and a negative errno instead of -1.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace uext4::exercise {

enum class Way { plain, direct, synchronous, append };
inline constexpr Way ways[] = {Way::plain, Way::direct, Way::synchronous, Way::append};
int flags_of(Way way);  // of open(2), with O_RDWR

class Side {
public:
    virtual ~Side() = default;  // leaves the file system in order
    virtual ssize_t pread(unsigned file, Way way, void* into, std::size_t length, off_t at) = 0;
    virtual ssize_t pwrite(unsigned file, Way way, const void* from, std::size_t length, off_t at) = 0;
    virtual ssize_t preadv(unsigned file, Way way, const iovec* parts, int count, off_t at) = 0;
    virtual ssize_t pwritev(unsigned file, Way way, const iovec* parts, int count, off_t at) = 0;
    virtual int truncate(unsigned file, off_t size) = 0;
    virtual int fallocate(unsigned file, int mode, off_t at, off_t length) = 0;
    virtual int sync(unsigned file, bool data_only) = 0;
    virtual off_t seek(unsigned file, off_t at, int whence) = 0;
    virtual ssize_t copy(unsigned from, off_t at, unsigned to, off_t to_at, std::size_t length) = 0;
    virtual int set_xattr(unsigned file, const char* name, const void* value, std::size_t size) = 0;
    virtual int map(unsigned file, off_t at, std::size_t length, int protection, int flags, void** address) = 0;
    virtual int unmap(void* address, std::size_t length) = 0;
    virtual int msync(void* address, std::size_t length, int flags) = 0;
    virtual int get_flags(unsigned file, unsigned& flags) = 0;  // FS_*_FL
    virtual int set_flags(unsigned file, unsigned flags) = 0;
    // All files, those of other threads as well.
    virtual int sync_all() = 0;
    virtual int freeze() = 0;
    virtual int thaw() = 0;
    virtual bool is_mount() const = 0;
};

// Opens, and creates, two files for each thread: /f0 and /f1 are those of the first. Ends the program with a sentence
// when that fails.
std::vector<std::unique_ptr<Side>> open_library(const std::string& image, const std::string& options, unsigned threads);
std::vector<std::unique_ptr<Side>> open_mount(const std::string& directory, unsigned threads);

}  // namespace uext4::exercise

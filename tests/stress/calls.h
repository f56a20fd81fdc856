// The calls of the stress: of the library, or of the system below a directory. Everything returns what the system call
// returns, and a negative errno instead of -1. Paths are relative to the file system's root. One object serves many
// threads or processes.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace uext4::stress {

using File = std::intptr_t;  // a descriptor or a pointer

struct Entry {
    std::string name;
    ino_t inode = 0;
    unsigned char type = 0;  // DT_*
    long next = 0;           // what seekdir takes to go on behind this entry
};

struct Listing {
    int result = 0;
    std::vector<Entry> entries;  // without . and ..
    std::vector<Entry> again;    // read a second time, from the position `from` of `entries` on
    std::size_t from = 0;
};

class Calls {
public:
    virtual ~Calls() = default;
    virtual bool is_mount() const = 0;

    virtual int open(const std::string& path, int flags, mode_t mode, File& file) = 0;
    virtual int unnamed(const std::string& directory, mode_t mode, File& file) = 0;  // O_TMPFILE
    virtual int name(File file, const std::string& path) = 0;                        // gives such a file a name
    virtual void close(File file) = 0;
    virtual ssize_t pread(File file, void* into, std::size_t length, off_t at) = 0;
    virtual ssize_t pwrite(File file, const void* from, std::size_t length, off_t at) = 0;
    virtual int truncate(File file, off_t size) = 0;
    virtual int fsync(File file) = 0;
    virtual int stat(File file, struct stat& out) = 0;

    virtual int stat(const std::string& path, struct stat& out) = 0;  // no link is followed
    virtual int mkdir(const std::string& path, mode_t mode) = 0;
    virtual int rmdir(const std::string& path) = 0;
    virtual int unlink(const std::string& path) = 0;
    virtual int rename(const std::string& from, const std::string& to, unsigned flags) = 0;
    virtual int link(const std::string& target, const std::string& path) = 0;
    virtual int symlink(const std::string& target, const std::string& path) = 0;
    virtual int readlink(const std::string& path, std::string& target) = 0;
    virtual int mknod(const std::string& path, mode_t mode, dev_t device) = 0;
    virtual int chmod(const std::string& path, mode_t mode) = 0;
    virtual int set_xattr(const std::string& path, const std::string& key, std::string_view value, int flags) = 0;
    virtual int get_xattr(const std::string& path, const std::string& key, std::string& value) = 0;
    virtual int remove_xattr(const std::string& path, const std::string& key) = 0;
    // `again` picks the entry behind which the listing is read a second time.
    virtual Listing list(const std::string& path, std::uint64_t again) = 0;
};

std::unique_ptr<Calls> library_calls(const std::string& image, const std::string& options);
std::unique_ptr<Calls> mount_calls(const std::string& directory);

}  // namespace uext4::stress

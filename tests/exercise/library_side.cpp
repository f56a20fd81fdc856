#include "tests/exercise/side.h"
#include "uext4/uext4.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cstdlib>
#include <map>

namespace uext4::exercise {

namespace {

int needed(int result, const char* what) {
    if (result < 0) {
        fmt::print(stderr, "{}: {}\n", what, uext4_strerror());
        std::exit(2);
    }
    return result;
}

class LibrarySide final : public Side {
public:
    LibrarySide(const std::string& image, const std::string& options) {
        needed(uext4_mount(image.c_str(), options.c_str(), &fs_), "mount");
        for (unsigned file = 0; file < 2; ++file)
            for (Way way : ways)
                needed(uext4_open(fs_, fmt::format("/f{}", file).c_str(), flags_of(way) | O_CREAT, 0644,
                                  &open_[{file, way}]),
                       "open");
    }
    ~LibrarySide() override {
        for (auto [key, file] : open_) needed(uext4_close(file), "close");
        needed(uext4_umount(fs_), "umount");
    }
    ssize_t pread(unsigned file, Way way, void* into, std::size_t length, off_t at) override {
        return uext4_pread(of(file, way), into, length, at);
    }
    ssize_t pwrite(unsigned file, Way way, const void* from, std::size_t length, off_t at) override {
        return uext4_pwrite(of(file, way), from, length, at);
    }
    ssize_t preadv(unsigned file, Way way, const iovec* parts, int count, off_t at) override {
        return uext4_preadv(of(file, way), parts, count, at);
    }
    ssize_t pwritev(unsigned file, Way way, const iovec* parts, int count, off_t at) override {
        return uext4_pwritev(of(file, way), parts, count, at);
    }
    int truncate(unsigned file, off_t size) override { return uext4_ftruncate(of(file), size); }
    int fallocate(unsigned file, int mode, off_t at, off_t length) override {
        return uext4_fallocate(of(file), mode, at, length);
    }
    int sync(unsigned file, bool data_only) override {
        return data_only ? uext4_fdatasync(of(file)) : uext4_fsync(of(file));
    }
    off_t seek(unsigned file, off_t at, int whence) override { return uext4_lseek(of(file), at, whence); }
    ssize_t copy(unsigned from, off_t at, unsigned to, off_t to_at, std::size_t length) override {
        return uext4_copy_file_range(of(from), at, of(to), to_at, length);
    }
    int set_xattr(unsigned file, const char* name, const void* value, std::size_t size) override {
        return uext4_fsetxattr(of(file), name, value, size, 0);
    }
    int map(unsigned file, off_t at, std::size_t length, int protection, int flags, void** address) override {
        return uext4_map(of(file), at, length, protection, flags, address);
    }
    int unmap(void* address, std::size_t length) override { return uext4_unmap(address, length); }
    int msync(void* address, std::size_t length, int flags) override { return uext4_msync(address, length, flags); }
    bool is_mount() const override { return false; }

private:
    uext4_file* of(unsigned file, Way way = Way::plain) const { return open_.at({file, way}); }
    uext4_fs* fs_ = nullptr;
    std::map<std::pair<unsigned, Way>, uext4_file*> open_;
};

}  // namespace

std::unique_ptr<Side> open_library(const std::string& image, const std::string& options) {
    return std::make_unique<LibrarySide>(image, options);
}

}  // namespace uext4::exercise

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

class Mounted {
public:
    Mounted(const std::string& image, const std::string& options) {
        needed(uext4_mount(image.c_str(), options.c_str(), &fs), "mount");
    }
    ~Mounted() { needed(uext4_umount(fs), "umount"); }
    uext4_fs* fs = nullptr;
};

class LibrarySide final : public Side {
public:
    LibrarySide(std::shared_ptr<Mounted> mounted, unsigned thread) : mounted_(std::move(mounted)), fs_(mounted_->fs) {
        for (unsigned file = 0; file < 2; ++file)
            for (Way way : ways)
                needed(uext4_open(fs_, fmt::format("/f{}", 2 * thread + file).c_str(), flags_of(way) | O_CREAT, 0644,
                                  &open_[{file, way}]),
                       "open");
    }
    ~LibrarySide() override {
        for (auto [key, file] : open_) needed(uext4_close(file), "close");
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
    int get_flags(unsigned file, unsigned& flags) override { return uext4_fgetflags(of(file), &flags); }
    int set_flags(unsigned file, unsigned flags) override { return uext4_fsetflags(of(file), flags); }
    int sync_all() override { return uext4_syncfs(fs_); }
    int freeze() override { return uext4_freeze(fs_); }
    int thaw() override { return uext4_thaw(fs_); }
    bool is_mount() const override { return false; }

private:
    uext4_file* of(unsigned file, Way way = Way::plain) const { return open_.at({file, way}); }
    std::shared_ptr<Mounted> mounted_;
    uext4_fs* fs_;
    std::map<std::pair<unsigned, Way>, uext4_file*> open_;
};

}  // namespace

std::vector<std::unique_ptr<Side>> open_library(const std::string& image, const std::string& options,
                                                unsigned threads) {
    auto mounted = std::make_shared<Mounted>(image, options);
    std::vector<std::unique_ptr<Side>> sides;
    for (unsigned thread = 0; thread < threads; ++thread)
        sides.push_back(std::make_unique<LibrarySide>(mounted, thread));
    return sides;
}

}  // namespace uext4::exercise

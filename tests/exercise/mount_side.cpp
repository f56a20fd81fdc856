#include "frontends/fuse/ioctls.h"
#include "tests/exercise/side.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>

namespace uext4::exercise {

namespace {

template <typename T>
T answer(T result) {
    return result == T{-1} ? static_cast<T>(-errno) : result;
}

class MountSide final : public Side {
public:
    MountSide(const std::string& directory, unsigned thread)
        : root_(needed(directory, ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC))) {
        for (unsigned file = 0; file < 2; ++file)
            for (Way way : ways) {
                const std::string path = fmt::format("{}/f{}", directory, 2 * thread + file);
                open_[{file, way}] = needed(path, ::open(path.c_str(), flags_of(way) | O_CREAT | O_CLOEXEC, 0644));
            }
    }
    ~MountSide() override {
        for (auto [key, fd] : open_) ::close(fd);
        ::close(root_);
    }
    ssize_t pread(unsigned file, Way way, void* into, std::size_t length, off_t at) override {
        return answer(::pread(fd(file, way), into, length, at));
    }
    ssize_t pwrite(unsigned file, Way way, const void* from, std::size_t length, off_t at) override {
        return answer(::pwrite(fd(file, way), from, length, at));
    }
    ssize_t preadv(unsigned file, Way way, const iovec* parts, int count, off_t at) override {
        return answer(::preadv(fd(file, way), parts, count, at));
    }
    ssize_t pwritev(unsigned file, Way way, const iovec* parts, int count, off_t at) override {
        return answer(::pwritev(fd(file, way), parts, count, at));
    }
    int truncate(unsigned file, off_t size) override { return answer(::ftruncate(fd(file), size)); }
    int fallocate(unsigned file, int mode, off_t at, off_t length) override {
        return answer(::fallocate(fd(file), mode, at, length));
    }
    int sync(unsigned file, bool data_only) override {
        return answer(data_only ? ::fdatasync(fd(file)) : ::fsync(fd(file)));
    }
    off_t seek(unsigned file, off_t at, int whence) override { return answer(::lseek(fd(file), at, whence)); }
    ssize_t copy(unsigned from, off_t at, unsigned to, off_t to_at, std::size_t length) override {
        return answer(::copy_file_range(fd(from), &at, fd(to), &to_at, length, 0));
    }
    int set_xattr(unsigned file, const char* name, const void* value, std::size_t size) override {
        return answer(::fsetxattr(fd(file), name, value, size, 0));
    }
    int map(unsigned file, off_t at, std::size_t length, int protection, int flags, void** address) override {
        *address = ::mmap(nullptr, length, protection, flags, fd(file), at);
        return *address == MAP_FAILED ? -errno : 0;
    }
    int unmap(void* address, std::size_t length) override { return answer(::munmap(address, length)); }
    int msync(void* address, std::size_t length, int flags) override { return answer(::msync(address, length, flags)); }
    int get_flags(unsigned file, unsigned& flags) override {
        return answer(::ioctl(fd(file), FS_IOC_GETFLAGS, &flags));
    }
    int set_flags(unsigned file, unsigned flags) override { return answer(::ioctl(fd(file), FS_IOC_SETFLAGS, &flags)); }
    // syncfs(2) writes back what the kernel holds, but does not reach the server; the fsync does.
    int sync_all() override { return answer(::syncfs(root_) == 0 ? ::fsync(root_) : -1); }
    // What the kernel holds has to be there before.
    int freeze() override {
        if (::syncfs(root_) != 0) return -errno;
        return answer(::ioctl(root_, UEXT4_IOC_FREEZE));
    }
    int thaw() override { return answer(::ioctl(root_, UEXT4_IOC_THAW)); }
    bool is_mount() const override { return true; }

private:
    static int needed(const std::string& path, int fd) {
        if (fd >= 0) return fd;
        fmt::print(stderr, "{}: {}\n", path, ::strerror(errno));
        std::exit(2);
    }
    int fd(unsigned file, Way way = Way::plain) const { return open_.at({file, way}); }
    int root_;
    std::map<std::pair<unsigned, Way>, int> open_;
};

}  // namespace

int flags_of(Way way) {
    switch (way) {
        case Way::plain: return O_RDWR;
        case Way::direct: return O_RDWR | O_DIRECT;
        case Way::synchronous: return O_RDWR | O_SYNC;
        case Way::append: return O_RDWR | O_APPEND;
    }
    return O_RDWR;
}

std::vector<std::unique_ptr<Side>> open_mount(const std::string& directory, unsigned threads) {
    std::vector<std::unique_ptr<Side>> sides;
    for (unsigned thread = 0; thread < threads; ++thread)
        sides.push_back(std::make_unique<MountSide>(directory, thread));
    return sides;
}

}  // namespace uext4::exercise

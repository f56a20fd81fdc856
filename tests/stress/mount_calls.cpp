#include "tests/stress/calls.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

namespace uext4::stress {

namespace {

template <typename T>
T answer(T result) {
    return result == T{-1} ? static_cast<T>(-errno) : result;
}

class MountCalls final : public Calls {
public:
    explicit MountCalls(std::string directory) : root_(std::move(directory)) {}
    bool is_mount() const override { return true; }

    int open(const std::string& path, int flags, mode_t mode, File& file) override {
        file = answer(::open(at(path).c_str(), flags | O_CLOEXEC, mode));
        return file < 0 ? static_cast<int>(file) : 0;
    }
    int unnamed(const std::string& directory, mode_t mode, File& file) override {
        return open(directory, O_TMPFILE | O_RDWR, mode, file);
    }
    int name(File file, const std::string& path) override {
        const std::string through = "/proc/self/fd/" + std::to_string(file);
        return answer(::linkat(AT_FDCWD, through.c_str(), AT_FDCWD, at(path).c_str(), AT_SYMLINK_FOLLOW));
    }
    void close(File file) override { ::close(fd(file)); }
    ssize_t pread(File file, void* into, std::size_t length, off_t offset) override {
        return answer(::pread(fd(file), into, length, offset));
    }
    ssize_t pwrite(File file, const void* from, std::size_t length, off_t offset) override {
        return answer(::pwrite(fd(file), from, length, offset));
    }
    int truncate(File file, off_t size) override { return answer(::ftruncate(fd(file), size)); }
    int fsync(File file) override { return answer(::fsync(fd(file))); }
    int stat(File file, struct stat& out) override { return answer(::fstat(fd(file), &out)); }

    int stat(const std::string& path, struct stat& out) override { return answer(::lstat(at(path).c_str(), &out)); }
    int mkdir(const std::string& path, mode_t mode) override { return answer(::mkdir(at(path).c_str(), mode)); }
    int rmdir(const std::string& path) override { return answer(::rmdir(at(path).c_str())); }
    int unlink(const std::string& path) override { return answer(::unlink(at(path).c_str())); }
    int rename(const std::string& from, const std::string& to, unsigned flags) override {
        return answer(::renameat2(AT_FDCWD, at(from).c_str(), AT_FDCWD, at(to).c_str(), flags));
    }
    // The kernel counts links by itself and may count a removal twice (docs/MOUNT.md); link(2) of what it takes to have
    // none is ENOENT. A stat that must ask the server corrects the count.
    int link(const std::string& target, const std::string& path) override {
        struct statx status;
        ::statx(AT_FDCWD, at(target).c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_NLINK, &status);
        return answer(::link(at(target).c_str(), at(path).c_str()));
    }
    int symlink(const std::string& target, const std::string& path) override {
        return answer(::symlink(target.c_str(), at(path).c_str()));
    }
    int readlink(const std::string& path, std::string& target) override {
        char buffer[PATH_MAX];
        const ssize_t n = answer(::readlink(at(path).c_str(), buffer, sizeof buffer));
        if (n < 0) return static_cast<int>(n);
        target.assign(buffer, static_cast<std::size_t>(n));
        return 0;
    }
    int mknod(const std::string& path, mode_t mode, dev_t device) override {
        return answer(::mknod(at(path).c_str(), mode, device));
    }
    int chmod(const std::string& path, mode_t mode) override { return answer(::chmod(at(path).c_str(), mode)); }
    int set_xattr(const std::string& path, const std::string& key, std::string_view value, int flags) override {
        return answer(::lsetxattr(at(path).c_str(), key.c_str(), value.data(), value.size(), flags));
    }
    int get_xattr(const std::string& path, const std::string& key, std::string& value) override {
        value.resize(4096);
        const ssize_t n = answer(::lgetxattr(at(path).c_str(), key.c_str(), value.data(), value.size()));
        value.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
        return n < 0 ? static_cast<int>(n) : 0;
    }
    int remove_xattr(const std::string& path, const std::string& key) override {
        return answer(::lremovexattr(at(path).c_str(), key.c_str()));
    }
    Listing list(const std::string& path, std::uint64_t again) override {
        Listing found;
        DIR* directory = ::opendir(at(path).c_str());
        if (directory == nullptr) {
            found.result = -errno;
            return found;
        }
        found.result = read_on(directory, found.entries);
        if (found.result == 0 && !found.entries.empty()) {
            found.from = again % found.entries.size();
            ::seekdir(directory, found.entries[found.from].next);
            found.result = read_on(directory, found.again);
        }
        ::closedir(directory);
        return found;
    }

private:
    static int fd(File file) { return static_cast<int>(file); }
    std::string at(const std::string& path) const { return root_ + "/" + path; }
    static int read_on(DIR* directory, std::vector<Entry>& into) {
        for (;;) {
            errno = 0;
            const dirent* entry = ::readdir(directory);
            if (entry == nullptr) return -errno;
            if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
            into.push_back({entry->d_name, entry->d_ino, entry->d_type, ::telldir(directory)});
        }
    }
    std::string root_;
};

}  // namespace

std::unique_ptr<Calls> mount_calls(const std::string& directory) { return std::make_unique<MountCalls>(directory); }

}  // namespace uext4::stress

#include "tests/stress/calls.h"
#include "uext4/uext4.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

namespace uext4::stress {

namespace {

class LibraryCalls final : public Calls {
public:
    LibraryCalls(const std::string& image, const std::string& options) {
        if (uext4_mount(image.c_str(), options.c_str(), &fs_) < 0) die("mount");
    }
    ~LibraryCalls() override {
        if (uext4_umount(fs_) < 0) die("umount");
    }
    bool is_mount() const override { return false; }

    int open(const std::string& path, int flags, mode_t mode, File& file) override {
        uext4_file* opened = nullptr;
        const int result = uext4_open(fs_, at(path).c_str(), flags, mode, &opened);
        file = reinterpret_cast<File>(opened);
        return result;
    }
    int unnamed(const std::string& directory, mode_t mode, File& file) override {
        return open(directory, O_TMPFILE | O_RDWR, mode, file);
    }
    int name(File file, const std::string& path) override { return uext4_flink(of(file), at(path).c_str()); }
    void close(File file) override {
        if (uext4_close(of(file)) < 0) die("close");
    }
    ssize_t pread(File file, void* into, std::size_t length, off_t offset) override {
        return uext4_pread(of(file), into, length, offset);
    }
    ssize_t pwrite(File file, const void* from, std::size_t length, off_t offset) override {
        return uext4_pwrite(of(file), from, length, offset);
    }
    int truncate(File file, off_t size) override { return uext4_ftruncate(of(file), size); }
    int fsync(File file) override { return uext4_fsync(of(file)); }
    int stat(File file, struct stat& out) override { return uext4_fstat(of(file), &out); }

    int stat(const std::string& path, struct stat& out) override { return uext4_lstat(fs_, at(path).c_str(), &out); }
    int mkdir(const std::string& path, mode_t mode) override { return uext4_mkdir(fs_, at(path).c_str(), mode); }
    int rmdir(const std::string& path) override { return uext4_rmdir(fs_, at(path).c_str()); }
    int unlink(const std::string& path) override { return uext4_unlink(fs_, at(path).c_str()); }
    int rename(const std::string& from, const std::string& to, unsigned flags) override {
        return uext4_rename(fs_, at(from).c_str(), at(to).c_str(), flags);
    }
    int link(const std::string& target, const std::string& path) override {
        return uext4_link(fs_, at(target).c_str(), at(path).c_str());
    }
    int symlink(const std::string& target, const std::string& path) override {
        return uext4_symlink(fs_, target.c_str(), at(path).c_str());
    }
    int readlink(const std::string& path, std::string& target) override {
        char buffer[PATH_MAX];
        const ssize_t n = uext4_readlink(fs_, at(path).c_str(), buffer, sizeof buffer);
        if (n < 0) return static_cast<int>(n);
        target.assign(buffer, static_cast<std::size_t>(n));
        return 0;
    }
    int mknod(const std::string& path, mode_t mode, dev_t device) override {
        return uext4_mknod(fs_, at(path).c_str(), mode, device);
    }
    int chmod(const std::string& path, mode_t mode) override { return uext4_chmod(fs_, at(path).c_str(), mode); }
    int set_xattr(const std::string& path, const std::string& key, std::string_view value, int flags) override {
        return uext4_lsetxattr(fs_, at(path).c_str(), key.c_str(), value.data(), value.size(), flags);
    }
    int get_xattr(const std::string& path, const std::string& key, std::string& value) override {
        value.resize(4096);
        const ssize_t n = uext4_lgetxattr(fs_, at(path).c_str(), key.c_str(), value.data(), value.size());
        value.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
        return n < 0 ? static_cast<int>(n) : 0;
    }
    int remove_xattr(const std::string& path, const std::string& key) override {
        return uext4_lremovexattr(fs_, at(path).c_str(), key.c_str());
    }
    Listing list(const std::string& path, std::uint64_t again) override {
        Listing found;
        uext4_dir* directory = nullptr;
        found.result = uext4_opendir(fs_, at(path).c_str(), &directory);
        if (found.result < 0) return found;
        found.result = read_on(directory, found.entries);
        if (found.result == 0 && !found.entries.empty()) {
            found.from = again % found.entries.size();
            uext4_seekdir(directory, found.entries[found.from].next);
            found.result = read_on(directory, found.again);
        }
        uext4_closedir(directory);
        return found;
    }

private:
    [[noreturn]] static void die(const char* what) {
        fmt::print(stderr, "{}: {}\n", what, uext4_strerror());
        std::exit(2);
    }
    static uext4_file* of(File file) { return reinterpret_cast<uext4_file*>(file); }
    static std::string at(const std::string& path) { return "/" + path; }
    static int read_on(uext4_dir* directory, std::vector<Entry>& into) {
        for (;;) {
            errno = 0;
            const dirent* entry = uext4_readdir(directory);
            if (entry == nullptr) return -errno;
            if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
            into.push_back({entry->d_name, entry->d_ino, entry->d_type, uext4_telldir(directory)});
        }
    }
    uext4_fs* fs_ = nullptr;
};

}  // namespace

std::unique_ptr<Calls> library_calls(const std::string& image, const std::string& options) {
    return std::make_unique<LibraryCalls>(image, options);
}

}  // namespace uext4::stress

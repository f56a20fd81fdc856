#include "base/descriptor.h"
#include "cli/copy_source.h"
#include "cli/interrupt.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace uext4::cli {

namespace {

class HostContents final : public SourceContents {
public:
    HostContents(std::shared_ptr<const Descriptor> file, std::string path, off_t size)
        : file_(std::move(file)), path_(std::move(path)), size_(size) {}

    std::optional<Range> data_from(std::uint64_t at) override {
        auto data = static_cast<off_t>(at);
        if (data >= size_) return {};
        // Most files have no hole: one call tells.
        off_t hole = ::lseek(file_->fd(), data, SEEK_HOLE);
        if (hole == data) {
            data = ::lseek(file_->fd(), data, SEEK_DATA);
            if (data >= 0) hole = ::lseek(file_->fd(), data, SEEK_HOLE);
        }
        if ((data < 0 || hole < 0) && errno == ENXIO) return {};
        if (data < 0) data = static_cast<off_t>(at);
        if (hole < 0) hole = size_;
        return Range{static_cast<std::uint64_t>(data), static_cast<std::uint64_t>(hole)};
    }

    std::size_t read(std::uint64_t at, Bytes out) override {
        return got(::pread(file_->fd(), out.data(), out.size(), static_cast<off_t>(at)));
    }

    std::size_t next(Bytes out) override {
        wait_for_input(file_->fd());
        return got(::read(file_->fd(), out.data(), out.size()));
    }

private:
    std::size_t got(ssize_t n) const {
        if (n < 0) fail_with(exit_failure, path_ + ": " + std::strerror(errno));
        return static_cast<std::size_t>(n);
    }

    std::shared_ptr<const Descriptor> file_;
    std::string path_;
    off_t size_;
};

class HostSource final : public CopySource {
public:
    // What is named, or lies in a folder, which lives longer.
    HostSource(std::string path, bool follow, const HostSource* above = nullptr)
        : path_(std::move(path)), above_(above), follows_(follow), depth_(above ? above->depth_ + 1 : 0) {
        if (above && above->folder_) {
            folder_above_ = ::dirfd(above->folder_.get());
            name_at_ = path_.rfind('/') + 1;
        }
        if (::fstatat(folder_above_, name(), &st_, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
            fail_with(exit_negative, path_ + ": " + std::strerror(errno));
        for (; follow && above; above = above->above_)
            if (above->st_.st_dev == st_.st_dev && above->st_.st_ino == st_.st_ino)
                fail_with(exit_negative, path_ + ": is a link to a directory that it lies in");
    }

    std::string at() const override { return path_; }
    const Session* image() const override { return nullptr; }

    std::unique_ptr<SourceContents> open() override {
        // What was a file when it was looked at may be a link now.
        const int links = depth_ > 0 && !follows_ ? O_NOFOLLOW : 0;
        file_ = std::make_shared<const Descriptor>(::openat(folder_above_, name(), O_RDONLY | O_CLOEXEC | links));
        if (!file_->is_open()) fail_here();
        return std::make_unique<HostContents>(file_, path_, st_.st_size);
    }

    std::string link_target() const override {
        std::string target(static_cast<std::size_t>(st_.st_size) + 4096, '\0');
        const ssize_t n = ::readlinkat(folder_above_, name(), target.data(), target.size());
        if (n < 0) fail_here();
        target.resize(static_cast<std::size_t>(n));
        return target;
    }

    void list(Names& names) override {
        Descriptor fd(
            ::openat(folder_above_, name(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follows_ ? 0 : O_NOFOLLOW)));
        if (!fd.is_open()) fail_here();
        folder_.reset(::fdopendir(fd.fd()));
        if (!folder_) fail_here();
        (void)fd.release();
        errno = 0;
        while (const dirent* entry = ::readdir(folder_.get()))
            if (const std::string_view name = entry->d_name; name != "." && name != "..") names.emplace_back(name, 0);
        const int error = errno;
        if (depth_ > deepest_open) folder_.reset();
        errno = error;
        if (error != 0) fail_here();
    }

    std::unique_ptr<CopySource> child(const Names::value_type& listed, bool follow) override {
        return std::make_unique<HostSource>(below(path_, listed.first), follow, this);
    }

    std::vector<std::string> xattr_names() const override {
        const int fd = descriptor();
        const auto ask_for = [&](char* list, std::size_t size) {
            return fd >= 0 ? ::flistxattr(fd, list, size) : ::llistxattr(path_.c_str(), list, size);
        };
        const ssize_t size = ask_for(nullptr, 0);
        std::string all(static_cast<std::size_t>(std::max<ssize_t>(size, 0)), '\0');
        const ssize_t got = all.empty() ? 0 : ask_for(all.data(), all.size());
        std::vector<std::string> names;
        for (std::size_t at = 0; got > 0 && at < static_cast<std::size_t>(got); at += names.back().size() + 1)
            names.emplace_back(all.c_str() + at);
        return names;
    }

    std::optional<std::vector<std::byte>> xattr(const std::string& name) const override {
        const int fd = descriptor();
        const auto ask_for = [&](std::byte* value, std::size_t size) {
            return fd >= 0 ? ::fgetxattr(fd, name.c_str(), value, size)
                           : ::lgetxattr(path_.c_str(), name.c_str(), value, size);
        };
        const ssize_t n = ask_for(nullptr, 0);
        if (n < 0) return {};
        std::vector<std::byte> value(static_cast<std::size_t>(n));
        if (ask_for(value.data(), value.size()) != n) return {};
        return value;
    }

private:
    // A tree may be deeper than a process may have descriptors.
    static constexpr unsigned deepest_open = 256;

    [[noreturn]] void fail_here() const { fail_with(exit_failure, path_ + ": " + std::strerror(errno)); }
    // In the folder above.
    const char* name() const { return path_.c_str() + name_at_; }
    int descriptor() const { return file_ ? file_->fd() : folder_ ? ::dirfd(folder_.get()) : -1; }

    std::string path_;
    const HostSource* above_;  // the directory that it was found in, which lives longer; null if it was named
    bool follows_;             // a link that has its name
    unsigned depth_;           // below what is named
    int folder_above_ = AT_FDCWD;
    std::size_t name_at_ = 0;
    std::shared_ptr<const Descriptor> file_;                                      // once it is open
    std::unique_ptr<DIR, decltype([](DIR* open) { ::closedir(open); })> folder_;  // once it was listed
};

class StandardInput final : public CopySource {
public:
    StandardInput(const struct stat& st, int fd) : fd_(fd) { st_ = st; }
    std::string at() const override { return "standard input"; }
    const Session* image() const override { return nullptr; }
    std::unique_ptr<SourceContents> open() override {
        return std::make_unique<HostContents>(std::make_shared<const Descriptor>(fd_), at(), 0);
    }
    std::string link_target() const override { return {}; }
    void list(Names&) override {}
    std::unique_ptr<CopySource> child(const Names::value_type&, bool) override { return nullptr; }
    std::vector<std::string> xattr_names() const override { return {}; }
    std::optional<std::vector<std::byte>> xattr(const std::string&) const override { return {}; }

private:
    int fd_;
};

}  // namespace

StandardInputTree::StandardInputTree() {
    if (::fstat(STDIN_FILENO, &st_) != 0)
        fail_with(exit_failure, fmt::format("standard input: {}", std::strerror(errno)));
}

std::unique_ptr<CopySource> StandardInputTree::find(const std::string&, bool) {
    // Of what is behind it the contents alone, from where it stands.
    struct stat as_file = st_;
    as_file.st_mode = S_IFREG | 0644;
    as_file.st_nlink = 1;
    as_file.st_size = 0;
    return std::make_unique<StandardInput>(as_file, STDIN_FILENO);
}

std::unique_ptr<CopySource> HostTree::find(const std::string& path, bool follow) {
    return std::make_unique<HostSource>(path, follow);
}

}  // namespace uext4::cli

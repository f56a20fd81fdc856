#include "base/descriptor.h"
#include "cli/copy_source.h"
#include "cli/interrupt.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

namespace uext4::cli {

namespace {

class HostContents final : public SourceContents {
public:
    HostContents(Descriptor file, std::string path, off_t size)
        : file_(std::move(file)), path_(std::move(path)), size_(size) {}

    std::optional<Range> data_from(std::uint64_t at) override {
        const auto start = static_cast<off_t>(at);
        if (start >= size_) return {};
        off_t data = ::lseek(file_.fd(), start, SEEK_DATA);
        if (data < 0 && errno == ENXIO) return {};
        if (data < 0) data = start;
        off_t hole = ::lseek(file_.fd(), data, SEEK_HOLE);
        if (hole < 0) hole = size_;
        return Range{static_cast<std::uint64_t>(data), static_cast<std::uint64_t>(hole)};
    }

    std::size_t read(std::uint64_t at, Bytes out) override {
        return got(::pread(file_.fd(), out.data(), out.size(), static_cast<off_t>(at)));
    }

    std::size_t next(Bytes out) override {
        wait_for_input(file_.fd());
        return got(::read(file_.fd(), out.data(), out.size()));
    }

private:
    std::size_t got(ssize_t n) const {
        if (n < 0) give_up(impossible, path_ + ": " + std::strerror(errno));
        return static_cast<std::size_t>(n);
    }

    Descriptor file_;
    std::string path_;
    off_t size_;
};

class HostSource final : public CopySource {
public:
    HostSource(std::string path, bool follow, const HostSource* above = nullptr)
        : path_(std::move(path)), above_(above) {
        if ((follow ? ::stat(path_.c_str(), &st_) : ::lstat(path_.c_str(), &st_)) != 0)
            give_up(negative, path_ + ": " + std::strerror(errno));
        for (; follow && above; above = above->above_)
            if (above->st_.st_dev == st_.st_dev && above->st_.st_ino == st_.st_ino)
                give_up(negative, path_ + ": is a link to a directory that it lies in");
    }

    std::string at() const override { return path_; }
    const Session* image() const override { return nullptr; }

    std::unique_ptr<SourceContents> open() const override {
        Descriptor file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
        if (file.fd() < 0) give_up(impossible, path_ + ": " + std::strerror(errno));
        return std::make_unique<HostContents>(std::move(file), path_, st_.st_size);
    }

    std::string link_target() const override {
        std::string target(static_cast<std::size_t>(st_.st_size) + 4096, '\0');
        const ssize_t n = ::readlink(path_.c_str(), target.data(), target.size());
        if (n < 0) give_up(impossible, path_ + ": " + std::strerror(errno));
        target.resize(static_cast<std::size_t>(n));
        return target;
    }

    void list(Names& names) override {
        std::error_code error;
        using Walk = std::filesystem::directory_iterator;
        for (Walk at(path_, error); !error && at != Walk(); at.increment(error))
            names.emplace_back(at->path().filename(), 0);
        if (error) give_up(impossible, path_ + ": " + error.message());
    }

    std::unique_ptr<CopySource> child(const Names::value_type& listed, bool follow) override {
        return std::make_unique<HostSource>(below(path_, listed.first), follow, this);
    }

    std::vector<std::string> xattr_names() const override {
        const ssize_t size = ::llistxattr(path_.c_str(), nullptr, 0);
        std::string all(static_cast<std::size_t>(std::max<ssize_t>(size, 0)), '\0');
        const ssize_t got = all.empty() ? 0 : ::llistxattr(path_.c_str(), all.data(), all.size());
        std::vector<std::string> names;
        for (std::size_t at = 0; got > 0 && at < static_cast<std::size_t>(got); at += names.back().size() + 1)
            names.emplace_back(all.c_str() + at);
        return names;
    }

    std::optional<std::vector<std::byte>> xattr(const std::string& name) const override {
        const ssize_t n = ::lgetxattr(path_.c_str(), name.c_str(), nullptr, 0);
        if (n < 0) return {};
        std::vector<std::byte> value(static_cast<std::size_t>(n));
        if (::lgetxattr(path_.c_str(), name.c_str(), value.data(), value.size()) != n) return {};
        return value;
    }

private:
    std::string path_;
    const HostSource* above_;  // the directory that it was found in, which lives longer; null if it was named
};

class StandardInput final : public CopySource {
public:
    StandardInput(const struct stat& st, int fd) : fd_(fd) { st_ = st; }
    std::string at() const override { return "standard input"; }
    const Session* image() const override { return nullptr; }
    std::unique_ptr<SourceContents> open() const override {
        return std::make_unique<HostContents>(Descriptor(fd_), at(), 0);
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
    if (::fstat(STDIN_FILENO, &st_) != 0) give_up(impossible, fmt::format("standard input: {}", std::strerror(errno)));
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

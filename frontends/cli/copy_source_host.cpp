#include "cli/host_ahead.h"
#include "cli/host_source.h"
#include "cli/interrupt.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace uext4::cli {

namespace {

class HostContents final : public SourceContents {
public:
    // `first`: what next() begins with, which was read before.
    HostContents(std::shared_ptr<const Descriptor> file, std::string path, off_t size,
                 std::vector<std::byte> first = {})
        : file_(std::move(file)), path_(std::move(path)), size_(size), first_(std::move(first)) {}

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
        if (!first_.empty()) {
            const std::size_t length = std::min(first_.size(), out.size());
            std::copy_n(first_.begin(), length, out.begin());
            first_.erase(first_.begin(), first_.begin() + static_cast<std::ptrdiff_t>(length));
            return length;
        }
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
    std::vector<std::byte> first_;
};

// A small file, read to its end.
class ReadContents final : public SourceContents {
public:
    explicit ReadContents(ConstBytes all) : all_(all) {}
    std::optional<ConstBytes> in_memory() const override { return all_; }
    std::optional<Range> data_from(std::uint64_t at) override {
        return at < all_.size() ? std::optional(Range{at, all_.size()}) : std::nullopt;
    }
    std::size_t read(std::uint64_t at, Bytes out) override {
        const ConstBytes rest = all_.subspan(std::min<std::uint64_t>(at, all_.size()));
        const std::size_t length = std::min(rest.size(), out.size());
        std::copy_n(rest.begin(), length, out.begin());
        return length;
    }
    std::size_t next(Bytes) override { return 0; }

private:
    ConstBytes all_;
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
    CopyChild child(const Names::value_type&, bool) override { return nullptr; }
    std::vector<std::string> xattr_names() const override { return {}; }
    std::optional<std::vector<std::byte>> xattr(const std::string&) const override { return {}; }

private:
    int fd_;
};

// A tree may be deeper than a process may have descriptors.
constexpr unsigned deepest_open = 256;
// The thread reads files of up to this size ahead of the copy. For larger ones the calls themselves take little of the
// time.
constexpr off_t largest_small_file = 32 << 10;

}  // namespace

HostSource::HostSource(std::string path, bool follow, std::shared_ptr<const HostFolder> above)
    : path_(std::move(path)), above_(std::move(above)), follows_(follow) {
    if (above_ && above_->open) name_at_ = path_.rfind('/') + 1;
    if (::fstatat(folder_above(), name(), &st_, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
        fail_with(exit_negative, path_ + ": " + std::strerror(errno));
    for (const HostFolder* folder = above_.get(); follow && folder; folder = folder->above.get())
        if (folder->device == st_.st_dev && folder->inode == st_.st_ino)
            fail_with(exit_negative, path_ + ": is a link to a directory that it lies in");
}

HostSource::~HostSource() = default;

void HostSource::fail_here() const { fail_with(exit_failure, path_ + ": " + std::strerror(errno)); }

// A link may have replaced the file since fstatat(2).
Descriptor HostSource::open_file(int flags) const {
    const int links = above_ && !follows_ ? O_NOFOLLOW : 0;
    return Descriptor(::openat(folder_above(), name(), O_RDONLY | O_CLOEXEC | links | flags));
}

std::unique_ptr<SourceContents> HostSource::open() {
    if (contents_) return std::make_unique<ReadContents>(*contents_);
    if (!file_) {
        Descriptor opened = open_file(0);
        if (!opened.is_open()) fail_here();
        file_ = std::make_shared<const Descriptor>(std::move(opened));
    }
    return std::make_unique<HostContents>(file_, path_, st_.st_size, std::move(first_));
}

std::optional<std::string> HostSource::read_link() const {
    std::string target(static_cast<std::size_t>(st_.st_size) + 4096, '\0');
    const ssize_t n = ::readlinkat(folder_above(), name(), target.data(), target.size());
    if (n < 0) return {};
    target.resize(static_cast<std::size_t>(n));
    return target;
}

std::string HostSource::link_target() const {
    const std::optional<std::string> target = target_ ? target_ : read_link();
    if (!target) fail_here();
    return *target;
}

HostSource::Listed HostSource::read_folder() const {
    Descriptor fd(::openat(folder_above(), name(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follows_ ? 0 : O_NOFOLLOW)));
    if (!fd.is_open()) return {nullptr, errno};
    auto folder = std::make_shared<HostFolder>();
    folder->open.reset(::fdopendir(fd.fd()));
    if (!folder->open) return {nullptr, errno};
    (void)fd.release();
    folder->path = path_;
    folder->device = st_.st_dev;
    folder->inode = st_.st_ino;
    folder->above = above_;
    folder->depth = above_ ? above_->depth + 1 : 0;
    errno = 0;
    while (const dirent* entry = ::readdir(folder->open.get()))
        if (const std::string_view name = entry->d_name; name != "." && name != "..")
            folder->names.emplace_back(name, 0);
    const int error = errno;
    if (folder->depth > deepest_open) folder->open.reset();
    return {std::move(folder), error};
}

void HostSource::list(Names& names) {
    if (!folder_) {
        Listed listed = read_folder();
        folder_ = std::move(listed.folder);
        if (folder_) names = folder_->names;
        errno = listed.error;
        if (errno != 0) fail_here();
        if (how_) read_ahead_now();
    }
    names = folder_->names;
}

void HostSource::read_ahead_now() {
    if (how_->sorted) std::ranges::sort(folder_->names);
    ahead_ = HostAhead::start(folder_, *how_);
}

CopyChild HostSource::child(const Names::value_type& listed, bool follow) {
    if (folder_ && folder_->ahead)
        if (std::unique_ptr<HostSource> prepared = folder_->ahead->take(*folder_, listed.first))
            return CopyChild(prepared.release());
    return CopyChild(new HostSource(below(path_, listed.first), follow, folder_));
}

void HostSource::release() {
    std::unique_ptr<HostSource> self(this);
    if (above_ && above_->ahead) above_->ahead->give_back(std::move(self));
}

std::vector<std::string> HostSource::names_of_attributes(int fd) const {
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

std::optional<std::vector<std::byte>> HostSource::attribute(int fd, const std::string& name) const {
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

std::vector<std::string> HostSource::xattr_names() const {
    if (!attributes_) return names_of_attributes(descriptor());
    std::vector<std::string> names;
    for (const Attribute& known : *attributes_) names.push_back(known.name);
    return names;
}

std::optional<std::vector<std::byte>> HostSource::xattr(const std::string& name) const {
    if (!attributes_) return attribute(descriptor(), name);
    const auto known = std::ranges::find(*attributes_, name, &Attribute::name);
    return known != attributes_->end() ? known->value : std::nullopt;
}

void HostSource::prepare(const ReadAhead& how, HostAhead& ahead) {
    if (S_ISREG(st_.st_mode)) {
        prepare_file(how);
    } else if (S_ISLNK(st_.st_mode)) {
        target_ = read_link();
        if (how.attributes) prepare_attributes(-1);
    } else if (S_ISDIR(st_.st_mode)) {
        Listed listed = read_folder();
        if (!listed.folder || listed.error != 0) return;
        folder_ = std::move(listed.folder);
        folder_->ahead = &ahead;
        if (how.sorted) std::ranges::sort(folder_->names);
    }
}

void HostSource::prepare_file(const ReadAhead& how) {
    const bool image = how.image && how.image->st_dev == st_.st_dev && how.image->st_ino == st_.st_ino;
    // Closing a descriptor of the image would release the locks that the process has on it.
    if (image || st_.st_size > largest_small_file) return;
    // A pipe may have taken the name: only the copy may wait for its other end.
    Descriptor file = open_file(O_NONBLOCK);
    if (!file.is_open()) return;
    if (st_.st_size == 0) return prepare_unsized(std::move(file), how);
    const auto size = static_cast<std::size_t>(st_.st_size);
    if (const off_t hole = ::lseek(file.fd(), 0, SEEK_HOLE); hole >= 0 && hole < st_.st_size) return;
    buffer_ = std::make_unique_for_overwrite<std::byte[]>(size);
    if (::pread(file.fd(), buffer_.get(), size, 0) != st_.st_size) return;
    contents_.emplace(buffer_.get(), size);
    bytes_held_ += size;
    if (how.attributes) prepare_attributes(file.fd());
}

// It may have contents all the same (/proc). Those may still be to come, which the copy alone waits for, and go away
// when they are read.
void HostSource::prepare_unsized(Descriptor file, const ReadAhead& how) {
    pollfd ready{file.fd(), POLLIN, 0};
    std::array<std::byte, 4096> first;
    const ssize_t n = ::poll(&ready, 1, 0) == 1 ? ::read(file.fd(), first.data(), first.size()) : -1;
    if (n == 0) {
        contents_.emplace();
        if (how.attributes) prepare_attributes(file.fd());
    } else if (::fcntl(file.fd(), F_SETFL, 0) == 0) {
        first_.assign(first.begin(), first.begin() + std::max<ssize_t>(n, 0));
        file_ = std::make_shared<const Descriptor>(std::move(file));
    }
}

void HostSource::prepare_attributes(int fd) {
    attributes_.emplace();
    for (std::string& name : names_of_attributes(fd)) {
        std::optional<std::vector<std::byte>> value = attribute(fd, name);
        if (value) bytes_held_ += value->size();
        attributes_->push_back({std::move(name), std::move(value)});
    }
}

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

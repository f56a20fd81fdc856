// Copies between the host and an image, with everything that ext4 can hold.
#pragma once

#include "cli/progress.h"
#include "cli/session.h"

#include <functional>
#include <map>

namespace uext4::cli {

struct CopyOptions {
    bool recursive = false, preserve = false, progress = false;
    std::optional<std::pair<std::uint32_t, std::uint32_t>> owner;
    std::optional<std::uint16_t> mode;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> map_owner;
};

// How much is copied at once.
inline constexpr std::size_t copy_chunk = std::size_t{1} << 20;

format::Timestamp time_of(const timespec& t);
// The name that a path ends with.
std::string last_part(std::string path);
// "tree/.", "tree/.." and "/" have no name of their own: what is in them goes straight into the target, as with cp(1).
bool means_contents(const std::string& path);

// How a copy ends. What cannot be copied is told, and the rest goes on, as with cp(1); the exit code is the worst.
class Outcome {
public:
    // Whether it was done; else what ended it was told.
    bool attempt(Progress& progress, const std::function<void()>& part);
    void tell(Progress& progress, int code, const std::string& what);
    int code() const { return code_; }

private:
    int code_ = fine;
};

// A file of the host, open as long as this; or none.
class HostFile {
public:
    HostFile() = default;
    explicit HostFile(int fd) : fd_(fd) {}
    ~HostFile();
    HostFile(HostFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    HostFile& operator=(HostFile&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    int fd() const { return fd_; }

private:
    int fd_ = -1;
};

// From the host into an image. One of these sees all sources: links between them stay links.
class CopyIn {
public:
    CopyIn(Session& to, const CopyOptions& o, Outcome& outcome)
        : to_(to), o_(o), outcome_(outcome), progress_(o.progress) {}
    void expect(const std::string& source);
    void copy(const std::string& source, const std::string& target);

private:
    struct Source {
        struct stat st{};
        HostFile file;  // of contents: open before anything is made
    };
    // The end of the copy where it is not there. What is named is followed, unless the links themselves are copied.
    Source open(const std::string& source, bool named) const;
    void named(const std::string& source, const std::string& target);
    void entry(const std::string& source, Inode& directory, const std::string& name, unsigned depth = 0);
    void replace(const std::string& source, const InodeRef& inode);
    void merge(const std::string& source, Inode& directory);
    void inside(const std::string& source, Inode& directory, unsigned depth);
    void remove_old(Inode& directory, const std::string& name, const struct stat& st);
    struct Made {
        InodeRef inode;
        bool was_there;
    };
    Made make(const std::string& source, Inode& directory, const std::string& name, const struct stat& st);
    // Of a file or pipe or device that is open, from its beginning to its end.
    void contents(int from, const std::string& source, const InodeRef& inode, const struct stat& st);
    void attributes(const std::string& source, Inode& inode, const struct stat& st, bool was_there);
    void xattrs(const std::string& source, Inode& inode);

    Session& to_;
    const CopyOptions& o_;
    Outcome& outcome_;
    Progress progress_;
    std::map<std::pair<dev_t, ino_t>, std::uint64_t> linked_;
};

// From an image to the host. One of these sees all sources in the image.
class CopyOut {
public:
    CopyOut(Session& from, const CopyOptions& o, Outcome& outcome)
        : from_(from), o_(o), outcome_(outcome), progress_(o.progress) {}
    void expect(const std::string& source);
    // Whether it, or at least the directory that it is, was copied.
    bool copy(const std::string& source, const std::string& target);
    // Last of all: what would have been in the way of later copies.
    void finish();

private:
    void named(const std::string& source, const std::string& target);
    void expect(const InodeRef& inode, const std::string& source, unsigned depth);
    void entry(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth = 0);
    void inside(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth);
    std::vector<std::pair<std::string, std::uint64_t>> names_in(Inode& directory, const std::string& source);
    struct Target {
        HostFile file;
        bool was_there = false, is_file = false;
    };
    Target open(const std::string& target) const;
    // Whether the target is to have the file's attributes: a file that was there keeps its own, and a device as well.
    bool contents(const InodeRef& inode, const std::string& source, const std::string& target, const struct stat& st);
    void attributes(Inode& inode, const std::string& source, const std::string& target, const struct stat& st);
    mode_t mode_out(const struct stat& st) const;

    Session& from_;
    const CopyOptions& o_;
    Outcome& outcome_;
    Progress progress_;
    std::map<ino_t, std::string> linked_;
    Ancestors above_;
    struct Left {
        std::string source, target;
        struct stat st;
    };
    std::vector<Left> left_;  // directories that their owner cannot enter when they have their permissions
};

}  // namespace uext4::cli

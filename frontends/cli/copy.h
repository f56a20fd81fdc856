// Copies between the host and an image, with everything that ext4 can hold.
#pragma once

#include "cli/progress.h"
#include "cli/session.h"

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

// From the host into an image. One of these sees all sources: links between them stay links.
class CopyIn {
public:
    CopyIn(Session& to, const CopyOptions& o) : to_(to), o_(o), progress_(o.progress) {}
    void expect(const std::string& source);
    void copy(const std::string& source, const std::string& target);

private:
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
    void contents(const std::string& source, const InodeRef& inode, const struct stat& st);
    void attributes(const std::string& source, Inode& inode, const struct stat& st, bool was_there);
    void xattrs(const std::string& source, Inode& inode);

    Session& to_;
    const CopyOptions& o_;
    Progress progress_;
    std::map<std::pair<dev_t, ino_t>, std::uint64_t> linked_;
};

// From an image to the host. One of these sees all sources in the image.
class CopyOut {
public:
    CopyOut(Session& from, const CopyOptions& o) : from_(from), o_(o), progress_(o.progress) {}
    void expect(const std::string& source);
    void copy(const std::string& source, const std::string& target);
    // Last of all: what would have been in the way of later copies.
    void finish();
    // Something was left out and told.
    bool incomplete() const { return incomplete_; }

private:
    void expect(const InodeRef& inode, const std::string& source, unsigned depth);
    void entry(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth = 0);
    std::vector<std::pair<std::string, std::uint64_t>> names_in(Inode& directory, const std::string& source);
    void contents(const InodeRef& inode, const std::string& source, const std::string& target, const struct stat& st);
    void attributes(Inode& inode, const std::string& source, const std::string& target, const struct stat& st);
    mode_t mode_out(const struct stat& st) const;

    Session& from_;
    const CopyOptions& o_;
    Progress progress_;
    std::map<ino_t, std::string> linked_;
    Ancestors above_;
    struct Left {
        std::string source, target;
        struct stat st;
    };
    std::vector<Left> left_;  // directories that their owner cannot enter when they have their permissions
    bool incomplete_ = false;
};

}  // namespace uext4::cli

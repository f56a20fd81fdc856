// Copies between the host and images, with everything that ext4 can hold.
#pragma once

#include "base/descriptor.h"
#include "cli/arguments.h"
#include "cli/copy_source.h"
#include "cli/outcome.h"
#include "cli/progress.h"
#include "cli/session.h"
#include "cli/walk.h"

#include <functional>
#include <map>
#include <set>
#include <tuple>
#include <unordered_set>

namespace uext4::cli {

struct CopyOptions {
    bool recursive = false, progress = false;
    bool preserve = false;    // owners, permissions and times
    bool attributes = false;  // all other attributes as well
    bool links = false;       // hard links between what is copied
    bool force = false, no_clobber = false, update = false, verbose = false;
    FollowLinks follow = FollowLinks::named;  // of the sources
    std::optional<std::pair<std::uint32_t, std::uint32_t>> owner;
    std::optional<std::uint16_t> mode;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> map_owner;

    // What was asked for by --owner or --map-owner of something that belongs to these.
    Owner asked(const struct stat& st) const;
    // With what is kept of its owners unasked.
    Owner owner_of(const struct stat& st) const;
    bool follows_named() const { return follow != FollowLinks::none; }
    bool follows_all() const { return follow == FollowLinks::all; }
    // Whether an attribute of that name is kept: permissions include access lists.
    bool keeps(const std::string& name) const;
    // Whether something of this kind leaves what has its name already: with -n, and with -u unless it is newer.
    // `seconds`: the times of what is there have no nanoseconds.
    bool leaves(const struct stat& st, const struct stat& there, bool seconds) const;
    // Prints what is copied where, with -v.
    void print(Progress& progress, const std::string& source, const std::string& target) const;
};

// What a copy with these words (behind "cp") works with; nothing where they are no copy.
struct CopyNeeds {
    HostReach host;
    std::vector<std::string> images;
};
CopyNeeds needs_of_copy(std::vector<std::string> arguments);

format::Timestamp time_of(const timespec& t);
// The name that a path ends with.
std::string last_part(std::string path);
// "tree/.", "tree/.." and "/" have no name of their own: what is in them goes straight into the target, as with cp(1).
bool means_contents(const std::string& path);

// What there is to say of a device, fifo or socket of an image where a file is wanted.
std::string has_no_contents(const std::string& at);

// From the host or an image into an image. One of these sees all sources: links between them stay links.
class CopyIn {
public:
    CopyIn(Session& to, const CopyOptions& o, Outcome& outcome)
        : to_(to),
          o_(o),
          outcome_(outcome),
          fixed_time_(to.fs().volume().options().fs.fixed_time),
          progress_(o.progress),
          image_(status_of_image(to.image())) {}
    void expect(SourceTree& from, const std::string& source);
    void copy(SourceTree& from, const std::string& source, const std::string& target);
    // Last of all: what would have been in the way of later copies.
    void finish();

private:
    // As what it is copied. The end of the copy where it cannot be.
    struct stat copied_as(const CopySource& source) const;
    // What is read of a source before anything of the destination changes.
    struct Opened {
        std::optional<SourceReader> contents;  // of a file
        std::string target;                    // of a link
    };
    Opened open(CopySource& source, const struct stat& st) const;
    void expect(CopySource& source);
    void named(SourceTree& from, const std::string& source, const std::string& target);
    // Where something lies in the image.
    struct Spot {
        Inode& directory;
        std::string name, path;  // in the directory; for messages
        std::string at;          // with the image
    };
    Spot spot(Inode& directory, const std::string& name, const std::string& path) const;
    void entry(CopySource& source, const Spot& to);
    void replace(CopySource& source, const InodeRef& inode, const std::string& path);
    void merge(CopySource& source, Inode& directory, const std::string& path);
    void inside(CopySource& source, Inode& directory, const std::string& path);
    // Another name for what was copied before.
    void link(InodeNr number, const Spot& to);
    bool lies_here(const CopySource& source) const { return source.image() == &to_; }
    // Whether the place already has what would be copied to it.
    bool is_there(const CopySource& source, const Spot& to);
    void remove_old(const Spot& to);
    struct Made {
        InodeRef inode;
        bool was_there;
    };
    // The file that gets the contents of another, if one is there: a link's target, as with cp(1).
    std::optional<InodeRef> file_there(const Spot& to);
    bool leaves(const struct stat& st, const InodeRef& there, const std::string& at);
    bool leaves(const struct stat& st, const Spot& to);
    Made make(const CopySource& source, const Spot& to, const struct stat& st, const std::string& link_target);
    // From the beginning to the end. `at`: of the inode, in the image. `was_there`: with contents of its own.
    void contents(SourceReader& from, const InodeRef& inode, const std::string& at, bool was_there);
    void attributes(const CopySource& source, Inode& inode, const std::string& at, const struct stat& st,
                    bool was_there);
    // A time that is copied: none is later than the fixed time.
    format::Timestamp kept_time(const timespec& t) const;
    void xattrs(const CopySource& source, const std::vector<std::string>& names, Inode& inode, const std::string& at);
    void keep_flags(const CopySource& source, Inode& inode, const std::string& at);
    // The flags of `which` become those of `flags`. One that the image cannot hold is told.
    void set_flags(Inode& inode, std::uint32_t flags, std::uint32_t which, const std::string& at);

    Session& to_;
    const CopyOptions& o_;
    Outcome& outcome_;
    const std::optional<std::int64_t> fixed_time_;  // FsOptions::fixed_time of the image
    Progress progress_;
    const std::optional<struct stat> image_;  // the file that holds it
    std::map<std::tuple<const Session*, dev_t, ino_t>, std::uint64_t> linked_;
    std::set<std::uint64_t> made_links_;  // symbolic ones
    // All that came of one source that lies in the image itself.
    std::unordered_set<std::uint64_t> made_here_;
    struct Sealed {
        std::string at;
        std::uint32_t flags;
    };
    std::map<std::uint64_t, Sealed> sealed_;  // by inode: what is to be immutable or append-only
};

// Ends the copy of one path of an image to another that is, or would be, the same file, or of a directory into itself.
// False where there is nothing to do: two names of one symbolic link.
bool is_to_copy(Session& image, const std::string& source, const std::string& target, const CopyOptions& o);

// What a command knows that copies out of one image after the other.
struct CopiesOut {
    std::vector<std::string> images;                 // nothing is written to any of them
    std::set<std::pair<dev_t, ino_t>> made_links{};  // symbolic ones, which are not followed
    bool several = false;                            // sources: two of them may want one name,
    std::set<std::string> made{};                    // and what one has made the next one does not replace
};

// From an image to the host. One of these sees all sources in the image.
class CopyOut {
public:
    CopyOut(Session& from, const CopyOptions& o, Outcome& outcome, CopiesOut& all)
        : from_(from), o_(o), outcome_(outcome), all_(all), progress_(o.progress) {}
    void expect(const std::string& source);
    void copy(const std::string& source, const std::string& target);
    // Last of all: what would have been in the way of later copies.
    void finish();

private:
    void named(const std::string& source, const std::string& target);
    void expect(const InodeRef& inode, const std::string& source, unsigned depth);
    // `follow`: the target is the one that was given, and may be a link to a directory.
    void entry(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth = 0,
               bool follow = false);
    void inside(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth);
    struct Target {
        Descriptor file;
        std::string path;  // behind links
        bool was_there = false, is_file = false;
    };
    Target open(const std::string& target, unsigned depth) const;
    bool leaves(const struct stat& st, const std::string& target) const;
    // Whether it is to have attributes of the file's: a file that was there keeps its own, and a device as well.
    bool contents(SourceReader& from, const Target& to);
    // What is there and is no directory goes.
    static void remove_old(const std::string& target);
    // What was there keeps what it is not asked to change.
    void attributes(Inode& inode, const std::string& source, const std::string& target, const struct stat& st,
                    bool was_there);
    // Whether it now has the owners that it is to have; set-id bits are only for those.
    bool own(const std::string& target, const struct stat& st);
    bool changes_what_was_there() const { return o_.preserve || o_.mode || o_.owner || !o_.map_owner.empty(); }
    mode_t mode_out(const struct stat& st) const;

    Session& from_;
    const CopyOptions& o_;
    Outcome& outcome_;
    CopiesOut& all_;
    Progress progress_;
    std::map<ino_t, std::string> linked_;
    Ancestors above_;
    struct Left {
        std::string source, target;
        struct stat st;
        bool was_there;
    };
    std::vector<Left> left_;  // directories that their owner cannot enter when they have their permissions
};

}  // namespace uext4::cli

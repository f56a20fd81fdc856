// Everything below a place, as fts(3) walks it: each directory before what is in it, and once more after that.
#pragma once

#include "cli/listing.h"

namespace uext4::cli {

// Which symbolic links a walk follows.
enum class FollowLinks : std::uint8_t {
    none,   // -P
    named,  // -H: a place that is named
    all     // -L
};

struct VisitedFile {
    Session& session;
    InodeRef inode;    // of what a link leads to, where it was followed
    InodeRef link;     // the link itself, where one was followed
    std::string name;  // the last part of the path
    std::string path;
    unsigned depth;
};

class TreeWalk {
public:
    // `follow` as the options -H, -L and -P say.
    TreeWalk(Listing& listing, FollowLinks follow) : listing_(listing), follow_(follow) {}

    // Visits `path` and what is below it, entries in the order of their names. `before` says whether what is in a
    // directory is visited; `after` is called for directories whose contents were. A failure of either is told, and
    // the walk goes on. A directory that the walk is in already is not visited once more.
    void from(Session& s, const std::string& path, const std::function<bool(const VisitedFile&)>& before,
              const std::function<void(const VisitedFile&)>& after = {});

private:
    void visit(const VisitedFile& what, const std::function<bool(const VisitedFile&)>& before,
               const std::function<void(const VisitedFile&)>& after);
    void follow(VisitedFile& what) const;
    void inside(const VisitedFile& what, const std::function<bool(const VisitedFile&)>& before,
                const std::function<void(const VisitedFile&)>& after);

    Listing& listing_;
    FollowLinks follow_;
    Ancestors above_;
};

}  // namespace uext4::cli

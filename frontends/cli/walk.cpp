#include "cli/walk.h"

namespace uext4::cli {

namespace {

std::string name_of(std::string path) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    return path == "/" ? path : path.substr(path.rfind('/') + 1);
}

}  // namespace

void TreeWalk::from(Session& s, const std::string& path, const std::function<bool(const VisitedFile&)>& before,
                    const std::function<void(const VisitedFile&)>& after) {
    VisitedFile what{s, s.resolve(path, false), {}, name_of(path), path, 0};
    if (follow_ != FollowLinks::none) follow(what);
    visit(what, before, after);
}

// A link that leads nowhere is visited itself.
void TreeWalk::follow(VisitedFile& what) const {
    if (!S_ISLNK(what.inode->mode())) return;
    Result<InodeRef> target = what.session.fs().resolve(what.path, operator_identity());
    if (!target) return;
    what.link = std::move(what.inode);
    what.inode = std::move(*target);
}

void TreeWalk::visit(const VisitedFile& what, const std::function<bool(const VisitedFile&)>& before,
                     const std::function<void(const VisitedFile&)>& after) {
    const std::string subject = what.session.at(what.path);
    if (what.inode->is_directory() && above_.contains(*what.inode)) {
        // Where links are followed, one of them may have led back. Otherwise the image is damaged, which enter() says.
        if (follow_ != FollowLinks::all)
            listing_.attempt(subject, [&] { const Ancestors::Inside here(above_, what.session, *what.inode); });
        return;
    }
    bool enters = false;
    const std::optional<std::string> error = listing_.attempt(subject, [&] { enters = before(what); });
    if (error || !enters || !what.inode->is_directory()) return;
    listing_.attempt(subject, [&] {
        {
            const Ancestors::Inside here(above_, what.session, *what.inode);
            inside(what, before, after);
        }
        if (after) after(what);
    });
}

void TreeWalk::inside(const VisitedFile& what, const std::function<bool(const VisitedFile&)>& before,
                      const std::function<void(const VisitedFile&)>& after) {
    std::optional<std::string> error;
    Session& s = what.session;
    for (Entry& e : listing_.entries(s, *what.inode, what.path, error)) {
        if (is_dot(e.name)) continue;
        const std::string path = below(what.path, e.name);
        InodeRef inode;
        if (listing_.attempt(s.at(path), [&] { inode = s.inode_of_entry(e.inode, path); })) continue;
        VisitedFile next{s, std::move(inode), {}, std::move(e.name), path, what.depth + 1};
        if (follow_ == FollowLinks::all) follow(next);
        visit(next, before, after);
    }
}

}  // namespace uext4::cli

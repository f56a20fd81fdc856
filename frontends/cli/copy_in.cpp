#include "cli/copy.h"
#include "cli/flags.h"
#include "cli/interrupt.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace uext4::cli {

format::Timestamp time_of(const timespec& t) { return {t.tv_sec, static_cast<std::uint32_t>(t.tv_nsec)}; }

std::string last_part(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

bool means_contents(const std::string& path) {
    const std::string name = last_part(path);
    return name == "." || name == ".." || name == "/" || name.empty();
}

std::string has_no_contents(const std::string& at) {
    return at + ": is no file, and has no contents (-r copies devices, fifos and sockets themselves)";
}

bool CopyOptions::keeps(const std::string& name) const {
    return attributes || (preserve && name.starts_with("system.posix_acl_"));
}

bool CopyOptions::leaves(const struct stat& st, const struct stat& there, bool seconds) const {
    if (no_clobber) return true;
    if (!update) return false;
    // A copy with the times of its source would never be as new as that.
    const bool rounded = seconds && preserve;
    return std::pair(st.st_mtim.tv_sec, rounded ? 0 : st.st_mtim.tv_nsec) <=
           std::pair(there.st_mtim.tv_sec, there.st_mtim.tv_nsec);
}

void CopyOptions::print(Progress& bar, const std::string& source, const std::string& target) const {
    if (!verbose) return;
    bar.clear();
    fmt::print("'{}' -> '{}'\n", printable(source), printable(target));
}

Owner CopyOptions::asked(const struct stat& st) const {
    if (owner) return {owner->first, owner->second};
    Owner out;
    for (const auto& [from, to] : map_owner) {
        if (st.st_uid == from) out.uid = to;
        if (st.st_gid == from) out.gid = to;
    }
    return out;
}

Owner CopyOptions::owner_of(const struct stat& st) const {
    Owner out = asked(st);
    if (!preserve) return out;
    if (!out.uid) out.uid = st.st_uid;
    if (!out.gid) out.gid = st.st_gid;
    return out;
}

namespace {

// Whatever is wrong is told by the copy itself.
void silently(const std::function<void()>& part) {
    try {
        part();
    } catch (const Failure&) {
    }
}

}  // namespace

void CopyIn::expect(SourceTree& from, const std::string& source) {
    if (progress_.shown()) silently([&] { expect(*from.find(source, o_.follows_named())); });
}

void CopyIn::expect(CopySource& source) {
    progress_.expect(source.status());
    if (!S_ISDIR(source.status().st_mode) || !o_.recursive) return;
    Names names;
    silently([&] { source.list(names); });
    for (const auto& listed : names) silently([&] { expect(*source.child(listed, o_.follows_all())); });
}

void CopyIn::copy(SourceTree& from, const std::string& source, const std::string& target) {
    outcome_.attempt(progress_, [&] { named(from, source, target); });
}

struct stat CopyIn::copied_as(const CopySource& source) const {
    struct stat st = source.status();
    if (!o_.recursive && !S_ISLNK(st.st_mode)) {
        if (S_ISDIR(st.st_mode)) fail_with(exit_negative, source.at() + ": is a directory (use -r)");
        // Of the host's pipes and devices the contents, then; only copies of trees have the nodes themselves.
        if (!S_ISREG(st.st_mode)) {
            if (source.image()) fail_with(exit_negative, has_no_contents(source.at()));
            st.st_size = 0;
        }
        st.st_mode = (st.st_mode & 07777) | S_IFREG;
    }
    if (S_ISREG(st.st_mode) && !source.image() && image_ && is_one_file(*image_, st))
        fail_with(exit_negative, source.at() + ": is the image that is copied to");
    return st;
}

CopyIn::Opened CopyIn::open(CopySource& source, const struct stat& st) const {
    Opened out;
    if (S_ISREG(st.st_mode))
        out.contents.emplace(source.open(), static_cast<std::uint64_t>(st.st_size),
                             fixed_time_ ? SourceReader::Holes::zeros : SourceReader::Holes::of_source);
    else if (S_ISLNK(st.st_mode)) out.target = source.link_target();
    return out;
}

CopyIn::Spot CopyIn::spot(Inode& directory, const std::string& name, const std::string& path) const {
    return {directory, name, path, to_.at(path)};
}

void CopyIn::named(SourceTree& from, const std::string& source, const std::string& target) {
    if (from.image() == &to_ && !is_to_copy(to_, source, target, o_)) return;
    made_here_.clear();
    const std::unique_ptr<CopySource> what = from.find(source, o_.follows_named());
    // With these options, files that exist may make it needless to read most sources.
    if (!o_.no_clobber && !o_.update)
        what->read_ahead({o_.follows_all(), fixed_time_.has_value(), o_.preserve, image_});
    Result<InodeRef> there = to_.fs().resolve(target, operator_identity());
    if (there && (*there)->is_directory()) {
        if (means_contents(source)) return merge(*what, **there, target);
        const std::string name = last_part(source);
        return entry(*what, spot(**there, name, below(target, name)));
    }
    // A link that leads in a circle can still be replaced.
    if (!there && there.error().code != ENOENT && !to_.fs().resolve(target, operator_identity(), false))
        to_.refuse_path(there.error(), target);
    if (there && target.starts_with('<') && target.find('/') == std::string::npos)
        return replace(*what, *there, target);
    const bool directory = o_.recursive && S_ISDIR(what->status().st_mode);
    FileSystem::Parent parent = directory ? to_.parent(target) : to_.parent_of_file(target);
    entry(*what, spot(*parent.directory, parent.name, target));
}

void CopyIn::entry(CopySource& source, const Spot& to) {
    check_interrupt();
    const struct stat st = copied_as(source);
    if (is_there(source, to)) {
        if (S_ISLNK(st.st_mode)) return progress_.finish(st);  // two names of one
        fail_with(exit_negative, fmt::format("{} and {} are the same", source.at(), to.at));
    }
    // Where a damaged image has the target below the source, the copy would go on with what it has made.
    if (lies_here(source) && made_here_.contains(st.st_ino))
        fail_with(exit_failure, source.at() + ": is what this copy has made");
    const auto key = std::tuple(source.image(), st.st_dev, st.st_ino);
    if (leaves(st, to)) return progress_.finish(st);
    if (o_.links && st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
        if (auto it = linked_.find(key); it != linked_.end()) {
            o_.print(progress_, source.at(), to.at);
            link(InodeNr(it->second), to);
            progress_.finish(st);
            count_complete();
            return;
        }
    }
    progress_.begin(to.name);
    Opened from = open(source, st);
    const auto [made, was_there] = make(source, to, st, from.target);
    if (!was_there || !S_ISDIR(st.st_mode)) o_.print(progress_, source.at(), to.at);
    if (from.contents) contents(*from.contents, made, to.at, was_there);
    if (o_.links && st.st_nlink > 1) linked_[key] = made->number().value;
    if (S_ISDIR(st.st_mode)) inside(source, *made, to.path);
    attributes(source, *made, to.at, st, was_there);
    progress_.finish(st);
    count_complete();
}

// A file's contents for an inode that was named by its number: whatever names it has, they stay.
void CopyIn::replace(CopySource& source, const InodeRef& inode, const std::string& path) {
    const struct stat st = copied_as(source);
    if (!S_ISREG(st.st_mode) || !inode->is_regular())
        fail_with(exit_negative, to_.at(path) + ": only a file can replace a file's contents by number");
    if (leaves(st, inode, to_.at(path))) return progress_.finish(st);
    progress_.begin(source.at());
    Opened from = open(source, st);
    o_.print(progress_, source.at(), to_.at(path));
    contents(*from.contents, inode, to_.at(path), true);
    attributes(source, *inode, to_.at(path), st, true);
    progress_.finish(st);
    count_complete();
}

// What is in a directory, into one that is there; with its attributes when all is preserved.
void CopyIn::merge(CopySource& source, Inode& directory, const std::string& path) {
    if (!o_.recursive) fail_with(exit_negative, source.at() + ": is a directory (use -r)");
    inside(source, directory, path);
    if (o_.preserve) attributes(source, directory, to_.at(path), source.status(), true);
}

void CopyIn::inside(CopySource& source, Inode& directory, const std::string& path) {
    Names names;
    // What is known of it is copied all the same.
    outcome_.attempt(progress_, [&] { source.list(names); });
    if (fixed_time_) std::ranges::sort(names);
    for (const auto& listed : names)
        outcome_.attempt(progress_, [&] {
            const std::string& name = listed.first;
            entry(*source.child(listed, o_.follows_all()), spot(directory, name, below(path, name)));
        });
}

void CopyIn::link(InodeNr number, const Spot& to) {
    InodeRef target = value_or_fail(to_.fs().inode(number), to.at);
    // Of two sources that are called alike, the second one is there already.
    const Result<InodeRef> there = to_.fs().lookup(to.directory, to.name, operator_identity(), false);
    if (there && *there == target) return;
    remove_old(to);
    value_or_fail(to_.fs().link(*target, to.directory, to.name, operator_identity(), false), to.at);
}

bool CopyIn::leaves(const struct stat& st, const InodeRef& there, const std::string& at) {
    const bool seconds = to_.fs().volume().geometry().inode_size <= format::classic_inode_size;
    return o_.leaves(st, value_or_fail(to_.fs().attributes(*there), at), seconds);
}

bool CopyIn::leaves(const struct stat& st, const Spot& to) {
    if ((!o_.no_clobber && !o_.update) || S_ISDIR(st.st_mode)) return false;
    Result<InodeRef> there = to_.fs().lookup(to.directory, to.name, operator_identity(), false);
    if (!there) return false;  // what else is wrong is told when it is made
    if ((*there)->is_symlink() && !S_ISLNK(st.st_mode))
        if (Result<InodeRef> target =
                to_.fs().resolve(fmt::format("<{}>/{}", to.directory.number(), to.name), operator_identity()))
            there = std::move(target);
    return leaves(st, *there, to.at);
}

bool CopyIn::is_there(const CopySource& source, const Spot& to) {
    if (!lies_here(source)) return false;
    const std::string path = fmt::format("<{}>/{}", to.directory.number(), to.name);
    const Result<InodeRef> there = to_.fs().resolve(path, operator_identity(), !S_ISLNK(source.status().st_mode));
    return there && (*there)->number().value == source.status().st_ino;
}

void CopyIn::remove_old(const Spot& to) {
    Result<InodeRef> old = to_.fs().lookup(to.directory, to.name, operator_identity(), false);
    if (!old) return;
    if ((*old)->is_directory()) fail_with(exit_negative, to.at + ": a directory is in the way");
    value_or_fail(to_.fs().unlink(to.directory, to.name, operator_identity(), false), to.at);
    if (value_or_fail(to_.fs().attributes(**old), to.at).st_nlink == 0) sealed_.erase((*old)->number().value);
}

std::optional<InodeRef> CopyIn::file_there(const Spot& to) {
    Result<InodeRef> found = to_.fs().lookup(to.directory, to.name, operator_identity(), false);
    if (!found) return {};
    InodeRef there = std::move(*found);
    if (there->is_symlink()) {
        if (made_links_.contains(there->number().value))
            fail_with(exit_negative, to.at + ": is a link that this copy has made, and is not followed");
        const std::string path = fmt::format("<{}>/{}", to.directory.number(), to.name);
        Result<InodeRef> target = to_.fs().resolve(path, operator_identity());
        if (!target && target.error().code == ENOENT)
            fail_with(exit_negative, to.at + ": is a link that leads nowhere");
        there = value_or_fail(std::move(target), to.at);
    }
    if (there->is_directory()) fail_with(exit_negative, to.at + ": a directory is in the way");
    // With all that it is, a file is copied beside those that share the old one, not into it.
    if (o_.links && value_or_fail(to_.fs().attributes(*there), to.at).st_nlink > 1) {
        remove_old(to);
        return {};
    }
    if (there->is_regular()) {
        if (!o_.force || to_.fs().open(there, O_WRONLY, operator_identity(), false)) return there;
    } else if (!o_.force) {
        fail_with(exit_negative, to.at + ": is a device, fifo or socket, and in an image those take no contents");
    }
    remove_old(to);
    return {};
}

CopyIn::Made CopyIn::make(const CopySource& source, const Spot& to, const struct stat& st,
                          const std::string& link_target) {
    const mode_t mode = (st.st_mode & S_IFMT) | (S_ISDIR(st.st_mode) ? 0755 : 0644);
    const auto create = [&] {
        return to_.fs().create(to.directory, to.name, mode, st.st_rdev, link_target, operator_identity(), false);
    };
    const auto made = [&](InodeRef inode) -> Made {
        if (S_ISLNK(st.st_mode)) made_links_.insert(inode->number().value);
        if (lies_here(source)) made_here_.insert(inode->number().value);
        return {std::move(inode), false};
    };
    // Most names are free, so the copy creates first and looks up a taken name afterwards. The last create() meets any
    // other error again.
    if (Result<InodeRef> inode = create()) return made(std::move(*inode));
    // Directories are filled, files get new contents; links and nodes replace whatever is in the way.
    if (S_ISDIR(st.st_mode)) {
        if (Result<InodeRef> old = to_.fs().lookup(to.directory, to.name, operator_identity(), false)) {
            if (!(*old)->is_directory()) fail_with(exit_negative, to.at + ": is in the way of a directory");
            return {std::move(*old), true};
        }
    } else if (S_ISREG(st.st_mode)) {
        if (std::optional<InodeRef> old = file_there(to)) return {std::move(*old), true};
    } else {
        remove_old(to);
    }
    return made(value_or_fail(create(), to.at));
}

void CopyIn::contents(SourceReader& from, const InodeRef& inode, const std::string& at, bool was_there) {
    const int flags = O_WRONLY | (was_there ? O_TRUNC : 0);
    std::unique_ptr<OpenFile> file = value_or_fail(to_.fs().open(inode, flags, operator_identity(), false), at);
    const PartialResult part(at);
    while (const std::optional<SourceReader::Piece> piece = from.next()) {
        if (value_or_fail(file->write(piece->at, piece->bytes), at) != piece->bytes.size())
            fail_with_error({ENOSPC, {}}, at);
        progress_.advance(piece->bytes.size());
        check_interrupt();
    }
    if (from.size() != inode->size_hint()) value_or_fail(file->truncate(from.size()), at);
}

format::Timestamp CopyIn::kept_time(const timespec& t) const {
    const format::Timestamp time = time_of(t);
    return fixed_time_ ? std::min(time, format::Timestamp{*fixed_time_, 0}) : time;
}

void CopyIn::attributes(const CopySource& source, Inode& inode, const std::string& at, const struct stat& st,
                        bool was_there) {
    AttributeChange change;
    const Owner owner = o_.owner_of(st);
    change.uid = owner.uid;
    change.gid = owner.gid;
    if (!was_there && !change.uid) change.uid = operator_identity().uid;
    if (!was_there && !change.gid) change.gid = operator_identity().gid;
    std::vector<std::string> names;
    if (o_.preserve) outcome_.attempt(progress_, [&] { names = source.xattr_names(); });
    if (fixed_time_) std::ranges::sort(names);
    // A change of the owner takes capabilities away, so it comes before them.
    if (!names.empty() && (change.uid || change.gid))
        value_or_fail(to_.fs().set_attributes(inode, std::exchange(change, {}), operator_identity(), false), at);
    if (o_.preserve) xattrs(source, names, inode, at);
    if (!S_ISLNK(st.st_mode)) {
        if (o_.mode) change.mode = o_.mode;
        else if (o_.preserve) change.mode = static_cast<std::uint16_t>(st.st_mode & 07777);
        else if (!was_there) change.mode = static_cast<std::uint16_t>(st.st_mode & 0777 & ~022u);
    }
    if (o_.preserve) {
        // A copy moves the access time of what lies on the host, so that a second one would differ by it.
        change.atime = kept_time(fixed_time_ && !source.image() ? st.st_mtim : st.st_atim);
        change.mtime = kept_time(st.st_mtim);
    }
    if (change.uid || change.gid || change.mode || change.atime)
        value_or_fail(to_.fs().set_attributes(inode, change, operator_identity(), false), at);
    if (o_.attributes) keep_flags(source, inode, at);
}

void CopyIn::xattrs(const CopySource& source, const std::vector<std::string>& names, Inode& inode,
                    const std::string& to) {
    // What the new file inherited from its directory is not the source's.
    for (const std::string& name : value_or_fail(to_.fs().list_xattrs(inode, operator_identity(), false), to))
        if (name.starts_with("system.posix_acl_") && std::ranges::find(names, name) == names.end())
            value_or_fail(to_.fs().remove_xattr(inode, name, operator_identity(), false), to + ": " + name);
    // One that cannot be kept is told, and takes neither the others with it nor the permissions, which come last.
    for (const std::string& name : names)
        if (o_.keeps(name))
            outcome_.attempt(progress_, [&] {
                const std::optional<std::vector<std::byte>> value = source.xattr(name);
                if (!value) return;
                const Result<void> set = to_.fs().set_xattr(inode, name, *value, 0, operator_identity(), false);
                if (!set && set.error().code != EOPNOTSUPP) value_or_fail(set, to + ": " + name);
            });
}

namespace {

namespace f = format::inode_flag;
// The other flags that lsattr(1) shows say how the file system stores a file.
constexpr std::uint32_t copied_flags = user_settable_flags & ~f::eofblocks;
constexpr std::uint32_t sealing_flags = f::immutable | f::append;

}  // namespace

void CopyIn::keep_flags(const CopySource& source, Inode& inode, const std::string& at) {
    const std::optional<std::uint32_t> flags = source.flags();
    if (!flags) return;
    set_flags(inode, *flags, copied_flags & ~sealing_flags, at);
    // Other names of the file are still to be made, and other sources may copy into the directory.
    if (*flags & sealing_flags) sealed_[inode.number().value] = {at, *flags};
    else sealed_.erase(inode.number().value);
}

void CopyIn::set_flags(Inode& inode, std::uint32_t flags, std::uint32_t which, const std::string& at) {
    const auto set = [&](std::uint32_t bits) {
        const std::uint32_t all = (to_.fs().get_flags(inode) & ~bits) | (flags & bits);
        return to_.fs().set_flags(inode, all, operator_identity(), false);
    };
    std::uint32_t different = (to_.fs().get_flags(inode) ^ flags) & which;
    if (different == 0 || set(different)) return;
    for (; different != 0; different &= different - 1) {
        const std::uint32_t bit = different & -different;
        outcome_.attempt(progress_, [&] { value_or_fail(set(bit), fmt::format("{}: flag {}", at, letters_of(bit))); });
    }
}

void CopyIn::finish() {
    for (const auto& [number, what] : std::exchange(sealed_, {}))
        outcome_.attempt(progress_, [&] {
            const InodeRef inode = value_or_fail(to_.fs().inode(InodeNr(number)), what.at);
            set_flags(*inode, what.flags, sealing_flags, what.at);
        });
}

}  // namespace uext4::cli

#include "cli/copy.h"
#include "cli/interrupt.h"
#include "sandbox/host_changes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

namespace uext4::cli {

namespace {

void check(int result, const std::string& what) {
    if (result != 0) fail_with(exit_failure, what + ": " + std::strerror(errno));
}

// What is not to be had by others. It is asked for before anything is given up.
const mode_t file_mask = [] {
    const mode_t mask = ::umask(0);
    ::umask(mask);
    return mask;
}();

// What a link of /proc leads to may have no name: a pipe, say.
std::string behind_links(const std::string& path) {
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
    if (!real) return path;
    return real.get();
}

}  // namespace

void CopyOut::expect(const std::string& source) {
    if (!progress_.shown()) return;
    try {
        if (Result<InodeRef> inode = from_.fs().resolve(source, operator_identity(), o_.follows_named()))
            expect(*inode, source, 0);
    } catch (const Failure&) {
        // Whatever is wrong is told by the copy itself.
    }
}

void CopyOut::expect(const InodeRef& inode, const std::string& source, unsigned depth) {
    const Result<struct stat> st = from_.fs().attributes(*inode);
    if (!st) return;
    progress_.expect(*st);
    if (!S_ISDIR(st->st_mode) || !o_.recursive) return;
    const Ancestors::Inside inside(above_, from_, *inode);
    Names names;
    names_in(from_, *inode, source, names);
    for (const auto& [name, number] : names)
        if (Result<InodeRef> child = from_.fs().inode(InodeNr(number))) expect(*child, below(source, name), depth + 1);
}

void CopyOut::copy(const std::string& source, const std::string& target) {
    outcome_.attempt(progress_, [&] { named(source, target); });
}

void CopyOut::named(const std::string& source, const std::string& target) {
    InodeRef inode = from_.resolve(source, o_.follows_named());
    std::string where = target;
    struct stat st{};
    if (::stat(target.c_str(), &st) == 0 && S_ISDIR(st.st_mode) && !means_contents(source))
        where = below(target, last_part(source));
    else if (target.ends_with('/') && !inode->is_directory()) fail_with(exit_negative, target + ": is no directory");
    entry(inode, source, where, 0, where == target);
}

void CopyOut::entry(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth,
                    bool follow) {
    check_interrupt();
    const struct stat st = value_or_fail(from_.fs().attributes(*inode), from_.at(source));
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode) && !o_.recursive)
        fail_with(exit_negative, S_ISDIR(st.st_mode) ? from_.at(source) + ": is a directory (use -r)"
                                                     : has_no_contents(from_.at(source)));
    if (leaves(st, target)) return progress_.finish(st);
    if (all_.several && !S_ISDIR(st.st_mode) && !all_.made.insert(target).second)
        fail_with(exit_negative, target + ": has just been made by this copy, and is not replaced");
    if (o_.links && st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
        if (auto it = linked_.find(st.st_ino); it != linked_.end()) {
            o_.print(progress_, from_.at(source), target);
            remove_old(target);
            check(make_link(it->second, target), target);
            progress_.finish(st);
            count_complete();
            return;
        }
    }
    progress_.begin(last_part(source));
    if (!S_ISDIR(st.st_mode)) o_.print(progress_, from_.at(source), target);
    bool attributes_too = true, was_there = false;
    std::string made = target;  // where the attributes go
    switch (st.st_mode & S_IFMT) {
        case S_IFDIR:
            if (make_folder(target) != 0) {
                if (errno != EEXIST) check(-1, target);
                // Any other link in the way would lead out of the tree that is written.
                struct stat there{};
                if ((follow ? ::stat(target.c_str(), &there) : ::lstat(target.c_str(), &there)) != 0 ||
                    !S_ISDIR(there.st_mode))
                    fail_with(exit_negative, target + ": is in the way of a directory");
                // As a file that was there it stays who it is.
                was_there = true;
                attributes_too = changes_what_was_there();
                if (::lstat(target.c_str(), &there) == 0 && S_ISLNK(there.st_mode)) made = behind_links(target);
            } else {
                o_.print(progress_, from_.at(source), target);
            }
            break;
        case S_IFLNK: {
            const std::string text = value_or_fail(from_.fs().read_link(*inode), from_.at(source));
            remove_old(target);
            check(make_symlink(text, target), target);
            struct stat there{};
            check(::lstat(target.c_str(), &there), target);
            all_.made_links.insert({there.st_dev, there.st_ino});
            break;
        }
        case S_IFREG: {
            const auto size = static_cast<std::uint64_t>(st.st_size);
            SourceReader from(open_contents_of(from_, inode, from_.at(source), size), size);
            Target to = open(target, depth);
            made = to.path;
            was_there = to.was_there;
            attributes_too = contents(from, to);
            check(to.file.close(), to.path);
            break;
        }
        default:
            remove_old(target);
            if (make_node(target, st.st_mode & S_IFMT, st.st_rdev) != 0) {
                // Only root makes devices; the others still get the rest of the tree.
                if (errno != EPERM) check(-1, target);
                outcome_.tell(progress_, exit_negative, target + ": " + std::strerror(EPERM));
                return;
            }
    }
    if (S_ISDIR(st.st_mode)) inside(inode, source, target, depth);
    else if (st.st_nlink > 1) linked_[st.st_ino] = made;
    progress_.finish(st);
    // Links to files below are still to be made, so the way to them stays open. Children come before their parents.
    if (S_ISDIR(st.st_mode) && attributes_too && (mode_out(st) & S_IRWXU) != S_IRWXU)
        left_.push_back({source, made, st, was_there});
    else if (attributes_too) attributes(*inode, source, made, st, was_there);
    count_complete();
}

bool CopyOut::leaves(const struct stat& st, const std::string& target) const {
    struct stat there{}, behind{};
    if ((!o_.no_clobber && !o_.update) || S_ISDIR(st.st_mode) || ::lstat(target.c_str(), &there) != 0) return false;
    if (!S_ISLNK(st.st_mode) && ::stat(target.c_str(), &behind) == 0) there = behind;
    return o_.leaves(st, there, false);
}

void CopyOut::remove_old(const std::string& target) {
    struct stat st{};
    if (::lstat(target.c_str(), &st) != 0) return;
    if (S_ISDIR(st.st_mode)) fail_with(exit_negative, target + ": a directory is in the way");
    check(remove_file(target), target);
}

void CopyOut::inside(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth) {
    outcome_.attempt(progress_, [&] {
        const Ancestors::Inside inside(above_, from_, *inode);
        Names names;
        outcome_.attempt(progress_, [&] { names_in(from_, *inode, source, names); });
        for (const auto& [name, number] : names)
            outcome_.attempt(progress_, [&, name = name, number = number] {
                const std::string path = below(source, name);
                InodeRef child = from_.inode_of_entry(number, path);
                if (o_.follows_all() && child->is_symlink()) {
                    child = from_.resolve(path);
                    above_.expect_outside(from_, *child, path);
                }
                entry(child, path, below(target, name), depth + 1);
            });
    });
}

CopyOut::Target CopyOut::open(const std::string& target, unsigned depth) const {
    struct stat st{};
    Target out;
    out.path = target;
    bool follow = false;
    if (::lstat(target.c_str(), &st) == 0 && S_ISLNK(st.st_mode)) {
        // Links that lead elsewhere may have come from an image, and who copies a tree names none of them.
        if (depth > 0 || all_.made_links.contains({st.st_dev, st.st_ino}))
            fail_with(exit_negative,
                      target + ": is a link, which is not followed in a tree, or when this copy has made it");
        if (::stat(target.c_str(), &st) != 0)
            fail_with(exit_negative,
                      target + ": " + (errno == ENOENT ? "is a link that leads nowhere" : std::strerror(errno)));
        out.path = behind_links(target);
        follow = true;
    }
    out.was_there = ::stat(target.c_str(), &st) == 0;
    if (out.was_there && S_ISDIR(st.st_mode)) fail_with(exit_negative, target + ": a directory is in the way");
    // What is a disk's by its name may have come from an image as well.
    if (out.was_there && depth > 0 && !S_ISREG(st.st_mode))
        fail_with(exit_negative,
                  target + ": is no file, and only a destination that is named may be a device or a pipe");
    if (out.was_there && std::ranges::any_of(all_.images, [&](const auto& image) { return is_image(image, st); }))
        fail_with(exit_negative, target + ": is the image that is copied from");
    // With all that it is, a file is copied beside those that share the old one, not into it.
    if (out.was_there && o_.links && st.st_nlink > 1) {
        remove_old(target);
        out.was_there = false;
        out.path = target;
    }
    int fd = open_contents(out.path, follow);
    if (const int error = errno; fd < 0 && o_.force && out.was_there && remove_file(target) == 0) {
        out.was_there = false;
        out.path = target;
        fd = open_contents(target, false);
    } else {
        errno = error;
    }
    check(fd < 0 ? -1 : 0, target);
    out.file = Descriptor(fd);
    check(::fstat(fd, &st), target);
    out.is_file = S_ISREG(st.st_mode);
    return out;
}

bool CopyOut::contents(SourceReader& from, const Target& to) {
    std::uint64_t end = 0;
    const auto put = [&](ConstBytes bytes) {
        while (!bytes.empty()) {
            const ssize_t n = to.is_file ? ::pwrite(to.file.fd(), bytes.data(), bytes.size(), static_cast<off_t>(end))
                                         : write_when_ready(to.file.fd(), bytes);
            if (n < 0) check(-1, to.path);
            bytes = bytes.subspan(static_cast<std::size_t>(n));
            end += static_cast<std::uint64_t>(n);
        }
    };
    // Pipes and devices get holes as zeros.
    const auto leave_hole = [&](std::uint64_t length) {
        static constexpr std::array<std::byte, std::size_t{1} << 16> zeros{};
        if (to.is_file) end += length;
        else
            for (std::uint64_t n = 0; n < length; n += zeros.size())
                put(ConstBytes(zeros).first(std::min<std::uint64_t>(zeros.size(), length - n)));
    };
    const PartialResult part(to.path);
    while (const std::optional<SourceReader::Piece> piece = from.next()) {
        leave_hole(piece->at - end);
        put(piece->bytes);
        progress_.advance(piece->bytes.size());
        check_interrupt();
    }
    leave_hole(from.size() - end);
    if (!to.is_file) return false;
    check(::ftruncate(to.file.fd(), static_cast<off_t>(from.size())), to.path);
    return !to.was_there || changes_what_was_there();
}

void CopyOut::finish() {
    release_contents();
    for (const Left& directory : std::exchange(left_, {}))
        outcome_.attempt(progress_, [&] {
            InodeRef inode = value_or_fail(from_.fs().inode(InodeNr(directory.st.st_ino)), from_.at(directory.source));
            attributes(*inode, directory.source, directory.target, directory.st, directory.was_there);
        });
}

mode_t CopyOut::mode_out(const struct stat& st) const {
    if (o_.mode) return *o_.mode;
    return st.st_mode & (o_.preserve ? 07777 : 0777 & ~file_mask);
}

bool CopyOut::own(const std::string& target, const struct stat& st) {
    const Owner owner = o_.owner_of(st);
    constexpr auto unchanged = static_cast<std::uint32_t>(-1);
    if (!owner.uid && !owner.gid) return true;
    if (change_owner(target, owner.uid.value_or(unchanged), owner.gid.value_or(unchanged)) == 0) return true;
    if (errno != EPERM) check(-1, target);
    // Who is not root cannot give files away. That is no news with -a, but an error where it was asked for.
    if (const Owner asked = o_.asked(st); asked.uid || asked.gid)
        outcome_.tell(progress_, exit_negative,
                      fmt::format("{}: cannot be given to {}:{}: {}", target, owner.uid.value_or(st.st_uid),
                                  owner.gid.value_or(st.st_gid), std::strerror(EPERM)));
    return false;
}

void CopyOut::attributes(Inode& inode, const std::string& source, const std::string& target, const struct stat& st,
                         bool was_there) {
    // With another owner than the image says, set-id bits would give somebody else's rights away.
    const mode_t kept = own(target, st) ? 07777 : 01777;
    if (o_.preserve) {
        const std::string at = from_.at(source);
        for (const std::string& name : value_or_fail(from_.fs().list_xattrs(inode, operator_identity(), false), at)) {
            if (!o_.keeps(name)) continue;
            const std::vector<std::byte> value =
                value_or_fail(from_.fs().get_xattr(inode, name, operator_identity(), false), at);
            if (change_attribute(target, name, value) != 0 && errno != EPERM && errno != EOPNOTSUPP)
                outcome_.tell(progress_, exit_negative, target + ": " + name + ": " + std::strerror(errno));
        }
    }
    if (!S_ISLNK(st.st_mode) && (!was_there || o_.preserve || o_.mode)) {
        const bool inherits = S_ISDIR(st.st_mode) && !o_.preserve && !o_.mode;
        const mode_t mode = o_.mode ? *o_.mode : mode_out(st) & kept;
        check((inherits ? change_new_folder_mode : change_mode)(target, mode), target);
    }
    if (o_.preserve) {
        const timespec times[2] = {st.st_atim, st.st_mtim};
        (void)change_times(target, times);
    }
}

}  // namespace uext4::cli

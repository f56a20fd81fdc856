#include "tests/crash/tree.h"
#include "tests/root.h"

#include <dirent.h>
#include <fcntl.h>

namespace uext4::crash {

namespace {

std::string text_of(ConstBytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

Result<Node> look_at(FileSystem& fs, const InodeRef& inode) {
    Node node;
    const struct stat info = TRY(fs.attributes(*inode));
    node.inode = info.st_ino;
    node.mode = info.st_mode;
    node.uid = info.st_uid;
    node.gid = info.st_gid;
    if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) node.device = info.st_rdev;
    node.flags = fs.get_flags(*inode);
    if (S_ISREG(info.st_mode)) node.flags &= ~(format::inode_flag::inline_data | format::inode_flag::extents);
    node.atime = info.st_atim;
    node.mtime = info.st_mtim;
    node.ctime = info.st_ctim;
    node.links = info.st_nlink;
    for (const std::string& name : TRY(fs.list_xattrs(*inode, root, false)))
        node.xattrs[name] = text_of(TRY(fs.get_xattr(*inode, name, root, false)));
    if (S_ISLNK(info.st_mode)) node.target = TRY(fs.read_link(*inode));
    if (S_ISREG(info.st_mode)) {
        auto file = TRY(fs.open(inode, O_RDONLY | O_NOATIME, root, false));
        std::vector<std::byte> bytes(static_cast<std::size_t>(info.st_size));
        const std::size_t n = TRY(file->read(0, bytes));
        if (n != bytes.size()) return fail(EIO, "inode {}: {} of {} bytes read", info.st_ino, n, bytes.size());
        node.contents = text_of(bytes);
    }
    return node;
}

bool differ(const timespec& a, const timespec& b) { return a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec; }

bool other_time(const timespec& wanted, const timespec& got) { return is_set_by_hand(wanted) && differ(wanted, got); }

std::string text_of(const timespec& time) { return fmt::format("{}.{:09}", time.tv_sec, time.tv_nsec); }

Result<void> walk(FileSystem& fs, const InodeRef& directory, const std::string& path, Tree& tree, int depth) {
    if (depth > 20) return fail(ELOOP, "{}: directories without end", path);
    std::vector<std::pair<std::string, InodeNr>> entries;
    TRY(fs.read_directory(*directory, 0, [&](const DirectoryEntry& entry) {
        if (entry.name != "." && entry.name != "..") entries.emplace_back(entry.name, entry.inode);
        return true;
    }));
    for (const auto& [name, number] : entries) {
        const std::string at = path + "/" + name;
        Result<InodeRef> inode = fs.inode(number);
        if (!inode) return fail(inode.error().code, "{}: {}", at, inode.error().what);
        Result<Node> node = look_at(fs, *inode);
        if (!node) return fail(node.error().code, "{}: {}", at, node.error().what);
        const bool descend = S_ISDIR(node->mode);
        if (!tree.emplace(at, std::move(*node)).second) return fail(EUCLEAN, "{}: twice in its directory", at);
        if (descend) TRY(walk(fs, *inode, at, tree, depth + 1));
    }
    return {};
}

}  // namespace

bool is_set_by_hand(const timespec& time) {
    constexpr std::int64_t year_2000 = 946684800, year_2100 = 4102444800;
    return time.tv_sec < year_2000 || time.tv_sec >= year_2100;
}

Result<Node> look(FileSystem& fs, const std::string& path) { return look_at(fs, TRY(fs.resolve(path, root, false))); }

Result<Tree> capture(FileSystem& fs) {
    Tree tree;
    const InodeRef top = TRY(fs.root());
    tree.emplace("", TRY(look_at(fs, top)));
    TRY(walk(fs, top, "", tree, 0));
    return tree;
}

Result<void> find_strays(FileSystem& fs, Tree& tree) {
    BlockDevice& device = fs.volume().fs().device;
    const std::uint64_t bs = fs.volume().fs().block_size();
    std::vector<std::byte> bytes(bs);
    for (auto& [path, node] : tree) {
        const std::uint64_t end = node.contents.size(), last = end / bs * bs;
        if (end == last) continue;
        BlockNr block;
        const InodeRef inode = TRY(fs.inode(InodeNr(node.inode)));
        TRY(fs.extents(*inode, last, bs, [&](const Mapping& m) {
            if (m.state == BlockState::mapped) block = m.block + (last - m.offset) / bs;
            return false;
        }));
        if (!block) continue;
        TRY(device.read(block.value * bs, bytes));
        node.has_stray = std::any_of(bytes.begin() + static_cast<std::ptrdiff_t>(end - last), bytes.end(),
                                     [](std::byte b) { return b != std::byte{0}; });
    }
    return {};
}

Result<Tree> capture(FileSystem& fs, const std::string& directory) {
    Tree tree;
    const InodeRef top = TRY(fs.resolve(directory, root, false));
    tree.emplace(directory, TRY(look_at(fs, top)));
    TRY(walk(fs, top, directory, tree, 0));
    return tree;
}

Tree part_of(const Tree& tree, const std::string& directory) {
    Tree part;
    for (const auto& [path, node] : tree)
        if (path == directory || path.starts_with(directory + "/")) part.emplace(path, node);
    return part;
}

std::string other_attributes(const Node& wanted, const Node& got) {
    if (got.mode != wanted.mode) return fmt::format("mode {:o}, not {:o}", got.mode, wanted.mode);
    if (got.uid != wanted.uid) return fmt::format("user {}, not {}", got.uid, wanted.uid);
    if (got.gid != wanted.gid) return fmt::format("group {}, not {}", got.gid, wanted.gid);
    if (got.device != wanted.device) return fmt::format("device {:#x}, not {:#x}", got.device, wanted.device);
    if (got.flags != wanted.flags) return fmt::format("flags {:#x}, not {:#x}", got.flags, wanted.flags);
    if (other_time(wanted.atime, got.atime))
        return fmt::format("time of access {}, not {}", text_of(got.atime), text_of(wanted.atime));
    if (other_time(wanted.mtime, got.mtime))
        return fmt::format("time of modification {}, not {}", text_of(got.mtime), text_of(wanted.mtime));
    if (got.xattrs != wanted.xattrs) return "other extended attributes";
    return {};
}

std::string other_times_of_change(const Node& wanted, const Node& got) {
    if (!differ(wanted.mtime, got.mtime) && !differ(wanted.ctime, got.ctime)) return {};
    return fmt::format("times of modification and change {} and {}, not {} and {}", text_of(got.mtime),
                       text_of(got.ctime), text_of(wanted.mtime), text_of(wanted.ctime));
}

std::string difference(const Tree& wanted, const Tree& got, bool contents, bool numbers) {
    std::map<std::uint64_t, std::uint64_t> there_is, here_is;
    for (const auto& [at, node] : wanted) {
        const std::string path = at.empty() ? "/" : at;
        const auto there = got.find(at);
        if (there == got.end()) return path + ": missing";
        const Node& other = there->second;
        const std::uint64_t meant = numbers ? node.inode : there_is.try_emplace(node.inode, other.inode).first->second;
        if (other.inode != meant ||
            (!numbers && here_is.try_emplace(other.inode, node.inode).first->second != node.inode))
            return fmt::format("{}: inode {}, not {}", path, other.inode, meant);
        if (const std::string wrong = other_attributes(node, other); !wrong.empty()) return path + ": " + wrong;
        if (other.links != node.links) return fmt::format("{}: {} links, not {}", path, other.links, node.links);
        if (other.target != node.target) return path + ": another target";
        if (contents && other.contents != node.contents) return path + ": other contents";
    }
    for (const auto& [path, node] : got)
        if (!wanted.contains(path)) return path + ": should not be there";
    return {};
}

}  // namespace uext4::crash

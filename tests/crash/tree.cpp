#include "tests/crash/tree.h"

#include <dirent.h>
#include <fcntl.h>

namespace uext4::crash {

namespace {

const Credentials root = Credentials::root();

std::string text_of(ConstBytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

Result<Node> look_at(FileSystem& fs, const InodeRef& inode) {
    Node node;
    const struct stat info = TRY(fs.attributes(*inode));
    node.inode = info.st_ino;
    node.mode = info.st_mode;
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

Result<Tree> capture(FileSystem& fs) {
    Tree tree;
    const InodeRef top = TRY(fs.root());
    TRY(walk(fs, top, "", tree, 0));
    return tree;
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

std::string difference(const Tree& wanted, const Tree& got, bool contents, bool numbers) {
    std::map<std::uint64_t, std::uint64_t> there_is, here_is;
    for (const auto& [path, node] : wanted) {
        const auto there = got.find(path);
        if (there == got.end()) return path + ": missing";
        const Node& other = there->second;
        const std::uint64_t meant = numbers ? node.inode : there_is.try_emplace(node.inode, other.inode).first->second;
        if (other.inode != meant ||
            (!numbers && here_is.try_emplace(other.inode, node.inode).first->second != node.inode))
            return fmt::format("{}: inode {}, not {}", path, other.inode, meant);
        if (other.mode != node.mode) return fmt::format("{}: mode {:o}, not {:o}", path, other.mode, node.mode);
        if (other.links != node.links) return fmt::format("{}: {} links, not {}", path, other.links, node.links);
        if (other.target != node.target) return path + ": another target";
        if (other.xattrs != node.xattrs) return path + ": other extended attributes";
        if (contents && other.contents != node.contents) return path + ": other contents";
    }
    for (const auto& [path, node] : got)
        if (!wanted.contains(path)) return path + ": should not be there";
    return {};
}

}  // namespace uext4::crash

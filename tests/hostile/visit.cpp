#include "tests/hostile/visit.h"

#include "tests/hostile/visitor.h"
#include "tests/root.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

namespace uext4::hostile {

namespace {

// Every kind of change, once for each file and directory.
void change_files(Visitor& v, FileSystem& fs, const std::vector<std::string>& files) {
    const std::vector<std::byte> bytes(3000, std::byte{'w'});
    for (std::size_t i = 0; i < std::min<std::size_t>(files.size(), 24); ++i) {
        const std::string& path = files[i];
        auto inode = v.take(fs.resolve(path, root, false));
        if (!inode) continue;
        if ((*inode)->is_regular()) {
            if (auto file = v.take(fs.open(*inode, O_RDWR, root, true))) {
                v.take((*file)->write(0, bytes));
                v.take((*file)->write((*inode)->size_hint(), ConstBytes(bytes).first(700)));
                v.take((*file)->fallocate(3, 1024, 2048));
                v.take((*file)->fallocate(1, 40000, 5000));
                v.take((*file)->sync(false));
                v.take((*file)->truncate(i % 2 ? 100 : 60000));
            }
        }
        v.take(fs.set_xattr(**inode, "user.added", ConstBytes(bytes).first(i % 3 ? 60 : 700), 0, root, true));
        v.take(fs.remove_xattr(**inode, "user.long", root, true));
        AttributeChange mode;
        mode.mode = 0755;
        v.take(fs.set_attributes(**inode, mode, root, true));
    }
}

void change_names(Visitor& v, FileSystem& fs, const std::vector<std::string>& directories,
                  const std::vector<std::string>& files) {
    const auto top = v.take(fs.root());
    for (const std::string& path : directories) {
        auto dir = v.take(fs.resolve(path.empty() ? "/" : path, root));
        if (!dir) continue;
        for (int i = 0; i < 6; ++i)
            v.take(fs.create(**dir, fmt::format("{}{}", i, std::string(200, 'c')),
                             i % 2 ? S_IFREG | 0644 : S_IFDIR | 0755, 0, {}, root, true));
        v.take(fs.create(**dir, "made_link", S_IFLNK | 0777, 0, std::string(100, 'l'), root, true));
        if (top) v.take(fs.rename(**dir, "made_link", **top, fmt::format("moved{}", path.size()), 0, root, true));
    }
    for (std::size_t i = 0; i < std::min<std::size_t>(files.size(), 40); ++i) {
        const auto parent = v.take(fs.resolve_parent(files[i], root));
        if (!parent) continue;
        if (i % 3 == 0 && top) v.take(fs.rename(*parent->directory, parent->name, **top, "renamed", 0, root, true));
        else v.take(fs.unlink(*parent->directory, parent->name, root, true));
    }
    for (auto it = directories.rbegin(); it != directories.rend(); ++it) {
        if (it->empty()) continue;
        const auto parent = v.take(fs.resolve_parent(*it, root));
        if (parent) v.take(fs.rmdir(*parent->directory, parent->name, root, true));
    }
    if (top)
        if (auto unnamed = v.take(fs.create_tmpfile(**top, S_IFREG | 0600, 0, root, true)))
            v.take(fs.link(**unnamed, **top, "named", root, true));
}

}  // namespace

bool names_one_of(const std::string& text, const std::vector<std::string>& words) {
    return std::ranges::any_of(words, [&](const std::string& w) { return text.find(w) != std::string::npos; });
}

bool names_a_structure(const std::string& text) {
    // What ends a long list stands behind those that it is a list of.
    if (names_one_of(text, {"superblock", "journal", "s_", "mmp", "no ext2", "features", "orphan",
                            "because of: ", "quotas", "more problems than are listed"}))
        return true;
    for (const char* word :
         {"inode ", "group ", "block ", "directory ", "attribute block ", "inodes ", "symlink ", "transaction "}) {
        for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) {
            const std::size_t next = at + std::string_view(word).size();
            if (next < text.size() && (std::isdigit(static_cast<unsigned char>(text[next])) != 0)) return true;
        }
    }
    return false;
}

Visit look_at(const std::shared_ptr<BlockDevice>& device) {
    Visit out;
    Visitor v(out);
    if (auto fs = v.mount(device, "ro")) {
        v.walk(*fs);
        v.check(*fs);
        v.take(fs->unmount());
    }
    return out;
}

Visit change(const std::shared_ptr<BlockDevice>& device) {
    Visit out;
    Visitor v(out);
    auto fs = v.mount(device, "");
    if (!fs) return out;
    v.walk(*fs);
    change_files(v, *fs, v.files());
    v.take(fs->sync());
    change_names(v, *fs, v.directories(), v.files());
    fs->volume().wait_for_deletions();
    v.take(fs->unmount());
    fs.reset();
    return out;
}

}  // namespace uext4::hostile

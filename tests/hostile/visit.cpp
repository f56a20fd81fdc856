#include "tests/hostile/visit.h"

#include "check/check.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

namespace uext4::hostile {

namespace {

const Credentials root = Credentials::root();

class Visitor {
public:
    explicit Visitor(Visit& out) : out_(out) {}

    std::unique_ptr<FileSystem> mount(const std::shared_ptr<BlockDevice>& device, const char* options) {
        auto fs = mount_seed(device, options, &out_.said);
        if (!fs) {
            out_.said.push_back(fs.error().what);
            return nullptr;
        }
        out_.mounted = true;
        return std::move(*fs);
    }

    template <class T>
    std::optional<T> take(Result<T> result) {
        ++out_.steps;
        if (result) return std::move(*result);
        note(result.error());
        return std::nullopt;
    }
    void take(Result<void> result) {
        ++out_.steps;
        if (!result) note(result.error());
    }

    void walk(FileSystem& fs) {
        if (auto top = take(fs.root())) directory(fs, *top, "", 0);
        take(fs.statistics());
        (void)fs.volume().overhead_blocks();
        take(fs.label());
    }
    const std::vector<std::string>& directories() const { return directories_; }
    const std::vector<std::string>& files() const { return files_; }

    void check(FileSystem& fs) {
        if (auto report = take(uext4::check(fs.volume())))
            for (const CheckProblem& p : report->problems) out_.said.push_back(p.where + ": " + p.what);
    }
    void look(FileSystem& fs, const InodeRef& inode) {
        take(fs.attributes(*inode));
        if (auto names = take(fs.list_xattrs(*inode, root, true)))
            for (const std::string& name : *names) take(fs.get_xattr(*inode, name, root, true));
        take(fs.access(*inode, R_OK, Credentials::of(1000, 1000)));
        if (inode->is_symlink()) take(fs.read_link(*inode));
        if (!inode->is_regular()) return;
        std::uint64_t runs = 0;
        take(fs.extents(*inode, 0, ~std::uint64_t{0} >> 1, [&](const Mapping&) { return ++runs < 500; }));
        auto file = take(fs.open(inode, O_RDONLY, root, true));
        if (!file) return;
        std::vector<std::byte> buffer(24 << 10);
        const std::uint64_t size = inode->size_hint();
        for (std::uint64_t at : {std::uint64_t{0}, size / 2, size > 4000 ? size - 4000 : 0})
            take((*file)->read(at, buffer));
        take_position((*file)->seek(0, SEEK_HOLE));
        take_position((*file)->seek(size / 2, SEEK_DATA));
    }

private:
    void take_position(Result<std::uint64_t> result) {
        if (result || result.error().code != ENXIO) take(std::move(result));
    }
    void note(const Error& error) {
        if (error.code == EUCLEAN || error.code == EIO) out_.said.push_back(error.what);
    }

    void directory(FileSystem& fs, const InodeRef& inode, const std::string& path, unsigned depth) {
        if (depth > deepest || entries_ > most_entries) return;
        if (!seen_.insert(inode->number().value).second) return;
        look(fs, inode);
        directories_.push_back(path);
        struct Found {
            std::string name;
        };
        std::vector<Found> found;
        take(fs.read_directory(*inode, 0, [&](const DirectoryEntry& e) {
            if (e.name != "." && e.name != "..") found.push_back({std::string(e.name)});
            return ++entries_ <= most_entries;
        }));
        for (const Found& e : found) {
            auto child = take(fs.lookup(*inode, e.name, root, true));
            if (!child) continue;
            if ((*child)->is_directory()) {
                directory(fs, *child, path + "/" + e.name, depth + 1);
            } else if (looked_.insert((*child)->number().value).second) {
                look(fs, *child);
                files_.push_back(path + "/" + e.name);
            }
        }
        take(fs.lookup(*inode, "no such name", root, true));
    }

    Visit& out_;
    std::uint64_t entries_ = 0;
    std::set<std::uint64_t> seen_, looked_;
    std::vector<std::string> directories_, files_;
};

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
        if (auto unnamed = v.take(fs.create_unnamed(**top, S_IFREG | 0600, root, true)))
            v.take(fs.link(**unnamed, **top, "named", root, true));
}

}  // namespace

bool names_one_of(const std::string& text, const std::vector<std::string>& words) {
    return std::ranges::any_of(words, [&](const std::string& w) { return text.find(w) != std::string::npos; });
}

bool names_a_structure(const std::string& text) {
    if (names_one_of(text, {"superblock", "journal", "s_", "mmp", "no ext2", "features", "orphan", "because of: "}))
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
    fs->volume().finish_deletions();
    v.take(fs->unmount());
    fs.reset();
    return out;
}

Visit operate(const std::shared_ptr<BlockDevice>& device, ConstBytes program) {
    Visit out;
    Visitor v(out);
    auto fs = v.mount(device, "");
    if (!fs) return out;
    v.walk(*fs);
    std::size_t at = 0;
    auto next = [&]() -> unsigned { return at < program.size() ? std::to_integer<unsigned>(program[at++]) : 0u; };
    const std::vector<std::string>&files = v.files(), &directories = v.directories();
    auto file_path = [&]() -> std::string {
        const unsigned n = next();
        if (n < 40) return fmt::format("/new{}", n % 10);
        return files.empty() ? "/none" : files[n % files.size()];
    };
    const std::vector<std::byte> bytes(9000, std::byte{'o'});
    while (at < program.size() && out.steps < 4000) {
        const unsigned what = next() % 12;
        const std::string path = file_path();
        if (what < 6) {
            auto file = v.take(fs->open_path(path, O_CREAT | O_RDWR, 0644, root));
            if (!file) continue;
            const std::uint64_t offset = std::uint64_t{next()} << (next() % 24);
            const std::size_t length = (next() | next() << 8) % bytes.size();
            if (what < 2) v.take((*file)->write(offset, ConstBytes(bytes).first(length)));
            else if (what == 2) v.take((*file)->truncate(offset));
            else if (what == 3)
                v.take((*file)->fallocate(static_cast<int>(next() % 64), offset & ~1023u, (length + 1024) & ~1023u));
            else if (what == 4) v.take((*file)->sync(next() % 2 != 0));
            else v.look(*fs, (*file)->inode_ref());
            continue;
        }
        auto parent = v.take(fs->resolve_parent(path, root));
        if (!parent) continue;
        if (what == 6) v.take(fs->unlink(*parent->directory, parent->name, root, true));
        if (what == 7) {
            auto to = v.take(fs->resolve(directories.empty() || directories[next() % directories.size()].empty()
                                             ? "/"
                                             : directories[next() % directories.size()],
                                         root));
            if (to && (*to)->is_directory())
                v.take(fs->rename(*parent->directory, parent->name, **to, fmt::format("to{}", next() % 8), next() % 3,
                                  root, true));
        }
        if (what == 8)
            v.take(fs->create(*parent->directory, fmt::format("dir{}", next()), S_IFDIR | 0755, 0, {}, root, true));
        if (what == 9) v.take(fs->rmdir(*parent->directory, parent->name, root, true));
        if (what >= 10) {
            auto inode = v.take(fs->resolve(path, root, false));
            if (!inode) continue;
            const std::string name = fmt::format("user.x{}", next() % 5);
            if (what == 10) v.take(fs->set_xattr(**inode, name, ConstBytes(bytes).first(next() * 12), 0, root, true));
            else v.take(fs->remove_xattr(**inode, name, root, true));
        }
    }
    fs->volume().finish_deletions();
    v.take(fs->unmount());
    return out;
}

}  // namespace uext4::hostile

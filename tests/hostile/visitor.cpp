#include "tests/hostile/visitor.h"

#include "check/check.h"
#include "tests/root.h"

#include <fcntl.h>

namespace uext4::hostile {

std::unique_ptr<FileSystem> Visitor::mount(const std::shared_ptr<BlockDevice>& device, const char* options) {
    auto fs = mount_seed(device, options, &out_.said);
    if (!fs) {
        out_.said.push_back(fs.error().what);
        return nullptr;
    }
    out_.mounted = true;
    return std::move(*fs);
}

void Visitor::walk(FileSystem& fs) {
    if (auto top = take(fs.root())) directory(fs, *top, "", 0);
    take(fs.statistics());
    (void)fs.volume().overhead_blocks();
    take(fs.label());
}

void Visitor::check(FileSystem& fs) {
    if (auto report = take(uext4::check(fs.volume())))
        for (const CheckProblem& p : report->problems) out_.said.push_back(p.structure + ": " + p.message);
}

void Visitor::look(FileSystem& fs, const InodeRef& inode) {
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

void Visitor::take_position(Result<std::uint64_t> result) {
    if (result || result.error().code != ENXIO) take(std::move(result));
}

void Visitor::note(const Error& error) {
    if (error.code == EUCLEAN || error.code == EIO) out_.said.push_back(error.what);
}

void Visitor::directory(FileSystem& fs, const InodeRef& inode, const std::string& path, unsigned depth) {
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

}  // namespace uext4::hostile

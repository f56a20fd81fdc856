#include "tests/hostile/ciphered_image.h"

#include "format/inode.h"
#include "format/superblock.h"
#include "tests/hostile/must.h"
#include "tests/hostile/seed_image.h"
#include "tests/root.h"

#include <sys/stat.h>

#include <functional>

namespace uext4::hostile {

namespace {

// Any bytes but the slash and zero.
std::string cipher_text(std::size_t size, unsigned seed) {
    std::string out(size, 'x');
    for (std::size_t i = 0; i < size; ++i) {
        const auto byte = static_cast<unsigned char>(i * 37 + seed * 101 + i / 7);
        if (byte != 0 && byte != '/') out[i] = static_cast<char>(byte);
    }
    return out;
}

void change_inode(MemoryDevice& device, FileSystem& fs, InodeNr number,
                  const std::function<void(format::InodeDisk&)>& change) {
    const format::Geometry& g = fs.volume().geometry();
    const Allocator::InodeLocation place = must(fs.volume().fs().allocator.locate_inode(number));
    const std::uint64_t at = place.block.value * g.block_size + place.offset;
    std::vector<std::byte> raw(g.inode_size);
    must(device.read(at, raw));
    change(view_as<format::InodeDisk>(Bytes(raw)));
    format::set_inode_checksum(g, number, raw);
    must(device.write(at, raw));
}

void encrypt(MemoryDevice& device, FileSystem& fs, Inode& inode) {
    change_inode(device, fs, inode.number(), [&](format::InodeDisk& disk) {
        disk.flags = disk.flags | format::inode_flag::encrypt;
        // The length, then the ciphertext.
        if (inode.is_symlink()) view_as<Le16>(Bytes(std::as_writable_bytes(std::span(disk.block)))) = std::uint16_t{16};
    });
    if (!inode.is_directory()) return;
    std::vector<std::string> names;
    must(fs.read_directory(inode, 0, [&](const DirectoryEntry& entry) {
        if (entry.name != "." && entry.name != "..") names.emplace_back(entry.name);
        return true;
    }));
    for (const std::string& name : names) {
        const InodeRef child = must(fs.lookup(inode, name, root, true));
        encrypt(device, fs, *child);
    }
}

}  // namespace

void fill_secret(FileSystem& fs) {
    const InodeRef top = must(fs.root());
    const auto make = [&](Inode& directory, std::size_t size, unsigned n, mode_t mode, std::string_view target = {}) {
        return must(fs.create(directory, cipher_text(size, n), mode, 0, target, root, true));
    };
    const InodeRef secret = must(fs.create(*top, "secret", S_IFDIR | 0755, 0, {}, root, true));
    for (unsigned n = 0; n < 4; ++n) make(*secret, 16 + n * 16, n, S_IFREG | 0644);
    make(*secret, 224, 4, S_IFREG | 0644);
    make(*secret, 32, 5, S_IFLNK | 0777, std::string(18, 'c'));
    const InodeRef below = make(*secret, 32, 6, S_IFDIR | 0755);
    // Enough for an index each. Not more: names are looked for one by one where nobody can tell their hashes.
    const InodeRef folded = must(fs.create(*top, "folded", S_IFDIR | 0755, 0, {}, root, true));
    for (unsigned n = 10; n < 30; ++n) {
        make(*below, 208, n, S_IFREG | 0600);
        (void)must(
            fs.create(*folded, fmt::format("{}{}", n, std::string(200, 'F')), S_IFREG | 0600, 0, {}, root, true));
    }
}

void cipher(const std::shared_ptr<MemoryDevice>& device) {
    {
        const auto fs = must(mount_seed(device->clone(), "ro"));
        for (const char* path : {"/folded", "/linear"})
            change_inode(*device, *fs, must(fs->resolve(path, root))->number(),
                         [](format::InodeDisk& disk) { disk.flags = disk.flags | format::inode_flag::casefold; });
        encrypt(*device, *fs, *must(fs->resolve("/secret", root)));
    }
    format::SuperBlock super;
    must(device->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    super.feature_incompat = super.feature_incompat | format::incompat::encrypt | format::incompat::casefold;
    super.encoding = std::uint16_t{1};  // utf8-12.1.0
    format::set_super_checksum(super);
    must(device->write(format::super_offset, bytes_of(super)));
}

}  // namespace uext4::hostile

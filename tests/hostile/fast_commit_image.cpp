#include "tests/hostile/fast_commit_image.h"

#include "format/superblock.h"
#include "tests/hostile/must.h"
#include "tests/root.h"
#include "volume/journal_location.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

namespace uext4::hostile {

namespace {

namespace j = format::journal;

format::SuperBlock super_of(BlockDevice& device) {
    format::SuperBlock super;
    must(device.read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    return super;
}

std::vector<std::uint64_t> blocks_of_log(const std::shared_ptr<MemoryDevice>& device) {
    auto fs = must(mount_seed(device, "ro,norecovery"));
    std::vector<std::uint64_t> out;
    for (const BlockRun& run : must(locate_journal(fs->volume().inodes(), fs->volume().geometry())))
        for (std::uint64_t i = 0; i < run.count; ++i) out.push_back(run.first.value + i);
    return out;
}

}  // namespace

FastCommitArea FastCommitArea::find(const std::shared_ptr<MemoryDevice>& device) {
    FastCommitArea out;
    const std::vector<std::uint64_t> log = blocks_of_log(device);
    out.block_size = must(format::Geometry::parse(super_of(*device), device->size())).block_size;
    format::JournalSuper super;
    must(device->read(log[0] * out.block_size, std::as_writable_bytes(std::span(&super, 1))));
    out.blocks.assign(log.end() - super.num_fc_blocks.get() + 1, log.end());
    return out;
}
std::vector<std::byte> FastCommitArea::read(BlockDevice& device) const {
    std::vector<std::byte> out(blocks.size() * block_size);
    for (std::size_t i = 0; i < blocks.size(); ++i)
        must(device.read(blocks[i] * block_size, Bytes(out).subspan(i * block_size, block_size)));
    return out;
}
void FastCommitArea::write(BlockDevice& device, ConstBytes bytes) const {
    for (std::size_t at = 0; at < bytes.size() && at / block_size < blocks.size(); at += block_size)
        must(device.write(blocks[at / block_size] * block_size,
                          bytes.subspan(at, std::min<std::size_t>(block_size, bytes.size() - at))));
}
void FastCommitArea::seal(BlockDevice& device) const {
    std::vector<std::byte> bytes = read(device);
    test::seal_fast_commits(bytes, block_size);
    write(device, bytes);
}

FastCommitImage::FastCommitImage(const MemoryDevice& clean)
    : image_(clean.clone()),
      changed_(clean.clone()),
      geometry_(must(format::Geometry::parse(super_of(*image_), image_->size()))),
      writer_(geometry_.block_size, tid) {}

void FastCommitImage::change(const std::function<void(FileSystem&)>& operations) {
    auto fs = must(mount_seed(changed_, ""));
    operations(*fs);
    must(fs->unmount());
}

std::uint32_t FastCommitImage::number(const std::string& path) {
    auto fs = must(mount_seed(changed_, "ro"));
    return static_cast<std::uint32_t>(must(fs->resolve(path, root, false))->number().value);
}

std::vector<std::byte> FastCommitImage::raw_inode(std::uint32_t number) {
    auto fs = must(mount_seed(changed_, "ro"));
    const Allocator::InodeLocation place = must(fs->volume().fs().allocator.locate_inode(InodeNr(number)));
    std::vector<std::byte> raw(geometry_.inode_size);
    must(changed_->read(place.block.value * geometry_.block_size + place.offset, raw));
    return raw;
}

void FastCommitImage::inode(const std::string& path) {
    const std::uint32_t n = number(path);
    writer_.inode(n, raw_inode(n));
}

void FastCommitImage::ranges(const std::string& path) {
    auto fs = must(mount_seed(changed_, "ro"));
    InodeRef inode = must(fs->resolve(path, root, false));
    std::vector<MappedRun> runs;
    {
        MutexLock map(inode->map_lock);
        must(inode->map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
            runs.push_back(run);
            return true;
        }));
    }
    std::vector<std::byte> block(geometry_.block_size);
    for (const MappedRun& run : runs) {
        writer_.add_range(static_cast<std::uint32_t>(inode->number().value),
                          static_cast<std::uint32_t>(run.logical.value),
                          static_cast<std::uint32_t>(run.count) + (run.unwritten ? 32768 : 0), run.physical.value);
        for (std::uint64_t i = 0; i < run.count; ++i) {
            must(changed_->read((run.physical.value + i) * geometry_.block_size, block));
            must(image_->write((run.physical.value + i) * geometry_.block_size, block));
        }
    }
}

void FastCommitImage::name(format::FastCommitTagType type, const std::string& parent, std::uint32_t inode,
                           std::string_view text) {
    writer_.name(type, number(parent), inode, text);
}

std::shared_ptr<MemoryDevice> FastCommitImage::crashed() const {
    std::shared_ptr<MemoryDevice> out = image_->clone();
    const std::uint64_t at = blocks_of_log(out)[0] * geometry_.block_size;
    format::JournalSuper log;
    must(out->read(at, std::as_writable_bytes(std::span(&log, 1))));
    log.feature_incompat = log.feature_incompat | j::incompat_fast_commit;
    if (log.num_fc_blocks == 0u) log.num_fc_blocks = 64u;
    log.start = 1u;
    log.sequence = tid;
    if (log.checksum_v2or3()) log.checksum = format::journal_super_checksum(log);
    must(out->write(at, bytes_of(log)));
    FastCommitArea::find(out).write(*out, writer_.bytes());
    format::SuperBlock super = super_of(*out);
    super.feature_incompat = super.feature_incompat | format::incompat::recover;
    format::set_super_checksum(super);
    must(out->write(format::super_offset, bytes_of(super)));
    return out;
}

std::shared_ptr<MemoryDevice> clean_fast_commit_image(std::string_view features) {
    const std::string path = fmt::format("/dev/shm/uext4-fast-{}", ::getpid());
    const std::string command = fmt::format(
        "E2FSPROGS_FAKE_TIME=1500000000 mke2fs -q -F -b 1024 -N 512 -t ext4 -I 256 -g 4096 -J "
        "size=1,fast_commit_size=64 -O fast_commit,{} -U 01234567-89ab-cdef-0123-456789abcdef "
        "-E lazy_itable_init=0,hash_seed=01234567-89ab-cdef-0123-456789abcdef {} 12M 1>&2",
        features, path);
    const int status = std::system(command.c_str());
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fmt::print(stderr, "fast commit image: failed: {}\n", command);
        std::abort();
    }
    std::shared_ptr<MemoryDevice> device = must(MemoryDevice::load(path));
    ::unlink(path.c_str());
    auto fs = must(mount_seed(device, ""));
    const auto write = [&](const std::string& name, std::uint64_t at, std::size_t size) {
        std::vector<std::byte> data(size);
        for (std::size_t i = 0; i < size; ++i) data[i] = static_cast<std::byte>(i * 7 + at + size);
        must(must(fs->open_path(name, O_CREAT | O_RDWR, 0644, root))->write(at, data));
    };
    const InodeRef top = must(fs->root());
    (void)must(fs->create(*top, "folder", S_IFDIR | 0755, 0, {}, root, true));
    (void)must(fs->create(*top, "goes", S_IFDIR | 0755, 0, {}, root, true));
    for (const char* name : {"/grows", "/shrinks", "/renamed", "/linked", "/removed", "/zeroed", "/folder/inner"})
        write(name, 0, 20000);
    if (features.find("^extent") == features.npos)
        must(must(fs->open_path("/filled", O_CREAT | O_RDWR, 0644, root))->fallocate(0, 0, 20480));
    for (unsigned i = 0; i < 40; ++i) write("/pieces", std::uint64_t{i} * 4096 + 1024, 900);
    must(fs->unmount());
    return device;
}

FastCommitImage everything_of(const MemoryDevice& clean) {
    FastCommitImage out(clean);
    const auto parts = [](FileSystem& fs, const std::string& path) { return must(fs.resolve_parent(path, root)); };
    const auto write = [](FileSystem& fs, const std::string& path, std::uint64_t at, std::size_t size) {
        must(must(fs.open_path(path, O_CREAT | O_RDWR, 0640, root))
                 ->write(at, std::vector<std::byte>(size, static_cast<std::byte>(at + size))));
    };
    // One: what is new.
    out.change([&](FileSystem& fs) {
        write(fs, "/new", 0, 7000);
        must(must(fs.open_path("/new", O_RDWR, 0, root))->fallocate(0, 20480, 8192));
        write(fs, "/grows", 20000, 9000);
        // Blocks that stay where they are and change what they are: unwritten to written, and back.
        write(fs, "/filled", 4096, 8000);
        must(must(fs.open_path("/zeroed", O_RDWR, 0, root))->fallocate(FALLOC_FL_ZERO_RANGE, 4096, 8192));
        const auto made = parts(fs, "/made");
        (void)must(fs.create(*made.directory, "made", S_IFDIR | 0750, 0, {}, root, true));
        write(fs, "/made/file", 0, 3000);
        (void)must(fs.create(*made.directory, "symlink", S_IFLNK | 0777, 0, "where/to", root, true));
    });
    for (const char* path : {"/new", "/made", "/made/file", "/symlink"}) {
        out.inode(path);
        const std::string text(path);
        const std::size_t slash = text.rfind('/');
        out.name(format::fc_create, slash ? text.substr(0, slash) : "/", out.number(path), text.substr(slash + 1));
    }
    for (const char* path : {"/new", "/made/file", "/grows", "/filled", "/zeroed"}) {
        out.ranges(path);
        out.inode(path);
    }
    out.writer().commit();
    // Two: what is moved and cut.
    const std::uint32_t moved = out.number("/renamed"), linked = out.number("/linked");
    out.change([&](FileSystem& fs) {
        const auto top = must(fs.root());
        const InodeRef made = must(fs.resolve("/made", root));
        must(fs.rename(*top, "renamed", *made, "moved", 0, root, true));
        must(fs.link(*must(fs.resolve("/linked", root)), *made, "again", root, true));
        must(must(fs.open_path("/shrinks", O_RDWR, 0, root))->truncate(5000));
        must(must(fs.open_path("/pieces", O_RDWR, 0, root))->truncate(30000));
        fs.volume().wait_for_deletions();
    });
    out.name(format::fc_link, "/made", moved, "moved");
    out.name(format::fc_unlink, "/", moved, "renamed");
    out.name(format::fc_link, "/made", linked, "again");
    out.writer().delete_range(out.number("/shrinks"), 5, 0x7FFFFFFF);
    out.writer().delete_range(out.number("/pieces"), 30, 0x7FFFFFFF);
    // The last block of a file that was cut in it lies elsewhere now.
    for (const char* path : {"/shrinks", "/pieces"}) out.ranges(path);
    for (const char* path : {"/made/moved", "/linked", "/shrinks", "/pieces"}) out.inode(path);
    out.writer().commit();
    // Three: what is gone.
    const std::uint32_t removed = out.number("/removed"), goes = out.number("/goes"),
                        inner = out.number("/folder/inner");
    out.change([&](FileSystem& fs) {
        const auto top = must(fs.root());
        must(fs.unlink(*top, "removed", root, true));
        must(fs.rmdir(*top, "goes", root, true));
        must(fs.rename(*must(fs.resolve("/folder", root)), "inner", *top, "linked", 0, root, true));
        fs.volume().wait_for_deletions();
    });
    out.name(format::fc_unlink, "/", removed, "removed");
    out.name(format::fc_unlink, "/", goes, "goes");
    out.name(format::fc_unlink, "/", linked, "linked");
    out.name(format::fc_link, "/", inner, "linked");
    out.name(format::fc_unlink, "/folder", inner, "inner");
    for (const char* path : {"/made/again", "/linked"}) out.inode(path);
    out.writer().commit();
    return out;
}

}  // namespace uext4::hostile

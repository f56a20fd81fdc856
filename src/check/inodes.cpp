// Inodes: fields, flags, size and blocks, where their blocks lie, short and long symlinks.
#include "check/checker.h"
#include "inode/inline_data.h"

#include <algorithm>
#include <climits>
#include <utility>

namespace uext4 {

namespace {

namespace f = format::inode_flag;
namespace special = format::special_inode;

constexpr std::uint64_t in_block = 60;  // bytes of i_block

bool has_contents(const Inode& inode, bool reserved) {
    return inode.is_regular() || inode.is_directory() || inode.is_symlink() || reserved;
}

}  // namespace

// What no place in the file depends on.
void Checker::check_plain_fields(const Inode& inode, bool reserved, const std::string& where) {
    const auto& disk = inode.disk();
    if (!reserved && inode.links() != 0 && disk.dtime != 0)
        problem(where, "i_dtime is {}, though it has a name", disk.dtime.get());
    const bool without_contents = !reserved && !inode.is_regular() && !inode.is_directory() && !inode.is_symlink();
    if (without_contents && inode.disk_size() != 0)
        problem(where, "i_size is {}, for a device, fifo or socket", inode.disk_size());
    // Where nobody reads the upper half, it has to be 0.
    const bool half = !inode.is_regular() && !(inode.is_directory() && g_.has_incompat(format::incompat::large_dir));
    if (!reserved && half && disk.size_hi != 0)
        problem(where, "i_size's upper half is {}, but this is no regular file", disk.size_hi.get());
    if (inode.is_regular() && inode.disk_size() > 0x7FFFFFFF && !super_.has_ro_compat(format::ro_compat::large_file))
        problem(where, "i_size is {}, but the superblock lacks large_file", inode.disk_size());
    if (inode.xattr_block() && !super_.has_compat(format::compat::ext_attr))
        problem(where, "i_file_acl is {}, but the superblock lacks ext_attr", inode.xattr_block());
}

// What is not in use is 0 in whatever directories name; of the file system's own inodes nobody minds it.
void Checker::check_unused_fields(const Inode& inode, const std::string& where) {
    const auto& disk = inode.disk();
    if (inode.has_flag(f::imagic) && !g_.has_compat(format::compat::imagic))
        problem(where, "i_flags is {:#x}, but the superblock lacks imagic_inodes", inode.flags());
    if (inode.has_flag(f::ea_inode)) return;
    if (disk.obso_faddr != 0) problem(where, "i_faddr is {}, not 0", disk.obso_faddr.get());
    if (g_.hurd) {
        // A fragment's number and size; what follows is the upper half of its mode.
        const std::uint16_t fragment = disk.blocks_hi;
        if (fragment & 0xFF) problem(where, "i_frag is {}, not 0", fragment & 0xFF);
        if (fragment >> 8) problem(where, "i_fsize is {}, not 0", fragment >> 8);
        return;
    }
    if (disk.blocks_hi != 0 && !super_.has_ro_compat(format::ro_compat::huge_file))
        problem(where, "i_blocks' upper half is {}, but the superblock lacks huge_file", disk.blocks_hi.get());
    if (disk.file_acl_hi != 0 && !g_.has_incompat(format::incompat::bit64))
        problem(where, "i_file_acl's upper half is {}, but the superblock lacks 64bit", disk.file_acl_hi.get());
}

void Checker::check_flags(const Inode& inode, const std::string& where) {
    const bool folder = inode.is_directory();
    const bool mapped = inode.is_regular() || folder || inode.is_symlink();
    const struct {
        std::uint32_t flag;
        const char* name;
        bool allowed;
    } rules[] = {{f::extents, "extents", g_.has_incompat(format::incompat::extents) && mapped},
                 {f::inline_data, "inline_data", g_.has_incompat(format::incompat::inline_data) && mapped},
                 {f::encrypt, "encrypt", g_.has_incompat(format::incompat::encrypt) && mapped},
                 {f::casefold, "casefold", g_.has_incompat(format::incompat::casefold) && folder},
                 {f::verity, "verity", g_.has_ro_compat(format::ro_compat::verity) && inode.is_regular()},
                 {f::ea_inode, "ea_inode", g_.has_incompat(format::incompat::ea_inode) && inode.is_regular()},
                 {f::index, "index", folder && !inode.is_inline()}};
    for (const auto& rule : rules)
        if (inode.has_flag(rule.flag) && !rule.allowed)
            problem(where, "i_flags is {:#x}: {} does not go with its kind or with the features", inode.flags(),
                    rule.name);
}

// Those before the first of the users', but the root.
void Checker::check_reserved(const Inode& inode, const std::string& where) {
    const std::uint64_t ino = inode.number().value;
    const std::uint32_t deleted = inode.disk().dtime;
    // Such a number is the next one of a list of orphans. (Where the clock has been at that time, it is a time.)
    const auto was_then = [&](std::uint32_t t) { return t != 0 && t < g_.inodes_count; };
    if (deleted != 0 && deleted < g_.inodes_count && !was_then(super_.mtime) && !was_then(super_.mkfs_time))
        problem(where, "i_dtime is {}, as of an orphan, but it is reserved", deleted);
    // Those that are not in use are read without a look at it. One of zeros was never written.
    const ConstBytes raw = inode.raw();
    if (inode.mode() == 0 && inode.links() == 0 && !format::inode_checksum_ok(g_, inode.number(), raw) &&
        std::ranges::any_of(raw, [](std::byte b) { return b != std::byte{0}; }))
        problem(where, "bad checksum");
    const bool quota = ino == g_.user_quota_inode || ino == g_.group_quota_inode;
    const bool resize = ino == special::resize && g_.has_compat(format::compat::resize_inode);
    if (ino == g_.journal_inode || quota || resize) {
        if (!inode.is_regular()) problem(where, "i_mode is {:#o}: no regular file", inode.mode());
        return;
    }
    const bool may_be_file = ino == special::boot_loader;
    if (inode.mode() != 0 && !(may_be_file && inode.is_regular()))
        problem(where, "i_mode is {:#o}, but it is reserved and not in use", inode.mode());
    const bool bad_blocks = ino == special::bad_blocks;
    // Of the others that are not in use, nobody minds a count.
    const bool counted =
        bad_blocks || ino == special::user_quota || ino == special::group_quota || ino == special::journal;
    if (counted && inode.links() != 0)
        problem(where, "i_links_count is {}, but it is reserved{}", inode.links(), bad_blocks ? "" : " and not in use");
    const std::uint16_t user = inode.disk().uid_lo, group = inode.disk().gid_lo;
    if (bad_blocks && (user != 0 || group != 0))
        problem(where, "it belongs to user {}, group {}, but it is reserved", user, group);
}

void Checker::check_map(Inode& inode, Blocks& blocks, const std::string& where) {
    Result<void> r = inode.map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
        blocks.data += run.count;
        blocks.last = run.logical.value + run.count - 1;
        if (!run.unwritten) blocks.last_written = blocks.last;
        mark_used(run.physical, run.count, inode.number().value);
        return blocks.data <= g_.blocks_count;
    });
    // Extents can name the same blocks again and again, far longer than anybody wants to read.
    if (r && blocks.data > g_.blocks_count)
        r = fail(EUCLEAN, "it names more blocks than the {} of the file system", g_.blocks_count);
    if (r)
        r = inode.map().for_each_tree_block([&](BlockNr b) {
            ++blocks.tree;
            mark_used(b, 1, inode.number().value);
            return true;
        });
    blocks.whole = static_cast<bool>(r);
    if (!r) problem(where, "{}", r.error().what);
}

void Checker::check_size(const Inode& inode, const Blocks& blocks, const std::string& where) {
    if (inode.is_directory()) {
        // A directory is its blocks, all of them.
        if (blocks.data != 0 && inode.disk_size() != (blocks.last + 1) * g_.block_size)
            problem(where, "i_size is {}, its last block ends at {}", inode.disk_size(),
                    (blocks.last + 1) * g_.block_size);
        return;
    }
    // A tree of hashes lies past the end on purpose, and what is not written may.
    if (inode.is_regular() && !inode.has_flag(f::verity) && inode.disk_size() < blocks.last_written * g_.block_size)
        problem(where, "i_size is {}, block {} of it has contents", inode.disk_size(), blocks.last_written);
}

// The target, and the zero that ends it.
void Checker::check_symlink(Inode& inode, bool fast, const std::string& where) {
    if (inode.has_flag(f::encrypt)) return;
    const std::uint64_t size = inode.disk_size();
    ConstBytes bytes;
    std::vector<std::byte> in_inode;
    BufferRef buffer;
    if (size == 0 || size >= PATH_MAX || size >= g_.block_size)
        return problem(where, "i_size is {}, for a symlink", size);
    if (inode.is_inline()) {
        Result<std::vector<std::byte>> read = read_inline_data(inode);
        if (!read) return problem(where, "{}", read.error().what);
        in_inode = std::move(*read);
        bytes = in_inode;
    } else if (fast) {
        if (inode.uses_extents()) problem(where, "i_flags has extents, but its target lies in the inode");
        bytes = inode.i_block();
        if (size >= bytes.size()) return problem(where, "i_size is {}, but it has no block for its target", size);
    } else {
        Result<MappedRun> run = inode.map().lookup(LogicalBlock(0), 1);
        if (!run) return;  // said with its map
        if (run->hole() || run->unwritten) return problem(where, "block 0 with its target is a hole");
        Result<BufferRef> read = fs_.buffers.read(run->physical, "symlink target");
        if (!read) return problem(where, "{}", read.error().what);
        buffer = std::move(*read);
        bytes = std::as_const(*buffer).data();
    }
    const auto end = std::ranges::find(bytes, std::byte{0});
    if (static_cast<std::uint64_t>(end - bytes.begin()) != size)
        problem(where, "i_size is {}, its target has {} bytes", size, end - bytes.begin());
}

bool Checker::check_inode(InodeNr ino) {
    const std::string where = fmt::format("inode {}", ino);
    Result<InodeRef> found = volume_.inodes().get(ino, true);
    const bool reserved = ino.value < g_.first_inode && ino.value != special::root;
    if (!found) {
        const bool in_use = found.error().code != ESTALE;
        if (in_use) damaged_.insert(ino.value);
        if (!reserved || found.error().code == EUCLEAN)
            problem(where, "{}{}", found.error().what, in_use ? " (in use: its blocks are not known)" : "");
        return false;
    }
    Inode& inode = **found;
    ++report_.inodes;
    if (inode.links() == 0 && !reserved) problem(where, "in use without a link");
    check_plain_fields(inode, reserved, where);
    if (inode.mode() != 0) check_flags(inode, where);
    if (reserved) check_reserved(inode, where);
    if (!g_.is_own_inode(ino) && ino.value != super_.prj_quota_inum) check_unused_fields(inode, where);
    links_[ino.value] = inode.links();
    if (inode.has_flag(f::ea_inode)) value_inodes_.insert(ino.value);
    metadata_clusters_.clear();
    Blocks blocks;
    std::vector<Attribute> in_inodes;
    {
        MutexLock map(inode.map_lock);
        check_attributes(inode, blocks, in_inodes, where);
        const std::uint64_t for_attributes = blocks.attributes + metadata_clusters_.size() * g_.cluster_ratio;
        const std::uint64_t charged = for_attributes * (g_.block_size / 512);
        // Without blocks a symlink's target lies in the inode; a long one has lost them.
        const bool in_itself = inode.is_inline() || (inode.is_symlink() && inode.block_count_512() <= charged &&
                                                     (!inode.uses_extents() || inode.size() < in_block));
        const bool resize = ino.value == special::resize;
        if (resize) check_resize_inode(inode, where);
        if (has_contents(inode, reserved) && !in_itself && !resize) {
            check_map(inode, blocks, where);
            if (blocks.whole) check_size(inode, blocks, where);
        }
        if (inode.is_symlink()) check_symlink(inode, in_itself, where);
        else if (inode.is_inline()) {
            const Result<std::vector<std::byte>> contents = read_inline_data(inode);
            if (!contents) problem(where, "{}", contents.error().what);
            else if (inode.is_directory() && inode.disk_size() != contents->size())
                problem(where, "i_size is {}, but the names in the inode take {} bytes", inode.disk_size(),
                        contents->size());
        }
        // Of the Hurd, a block of its own, which may be charged or not.
        const std::uint64_t translator = g_.hurd ? inode.disk().version_lo.get() : 0;
        if (translator != 0) mark_used(BlockNr(translator), 1, ino.value);
        // Clusters count as a whole, those of values in other inodes too.
        const std::uint64_t named = g_.cluster_ratio == 1
                                        ? blocks.data + blocks.tree + blocks.attributes
                                        : metadata_clusters_.size() * g_.cluster_ratio + blocks.attributes;
        const std::uint64_t sectors = named * (g_.block_size / 512);
        const bool charged_more = translator != 0 && sectors + g_.block_size / 512 == inode.block_count_512();
        if (!resize && ino.value != special::bad_blocks && sectors != inode.block_count_512() && !charged_more)
            problem(where, "i_blocks is {}, it has {}", inode.block_count_512(), sectors);
        count_usage(inode, blocks);
    }
    check_values(in_inodes, where);
    return inode.is_directory();
}

// One that the bitmap has as free, in the part of the table that has been in use.
void Checker::check_free_inode(InodeNr ino) {
    const std::string where = fmt::format("inode {}", ino);
    const Result<Allocator::InodeLocation> place = fs_.allocator.locate_inode(ino);
    if (!place) return;  // said of its group
    Result<BufferRef> table = fs_.buffers.read(place->block, "inode table");
    if (!table) return problem(where, "{}", table.error().what);
    const ConstBytes raw = std::as_const(**table).data().subspan(place->offset, g_.inode_size);
    if (std::ranges::all_of(raw, [](std::byte b) { return b == std::byte{0}; })) return;
    if (!format::inode_checksum_ok(g_, ino, raw)) problem(where, "bad checksum (not in use)");
    if (const std::uint16_t links = view_as<Le16>(raw, offsetof(format::InodeDisk, links_count)))
        problem(where, "i_links_count is {}, but the bitmap has it as free", links);
}

}  // namespace uext4

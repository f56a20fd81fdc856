#include "inode/xattr_block.h"

#include "inode/value_inode.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

constexpr std::uint32_t first_entry = sizeof(format::XattrBlockHeader);

Result<BufferRef> verified_block(Inode& inode) {
    const BlockNr block = inode.xattr_block();
    const std::string where = fmt::format("inode {}: attribute block {}", inode.number(), block);
    const auto& g = inode.fs().geometry;
    if (inode.fs().allocator.has_invalid_block(inode.number(), block)) return fail(EUCLEAN, "{}: no such block", where);
    BufferRef buffer = TRY(inode.fs().buffers.read(block, "attribute block"));
    MutexLock guard(buffer->lock);
    if (buffer->kind() == BlockKind::xattr) return buffer;
    const auto& header = view_as<format::XattrBlockHeader>(std::as_const(*buffer).data());
    if (header.magic != format::xattr_magic) return fail(EUCLEAN, "{}: h_magic is {:#x}", where, header.magic.get());
    if (header.blocks != 1) return fail(EUCLEAN, "{}: h_blocks is {}", where, header.blocks.get());
    if (header.refcount == 0 || header.refcount > format::xattr_max_references)
        return fail(EUCLEAN, "{}: h_refcount is {}", where, header.refcount.get());
    if (!format::xattr_block_checksum_ok(g, block, buffer->data())) return fail(EUCLEAN, "{}: bad checksum", where);
    TRY(format::parse_xattrs(buffer->data(), first_entry, where));
    buffer->set_kind(BlockKind::xattr);
    return buffer;
}

Result<BufferRef> open_block(Inode& inode) { return with_report(inode.fs(), verified_block(inode)); }

BlockNr cluster_of(const FsContext& fs, BlockNr block) {
    const std::uint64_t first = fs.geometry.first_data_block;
    return BlockNr(first + round_down(block.value - first, fs.geometry.cluster_ratio));
}

bool is_shared(const BufferRef& buffer) {
    MutexLock guard(buffer->lock);
    return view_as<format::XattrBlockHeader>(std::as_const(*buffer).data()).refcount != 1;
}

// One user less; true when there is none left, and the block was freed. Whoever sees the count at 1 is its only user,
// so that the count cannot change any more.
Result<bool> give_up_block(Handle& handle, FsContext& fs, const BufferRef& buffer) {
    TRY(handle.get_write_access(buffer));
    {
        MutexLock guard(buffer->lock);
        auto& header = view_as<format::XattrBlockHeader>(buffer->data());
        if (header.refcount != 1) {
            header.refcount = header.refcount - 1;
            format::set_xattr_block_checksum(fs.geometry, buffer->block(), buffer->data());
            return false;
        }
    }
    const std::uint32_t ratio = fs.geometry.cluster_ratio;
    TRY(handle.revoke(buffer->block()));
    TRY(fs.allocator.free(handle, cluster_of(fs, buffer->block()), ratio));
    return true;
}

// The contents of a block, but for its checksum. Items are sorted as the format demands.
Result<std::vector<std::byte>> lay_out(Inode& inode, std::vector<format::XattrToStore>& items) {
    std::ranges::sort(items, [](const auto& a, const auto& b) {
        if (a.index != b.index) return a.index < b.index;
        if (a.name.size() != b.name.size()) return a.name.size() < b.name.size();
        return a.name < b.name;
    });
    std::vector<std::byte> out(inode.fs().block_size());
    std::vector<std::uint32_t> kept, hashes;
    for (const auto& item : items) kept.push_back(item.stored_hash);
    if (!format::layout_xattrs(out, first_entry, items, true))
        return fail(ENOSPC, "inode {}: attributes do not fit in a block", inode.number());
    std::size_t at = first_entry;
    for (std::size_t i = 0; i < items.size(); ++i) {
        auto& e = view_as<format::XattrEntry>(Bytes(out), at);
        // The hash of a value that was not read stays as it is.
        if (items[i].value_inode && items[i].value_hash == 0) e.hash = items[i].stored_hash = kept[i];
        hashes.push_back(items[i].stored_hash);
        at += sizeof(format::XattrEntry) + round_up(e.name_len, 4);
    }
    auto& header = view_as<format::XattrBlockHeader>(Bytes(out));
    header.magic = format::xattr_magic;
    header.refcount = 1u;
    header.blocks = 1u;
    header.hash = format::xattr_block_hash(hashes);
    return out;
}

std::vector<std::uint32_t> value_inodes(const std::vector<format::XattrToStore>& items) {
    std::vector<std::uint32_t> out;
    for (const auto& item : items)
        if (item.value_inode) out.push_back(item.value_inode);
    return out;
}

// Those of `all` that are (`wanted`) or are not in `others`. An inode counts once for each entry that names it, several
// of one block too.
std::vector<std::uint32_t> select(const std::vector<std::uint32_t>& all, std::vector<std::uint32_t> others,
                                  bool wanted) {
    std::vector<std::uint32_t> out;
    for (std::uint32_t n : all) {
        const auto other = std::ranges::find(others, n);
        const bool found = other != others.end();
        if (found) others.erase(other);
        if (found == wanted) out.push_back(n);
    }
    return out;
}

}  // namespace

Result<std::vector<format::XattrToStore>> read_xattr_block(Inode& inode) {
    std::vector<format::XattrToStore> out;
    if (!inode.xattr_block()) return out;
    BufferRef buffer = TRY(open_block(inode));
    MutexLock guard(buffer->lock);
    for (const auto& item : TRY(format::parse_xattrs(buffer->data(), first_entry,
                                                     fmt::format("inode {}: attribute block", inode.number()))))
        out.push_back({item.index,
                       std::string(item.name),
                       {item.value.begin(), item.value.end()},
                       item.value_inode,
                       item.value_inode ? item.value_size : 0,
                       0,
                       item.hash});
    return out;
}

Result<bool> is_xattr_block_unshared(Inode& inode) {
    if (!inode.xattr_block()) return false;
    return !is_shared(TRY(open_block(inode)));
}

bool xattr_block_fits(const FsContext& fs, const std::vector<format::XattrToStore>& items) {
    std::uint64_t needed = first_entry + 4;
    for (const auto& item : items) needed += format::xattr_space(item);
    return needed <= fs.geometry.block_size;
}

Result<std::vector<std::uint32_t>> write_xattr_block(Handle& handle, Inode& inode,
                                                     std::vector<format::XattrToStore> items, bool may_use_reserve) {
    FsContext& fs = inode.fs();
    const std::uint32_t ratio = fs.geometry.cluster_ratio;
    if (items.empty() && !inode.xattr_block()) return std::vector<std::uint32_t>();
    const std::vector<std::uint32_t> former = value_inodes(TRY(read_xattr_block(inode)));
    BufferRef old;
    if (inode.xattr_block()) old = TRY(open_block(inode));
    // All that is read, before anything changes.
    TRY(inode.get_write_access(handle));
    std::vector<BufferRef> held;
    if (old) held = TRY(fs.allocator.pin_blocks_for_free(cluster_of(fs, old->block()), ratio));

    if (items.empty()) {
        const bool last = TRY(give_up_block(handle, fs, old));
        inode.set_xattr_block(BlockNr());
        TRY(inode.add_blocks(handle, -static_cast<std::int64_t>(ratio)));
        return last ? former : std::vector<std::uint32_t>();
    }
    const std::vector<std::byte> contents = TRY(lay_out(inode, items));
    const std::vector<std::uint32_t> named = value_inodes(items);
    auto fill = [&](const BufferRef& buffer) {
        MutexLock guard(buffer->lock);
        std::memcpy(buffer->data().data(), contents.data(), contents.size());
        format::set_xattr_block_checksum(fs.geometry, buffer->block(), buffer->data());
        buffer->set_kind(BlockKind::xattr);
    };
    if (old && !is_shared(old)) {
        TRY(handle.get_write_access(old));
        fill(old);
        return select(former, named, false);
    }

    // Values in inodes count the entries of blocks that name them: the copy's count before the old block can lose its
    // last user to somebody else.
    const std::vector<std::uint32_t> copied = select(named, former, true);
    std::vector<InodeRef> values;
    for (std::uint32_t number : copied) values.push_back(TRY(get_value_inode(handle, inode.table(), InodeNr(number))));
    const BlockNr goal = fs.allocator.goal_for(inode.number());
    const BlockNr block = TRY(fs.allocator.allocate_metadata(handle, goal, nullptr, may_use_reserve));
    Result<BufferRef> fresh = fs.buffers.get(block, "attribute block");
    if (Result<void> access = fresh ? handle.get_create_access(*fresh) : fail(fresh.error()); !access) {
        (void)fs.allocator.free(handle, cluster_of(fs, block), ratio);
        return fail(access.error());
    }
    fill(*fresh);
    for (std::uint32_t number : copied) TRY(add_value_inode_reference(handle, inode.table(), InodeNr(number)));
    std::vector<std::uint32_t> surplus;
    if (old && TRY(give_up_block(handle, fs, old))) surplus = former;
    inode.set_xattr_block(block);
    TRY(inode.add_blocks(handle, old ? 0 : static_cast<std::int64_t>(ratio)));
    return surplus;
}

}  // namespace uext4

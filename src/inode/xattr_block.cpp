#include "inode/xattr_block.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

constexpr std::uint32_t first_entry = sizeof(format::XattrBlockHeader);

Result<BufferRef> open_block(Inode& inode) {
    const BlockNr block = inode.xattr_block();
    const std::string where = fmt::format("inode {}: attribute block {}", inode.number(), block);
    const auto& g = inode.fs().geometry;
    if (!g.valid_block(block) || inode.fs().allocator.is_system_block(block)) return fail(EUCLEAN, "{}: no such block", where);
    BufferRef buffer = TRY(inode.fs().buffers.read(block, "attribute block"));
    MutexLock guard(buffer->lock);
    if (buffer->kind() == BlockKind::xattr) return buffer;
    const auto& header = view_as<format::XattrBlockHeader>(std::as_const(*buffer).data());
    if (header.magic != format::xattr_magic) return fail(EUCLEAN, "{}: h_magic is {:#x}", where, header.magic.get());
    if (header.blocks != 1) return fail(EUCLEAN, "{}: h_blocks is {}", where, header.blocks.get());
    if (header.refcount == 0 || header.refcount > format::xattr_max_references) return fail(EUCLEAN, "{}: h_refcount is {}", where, header.refcount.get());
    if (!format::xattr_block_checksum_ok(g, block, buffer->data())) return fail(EUCLEAN, "{}: bad checksum", where);
    TRY(format::parse_xattrs(buffer->data(), first_entry, where));
    buffer->set_kind(BlockKind::xattr);
    return buffer;
}

Result<void> give_up_block(Handle& handle, Inode& inode) {
    BufferRef buffer = TRY(open_block(inode));
    TRY(handle.write_access(buffer));
    bool last = false;
    {
        MutexLock guard(buffer->lock);
        auto& header = view_as<format::XattrBlockHeader>(buffer->data());
        last = header.refcount == 1;
        if (!last) {
            header.refcount = header.refcount - 1;
            format::set_xattr_block_checksum(inode.fs().geometry, buffer->block(), buffer->data());
        }
    }
    const BlockNr block = buffer->block();
    const std::uint32_t ratio = inode.fs().geometry.cluster_ratio;
    if (last) {
        TRY(handle.forget(block));
        TRY(inode.fs().allocator.free(handle, BlockNr(round_down(block.value, ratio)), ratio));
    }
    inode.set_xattr_block(BlockNr());
    return inode.add_blocks(handle, -static_cast<std::int64_t>(ratio));
}

}  // namespace

Result<std::vector<format::XattrToStore>> read_xattr_block(Inode& inode) {
    std::vector<format::XattrToStore> out;
    if (!inode.xattr_block()) return out;
    BufferRef buffer = TRY(open_block(inode));
    MutexLock guard(buffer->lock);
    for (const auto& item : TRY(format::parse_xattrs(buffer->data(), first_entry, fmt::format("inode {}: attribute block", inode.number()))))
        out.push_back({item.index, std::string(item.name), {item.value.begin(), item.value.end()}, item.value_inode,
                       item.value_inode ? item.value_size : 0, 0, item.hash});
    return out;
}

bool xattr_block_fits(const FsContext& fs, const std::vector<format::XattrToStore>& items) {
    std::uint64_t needed = first_entry + 4;
    for (const auto& item : items) needed += format::xattr_space(item);
    return needed <= fs.geometry.block_size;
}

Result<void> write_xattr_block(Handle& handle, Inode& inode, std::vector<format::XattrToStore> items) {
    FsContext& fs = inode.fs();
    if (items.empty()) return inode.xattr_block() ? give_up_block(handle, inode) : Result<void>();
    std::ranges::sort(items, [](const auto& a, const auto& b) {
        if (a.index != b.index) return a.index < b.index;
        if (a.name.size() != b.name.size()) return a.name.size() < b.name.size();
        return a.name < b.name;
    });
    std::vector<std::byte> scratch(fs.block_size());
    std::vector<std::uint32_t> kept;
    for (const auto& item : items) kept.push_back(item.stored_hash);
    if (!format::layout_xattrs(scratch, first_entry, items, true))
        return fail(ENOSPC, "inode {}: attributes do not fit in a block", inode.number());
    std::vector<std::uint32_t> hashes;
    std::size_t at = first_entry;
    for (std::size_t i = 0; i < items.size(); ++i) {
        auto& e = view_as<format::XattrEntry>(Bytes(scratch), at);
        if (items[i].value_inode && items[i].value_hash == 0) {
            e.hash = kept[i];
            items[i].stored_hash = kept[i];
        }
        hashes.push_back(items[i].stored_hash);
        at += sizeof(format::XattrEntry) + round_up(e.name_len, 4);
    }
    auto& header = view_as<format::XattrBlockHeader>(Bytes(scratch));
    header.magic = format::xattr_magic;
    header.refcount = 1u;
    header.blocks = 1u;
    header.hash = format::xattr_block_hash(hashes);

    BufferRef buffer;
    if (inode.xattr_block()) {
        buffer = TRY(open_block(inode));
        bool shared = false;
        {
            MutexLock guard(buffer->lock);
            shared = view_as<format::XattrBlockHeader>(buffer->data()).refcount != 1;
        }
        if (shared) {
            TRY(give_up_block(handle, inode));
            buffer = BufferRef();
        }
    }
    if (buffer) {
        TRY(handle.write_access(buffer));
    } else {
        const BlockNr block = TRY(fs.allocator.allocate_metadata(handle, fs.allocator.goal_for(inode.number()), nullptr, true));
        buffer = TRY(fs.buffers.get(block, "attribute block"));
        TRY(handle.create_access(buffer));
        inode.set_xattr_block(block);
        TRY(inode.add_blocks(handle, fs.geometry.cluster_ratio));
    }
    format::set_xattr_block_checksum(fs.geometry, buffer->block(), scratch);
    MutexLock guard(buffer->lock);
    std::memcpy(buffer->data().data(), scratch.data(), scratch.size());
    buffer->set_kind(BlockKind::xattr);
    return {};
}

}  // namespace uext4

#include "inode/value_inode.h"

#include "format/xattr.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

// The count lives in i_ctime (upper half) and i_version (lower half).
std::uint64_t references(const Inode& inode) {
    return std::uint64_t{inode.disk().ctime.get()} << 32 | inode.disk().version_lo.get();
}
void set_references(Inode& inode, std::uint64_t n) {
    inode.disk().ctime = static_cast<std::uint32_t>(n >> 32);
    inode.disk().version_lo = static_cast<std::uint32_t>(n);
}

Result<std::vector<std::byte>> read_value(const InodeRef& inode, std::uint32_t size) {
    const InodeNr number = inode->number();
    FsContext& fs = inode->fs();
    const std::uint32_t bs = fs.block_size();
    std::vector<std::byte> out(size);
    UniqueLock map = UniqueLock::lock_ordered(inode->map_lock, 1);
    if (inode->disk_size() != size)
        return fail(EUCLEAN, "inode {}: attribute value of {} bytes, expected {}", number, inode->disk_size(), size);
    for (std::uint64_t at = 0; at < size; at += bs) {
        const MappedRun run = TRY(inode->map().lookup(LogicalBlock(at / bs), 1));
        if (run.hole()) return fail(EUCLEAN, "inode {}: attribute value with a hole at block {}", number, at / bs);
        BufferRef buffer = TRY(fs.buffers.read(run.physical, "attribute value"));
        std::memcpy(out.data() + at, buffer->data().data(), std::min<std::uint64_t>(bs, size - at));
    }
    const std::uint32_t hash = format::xattr_value_hash(fs.geometry, out);
    if (inode->disk().atime.get() != hash) return fail(EUCLEAN, "inode {}: attribute value with a bad hash", number);
    return out;
}

}  // namespace

Result<InodeRef> open_value_inode(InodeTable& table, InodeNr number) {
    InodeRef inode = TRY(table.get(number));
    // It may be on its way out, for whoever reads while it is replaced.
    UniqueLock map = UniqueLock::lock_ordered(inode->map_lock, 1);
    if (!inode->has_flag(format::inode_flag::ea_inode) || !inode->is_regular() || inode->is_inline() ||
        inode->links() == 0)
        return fail(EUCLEAN, "inode {}: holds no attribute value", number);
    return inode;
}

Result<std::vector<std::byte>> read_value_inode(const InodeRef& value, std::uint32_t size) {
    return with_report(value->fs(), read_value(value, size));
}

Result<ValueInode> create_value_inode(Handle& handle, InodeTable& table, Inode& owner, ConstBytes value,
                                      bool may_use_reserve) {
    FsContext& fs = owner.fs();
    const std::uint32_t bs = fs.block_size();
    InodeRef inode =
        TRY(table.create(handle, NewInode{owner.number(), S_IFREG | 0600, owner.uid(), owner.gid(), 0, 0}));
    UniqueLock map = UniqueLock::lock_ordered(inode->map_lock, 1);
    std::uint32_t flags = (inode->flags() & ~format::inode_flag::inline_data) | format::inode_flag::ea_inode;
    std::ranges::fill(inode->i_block(), std::byte{0});
    if (fs.geometry.has_incompat(format::incompat::extents)) {
        flags |= format::inode_flag::extents;
        initialise_extent_root(inode->i_block());
    }
    inode->set_flags(flags);
    if (const std::size_t body = format::classic_inode_size + inode->disk().extra_isize; body < inode->raw().size())
        std::memset(inode->raw().data() + body, 0, inode->raw().size() - body);
    auto fill = [&]() -> Result<void> {
        const std::uint64_t blocks = divide_up(value.size(), bs);
        for (std::uint64_t done = 0; done < blocks;) {
            const BlockNr goal = fs.allocator.goal_for(inode->number());
            Allocation grant = TRY(fs.allocator.allocate(goal, blocks - done, nullptr, may_use_reserve));
            const std::uint64_t n = std::min(grant.count(), blocks - done), counted = grant.count();
            const BlockNr first = grant.first();
            TRY(fs.allocator.mark_used(handle, grant));
            const MappedRun run{LogicalBlock(done), n, first, false};
            if (Result<void> named = inode->map().insert(handle, run, nullptr, counted); !named) {
                (void)fs.allocator.unmark_used(handle, first, counted);  // nobody names them
                return named;
            }
            for (std::uint64_t i = 0; i < n; ++i) {
                BufferRef buffer = TRY(fs.buffers.get(first + i, "attribute value"));
                TRY(handle.get_create_access(buffer));
                const std::uint64_t at = (done + i) * bs;
                std::memcpy(buffer->data().data(), value.data() + at, std::min<std::uint64_t>(bs, value.size() - at));
            }
            done += n;
        }
        return {};
    };
    const Result<void> filled = fill();
    const std::uint32_t hash = format::xattr_value_hash(fs.geometry, value);
    inode->set_size(value.size());
    inode->set_disk_size(value.size());
    inode->disk().atime = hash;
    set_references(*inode, 1);
    inode->set_links(1);
    TRY(inode->store(handle));
    if (!filled) {
        map.unlock();
        const InodeNr number = inode->number();
        inode = InodeRef();
        (void)drop_value_inode_reference(handle, table, number);
        return fail(filled.error());
    }
    return ValueInode{inode->number(), hash};
}

Result<void> add_value_inode_reference(Handle& handle, InodeTable& table, InodeNr number) {
    InodeRef inode = TRY(open_value_inode(table, number));
    UniqueLock map = UniqueLock::lock_ordered(inode->map_lock, 1);
    TRY(inode->get_write_access(handle));
    set_references(*inode, references(*inode) + 1);
    return inode->store(handle);
}

Result<InodeRef> get_value_inode(Handle& handle, InodeTable& table, InodeNr number) {
    InodeRef inode = TRY(open_value_inode(table, number));
    UniqueLock map = UniqueLock::lock_ordered(inode->map_lock, 1);
    TRY(inode->get_write_access(handle));
    return inode;
}

Result<PinnedValueInode> pin_for_drop(Handle& handle, InodeTable& table, InodeNr number) {
    PinnedValueInode held {
        .inode = TRY(get_value_inode(handle, table, number))
        , .buffers = {}
    };
    Allocator& allocator = held.inode->fs().allocator;
    Result<void> read;
    const auto hold = [&](Result<std::vector<BufferRef>> buffers) {
        if (!buffers) read = fail(buffers.error());
        else held.buffers.insert(held.buffers.end(), buffers->begin(), buffers->end());
        return read.has_value();
    };
    hold(allocator.pin_blocks_for_free(number));
    UniqueLock map = UniqueLock::lock_ordered(held.inode->map_lock, 1);
    TRY(held.inode->map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
        return hold(allocator.pin_blocks_for_free(run.physical, run.count));
    }));
    TRY(held.inode->map().for_each_tree_block(
        [&](BlockNr block) { return hold(allocator.pin_blocks_for_free(block, 1)); }));
    TRY(std::move(read));
    return held;
}

Result<void> drop_value_inode_reference(Handle& handle, InodeTable& table, InodeNr number) {
    InodeRef inode = TRY(open_value_inode(table, number));
    {
        UniqueLock map = UniqueLock::lock_ordered(inode->map_lock, 1);
        TRY(inode->get_write_access(handle));
        const std::uint64_t n = references(*inode);
        if (n > 1) {
            set_references(*inode, n - 1);
            return inode->store(handle);
        }
        set_references(*inode, 0);
        (void)handle.extend(2 * inode->map().credits());
        LogicalBlock end = inode->map().max_block();
        while (end.value != 0) {
            const LogicalBlock reached = TRY(inode->map().remove(handle, LogicalBlock(0), end, nullptr));
            if (reached.value != 0 && (reached == end || !handle.extend(2 * inode->map().credits())))
                return fail(ENOSPC, "inode {}: no room in the journal to free it", number);
            end = reached;
        }
    }
    return table.free_inode(handle, *inode);
}

}  // namespace uext4

// The flag `e` of a live file: its map is built anew in the other form, beside the old one, and takes its place in one
// transaction. No block of contents moves, and a crash leaves one map or the other.
#include "extent/tree_blocks.h"
#include "file/file_io.h"
#include "format/extent.h"
#include "inode/attributes.h"

#include <algorithm>
#include <array>

namespace uext4 {

namespace {

// A map that no inode names yet. It goes by the inode's number, as its blocks' checksums will have to, and has a root
// of its own.
class NewMap final : public ExtentOwner {
public:
    NewMap(const Inode& inode, bool extents) : inode_(inode), extents_(extents) {
        if (extents) initialise_extent_root(root_);
    }
    InodeNr number() const override { return inode_.number(); }
    std::uint32_t generation() const override { return inode_.generation(); }
    bool uses_extents() const override { return extents_; }
    bool has_journaled_data() const override { return inode_.has_journaled_data(); }
    Result<void> revoke_data(Handle& handle, BlockNr first, std::uint64_t count) const override {
        return inode_.revoke_data(handle, first, count);
    }
    Bytes i_block() override { return root_; }
    Result<void> get_write_access(Handle&) override { return {}; }
    Result<void> store_i_block(Handle&) override { return {}; }
    Result<void> add_blocks(Handle&, std::int64_t fs_blocks) override {
        blocks_ += fs_blocks;
        return {};
    }
    void note_corruption(const Error& error) const override { inode_.note_corruption(error); }
    std::int64_t blocks() const { return blocks_; }

private:
    const Inode& inode_;
    const bool extents_;
    alignas(8) std::array<std::byte, sizeof(format::InodeDisk::block)> root_{};
    std::int64_t blocks_ = 0;
};

// What the new map has to say, and the blocks that the old one lies in.
struct Contents {
    std::vector<MappedRun> runs;  // in order, none adjoins the next
    std::vector<BlockNr> old_blocks;
};

// No map of these runs that is built from the front has more blocks.
std::uint64_t most_extent_blocks(const std::vector<MappedRun>& runs, std::uint32_t block_size) {
    std::uint64_t entries = 0;
    for (const MappedRun& run : runs) entries += divide_up(run.count, std::uint64_t{format::max_written_length});
    const std::uint64_t in_root = format::extent_capacity(sizeof(format::InodeDisk::block));
    const std::uint64_t half = format::extent_capacity(block_size) / 2;
    std::uint64_t blocks = 0;
    // Each level once more for a node that was begun; halves, because nodes split.
    while (entries > in_root) blocks += entries = divide_up(entries, half) + 1;
    return blocks;
}

std::uint64_t most_indirect_blocks(const std::vector<MappedRun>& runs, std::uint32_t block_size) {
    constexpr std::uint64_t direct = 12;
    const std::uint64_t pointers = block_size / 4;
    std::uint64_t arrays = 0, above = 0, next_array = 0, next_above = 0;  // from here on none was counted
    for (const MappedRun& run : runs) {
        const std::uint64_t end = run.logical.value + run.count;
        if (end <= direct) continue;
        const std::uint64_t from = std::max(direct, run.logical.value) - direct;
        const std::uint64_t first = std::max(next_array, from / pointers), last = (end - 1 - direct) / pointers;
        if (first > last) continue;
        arrays += last - first + 1;
        next_array = last + 1;
        const std::uint64_t first_above = std::max(next_above, first / pointers), last_above = last / pointers;
        if (first_above > last_above) continue;
        above += last_above - first_above + 1;
        next_above = last_above + 1;
    }
    // Arrays are counted from the first one, which hangs in the inode: those above may be shifted by one.
    return arrays + above + 2;
}

std::uint64_t most_map_blocks(const std::vector<MappedRun>& runs, bool extents, std::uint32_t block_size) {
    return extents ? most_extent_blocks(runs, block_size) : most_indirect_blocks(runs, block_size);
}

// Ends where the runs make a map of more than `most_blocks`, whatever follows: what is returned does so as well then.
Result<Contents> contents_of(Inode& inode, bool extents, std::uint64_t most_blocks) {
    Contents out;
    std::size_t next_look = 1024;
    bool too_many = false;
    TRY(inode.map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
        MappedRun* last = out.runs.empty() ? nullptr : &out.runs.back();
        const bool goes_on = last && last->logical + last->count == run.logical &&
                             last->physical + last->count == run.physical && last->unwritten == run.unwritten;
        if (goes_on) last->count += run.count;
        else out.runs.push_back(run);
        if (out.runs.size() < next_look) return true;
        next_look += next_look / 4;
        too_many = most_map_blocks(out.runs, extents, inode.fs().block_size()) > most_blocks;
        return !too_many;
    }));
    if (too_many) return out;
    TRY(inode.map().for_each_tree_block([&](BlockNr block) {
        out.old_blocks.push_back(block);
        return true;
    }));
    return out;
}

// Why a map of pointers cannot say this.
Result<void> check_pointers_suffice(const Inode& inode, const Contents& contents) {
    constexpr std::uint64_t pointer_limit = std::uint64_t{1} << 32;
    const format::Geometry& g = inode.fs().geometry;
    if (inode.size_hint() > g.max_indirect_file_size)
        return fail(EOPNOTSUPP, "inode {}: {} bytes are more than indirect blocks reach", inode.number(),
                    inode.size_hint());
    for (const MappedRun& run : contents.runs) {
        if (run.unwritten)
            return fail(EOPNOTSUPP, "inode {}: block {} is allocated and unwritten, which indirect blocks cannot say",
                        inode.number(), run.logical);
        if (run.physical.value + run.count > pointer_limit)
            return fail(EOPNOTSUPP, "inode {}: block {} lies at {}, past what an indirect block can name",
                        inode.number(), run.logical, run.physical);
        if (run.logical.value + run.count > g.max_indirect_file_size / g.block_size)
            return fail(EOPNOTSUPP, "inode {}: block {} is past what indirect blocks reach", inode.number(),
                        run.logical);
    }
    return {};
}

// All runs in the new map, or nothing of it is left. map_lock held.
Result<void> build(Handle& handle, MapEnvironment& context, NewMap& owner, const std::vector<MappedRun>& runs,
                   DelallocReservation& claim) {
    BlockMap map(context, owner);
    Result<void> built;
    for (const MappedRun& run : runs) {
        built = map.insert(handle, run, &claim, 0);
        if (!built) break;
    }
    if (built) return built;
    std::vector<BlockNr> blocks;
    (void)map.for_each_tree_block([&](BlockNr block) {
        blocks.push_back(block);
        return true;
    });
    TreeBlocks made{context, owner};
    for (const BlockNr block : blocks) (void)made.free(handle, block);
    return built;
}

// The new map takes the old one's place, whose blocks are given back; what that has to read is held.
Result<void> swap_maps(Handle& handle, Inode& inode, MapEnvironment& context, NewMap& fresh,
                       const std::vector<BlockNr>& old_blocks) {
    std::ranges::copy(fresh.i_block(), inode.i_block().begin());
    inode.set_flags(inode.flags() ^ format::inode_flag::extents);
    inode.extent_status().invalidate();
    inode.set_ctime(current_time(inode.fs()));
    inode.bump_version();
    TRY(inode.add_blocks(handle, fresh.blocks()));  // stores it
    TreeBlocks old{context, inode};
    for (const BlockNr block : old_blocks) TRY(old.free(handle, block));
    return {};
}

// Whether the file may have the other form at all: EOPNOTSUPP.
Result<void> check_kind(const Inode& inode, bool on) {
    const format::Geometry& g = inode.fs().geometry;
    if (!inode.is_regular() && !inode.is_directory())
        return fail(EOPNOTSUPP, "inode {} is neither file nor directory", inode.number());
    if (inode.is_inline()) return fail(EOPNOTSUPP, "inode {}: what is in the inode has no map", inode.number());
    if (on && !g.has_incompat(format::incompat::extents))
        return fail(EOPNOTSUPP, "inode {}: the file system is without the feature extents", inode.number());
    if (g.cluster_ratio != 1) return fail(EOPNOTSUPP, "inode {}: with bigalloc all maps are extents", inode.number());
    return {};
}

}  // namespace

Result<void> set_extents_flag(Inode& inode, bool on, bool may_use_reserve) {
    FsContext& fs = inode.fs();
    WriteLock guard(inode.rw);
    WriteLock invalidate(inode.pages().invalidate);
    if (inode.uses_extents() == on) return {};
    TRY(check_kind(inode, on));
    TRY(write_back(inode));
    Contents contents;
    {
        MutexLock map(inode.map_lock);
        if (inode.extent_status().has_pending())
            return fail(EIO, "inode {}: not all of it could be written back", inode.number());
        contents = TRY(contents_of(inode, on, fs.journal.max_credits()));
    }
    if (!on) TRY(check_pointers_suffice(inode, contents));
    const std::uint64_t most = most_map_blocks(contents.runs, on, fs.block_size());
    const std::uint64_t bitmaps = std::min<std::uint64_t>(fs.geometry.group_count, most + contents.old_blocks.size());
    const std::uint64_t credits = most + Allocator::mark_used_credits() * bitmaps + 2 * Inode::store_credits() + 16;
    if (credits > fs.journal.max_credits())
        return fail(EOPNOTSUPP,
                    "inode {}: a map of up to {} blocks or more is too large for one transaction of the journal",
                    inode.number(), most);
    DelallocReservation claim = TRY(fs.allocator.reserve(most, may_use_reserve));
    MapEnvironment context{fs.buffers, fs.allocator};
    Handle handle = TRY(fs.journal.start(static_cast<unsigned>(credits)));
    MutexLock map(inode.map_lock);
    TRY(inode.store(handle, false));
    std::vector<BufferRef> held;
    TreeBlocks old{context, inode};
    for (const BlockNr block : contents.old_blocks)
        for (BufferRef& buffer : TRY(old.pin_for_free(block, 1))) held.push_back(std::move(buffer));
    NewMap fresh(inode, on);
    TRY(build(handle, context, fresh, contents.runs, claim));
    return swap_maps(handle, inode, context, fresh, contents.old_blocks);
}

}  // namespace uext4

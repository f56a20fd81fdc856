#include "inode/orphan_list.h"

#include "format/orphan.h"
#include "inode/superblock.h"

#include <unordered_map>
#include <unordered_set>

namespace uext4 {

struct OrphanList::State {
    FsContext& fs;
    InodeTable& inodes;
    mutable Mutex lock{Rank::Orphan, "Orphans::lock"};
    // The list in its order on disk: the superblock names the first, each inode's i_dtime the next.
    struct Neighbours {
        InodeNr before, after;  // 0 at the ends
    };
    std::unordered_map<std::uint64_t, Neighbours> in_chain;
    InodeNr first, last;

    void link_first(InodeNr ino) {
        in_chain[ino.value] = {InodeNr(), first};
        (first ? in_chain.at(first.value).before : last) = ino;
        first = ino;
    }
    void link_last(InodeNr ino) {
        in_chain[ino.value] = {last, InodeNr()};
        (last ? in_chain.at(last.value).after : first) = ino;
        last = ino;
    }
    void unlink(InodeNr ino) {
        const auto it = in_chain.find(ino.value);
        const auto [before, after] = it->second;
        (before ? in_chain.at(before.value).after : first) = after;
        (after ? in_chain.at(after.value).before : last) = before;
        in_chain.erase(it);
    }

    // The file: inode -> slot.
    std::unordered_map<std::uint64_t, std::uint64_t> in_file;
    struct FileBlock {
        BlockNr block;
        std::uint32_t free;  // of its slots
        std::uint32_t next;  // where a free one is likely
    };
    std::vector<FileBlock> blocks;
    // Those with free slots. Slots are taken from the last one of these only, so what is full leaves at the end.
    std::vector<std::uint32_t> roomy;
    std::uint32_t seed = 0;
    std::vector<std::string> left_out;

    void leave_out(std::string why) {
        fs.log(why);
        left_out.push_back(std::move(why));
    }

    std::uint32_t per_block() const { return format::orphans_per_block(fs.block_size()); }

    Result<void> set_slot(Handle& handle, std::uint64_t slot, std::uint32_t value) {
        const BlockNr block = blocks[slot / per_block()].block;
        BufferRef buffer = TRY(fs.buffers.read(block, "orphan file"));
        TRY(handle.get_write_access(buffer));
        MutexLock guard(buffer->lock);
        view_as<Le32>(buffer->data(), slot % per_block() * 4) = value;
        format::set_orphan_checksum(fs.geometry, seed, block, buffer->data());
        return {};
    }

    // One block is looked at, or none if all are full. The lock keeps the slots.
    Result<bool> add_to_file(Handle& handle, InodeNr ino) {
        while (!roomy.empty()) {
            const std::uint32_t index = roomy.back();
            FileBlock& block = blocks[index];
            BufferRef buffer = TRY(fs.buffers.read(block.block, "orphan file"));
            for (std::uint32_t n = 0; n < per_block(); ++n) {
                const std::uint32_t at = (block.next + n) % per_block();
                if (view_as<Le32>(buffer->data(), at * 4u) != 0) continue;
                const std::uint64_t slot = std::uint64_t{index} * per_block() + at;
                TRY(set_slot(handle, slot, static_cast<std::uint32_t>(ino.value)));
                in_file[ino.value] = slot;
                block.next = at + 1;
                if (--block.free == 0) roomy.pop_back();
                return true;
            }
            // The device gave other bytes than at the mount.
            block.free = 0;
            roomy.pop_back();
        }
        return false;
    }

    Result<void> remove_from_file(Handle& handle, std::unordered_map<std::uint64_t, std::uint64_t>::iterator entry) {
        const std::uint64_t slot = entry->second;
        TRY(set_slot(handle, slot, 0));
        in_file.erase(entry);
        const auto index = static_cast<std::uint32_t>(slot / per_block());
        blocks[index].next = static_cast<std::uint32_t>(slot % per_block());
        if (blocks[index].free++ == 0) roomy.push_back(index);
        return {};
    }

    // i_dtime of an inode on the list is the next one's number. The caller has no map_lock of another inode.
    Result<void> set_next(Handle& handle, Inode& inode, InodeNr next) {
        inode.disk().dtime = static_cast<std::uint32_t>(next.value);
        return inode.store(handle, false);
    }
};

OrphanList::OrphanList(FsContext& fs, InodeTable& inodes) : state_(new State{fs, inodes}) {}
OrphanList::~OrphanList() = default;

const std::vector<std::string>& OrphanList::skipped() const { return state_->left_out; }

bool OrphanList::uses_file() const { return !state_->blocks.empty(); }

bool OrphanList::file_is_empty() const {
    MutexLock guard(state_->lock);
    return state_->in_file.empty();
}

bool OrphanList::contains(const Inode& inode) const {
    MutexLock guard(state_->lock);
    return state_->in_file.contains(inode.number().value) || state_->in_chain.contains(inode.number().value);
}

Result<std::vector<BufferRef>> OrphanList::pin_for_add(Inode& inode) {
    State& s = *state_;
    std::vector<BufferRef> held;
    MutexLock map(inode.map_lock);
    held.push_back(TRY(inode.read_inode_table_block()));
    MutexLock guard(s.lock);
    const InodeNr ino = inode.number();
    if (s.in_file.contains(ino.value) || s.in_chain.contains(ino.value)) return held;
    held.push_back(TRY(read_superblock_buffer(s.fs)));
    for (auto it = s.roomy.rbegin(); it != s.roomy.rend() && held.size() < 4; ++it)
        held.push_back(TRY(s.fs.buffers.read(s.blocks[*it].block, "orphan file")));
    return held;
}

Result<void> OrphanList::add(Handle& handle, Inode& inode) {
    State& s = *state_;
    MutexLock map(inode.map_lock);
    MutexLock guard(s.lock);
    const InodeNr ino = inode.number();
    if (s.in_file.contains(ino.value) || s.in_chain.contains(ino.value)) return {};
    if (!s.blocks.empty() && TRY(s.add_to_file(handle, ino))) {
        inode.disk().dtime = 0u;
        return inode.store(handle, false);
    }
    const InodeNr next = s.first;
    TRY(update_superblock(
        s.fs, handle, [&](format::SuperBlock& super) { super.last_orphan = static_cast<std::uint32_t>(ino.value); }));
    TRY(s.set_next(handle, inode, next));
    s.link_first(ino);
    return {};
}

Result<void> OrphanList::remove(Handle& handle, Inode& inode) {
    State& s = *state_;
    const InodeNr ino = inode.number();
    InodeRef previous;
    {
        // The inode before it on the list is changed as well; its map_lock comes before the list's lock, so it is
        // looked up first and checked again below.
        MutexLock guard(s.lock);
        if (auto it = s.in_file.find(ino.value); it != s.in_file.end()) return s.remove_from_file(handle, it);
        if (!s.in_chain.contains(ino.value)) return {};
    }
    for (;;) {
        previous.reset();
        InodeNr wanted;
        {
            MutexLock guard(s.lock);
            wanted = s.in_chain.at(ino.value).before;
            // Whoever takes it off the list has it in memory, so it is held from here on. Read later, it could be
            // deleted by then, and what the table still holds of it would come to life under a number that is free.
            if (wanted) previous = s.inodes.find(wanted);
        }
        // Nobody has it: it stays on the list.
        if (wanted && !previous) previous = TRY(s.inodes.get(wanted, true));
        UniqueLock before, own;
        // Two map_locks at once: in ascending order of the numbers.
        if (wanted && wanted < ino) before = UniqueLock::lock_ordered(previous->map_lock, wanted.value);
        own = UniqueLock::lock_ordered(inode.map_lock, ino.value);
        if (wanted && ino < wanted) before = UniqueLock::lock_ordered(previous->map_lock, wanted.value);
        MutexLock guard(s.lock);
        const auto [now, next] = s.in_chain.at(ino.value);
        if (now != wanted) continue;
        if (wanted) {
            TRY(s.set_next(handle, *previous, next));
        } else {
            TRY(update_superblock(s.fs, handle, [&](format::SuperBlock& super) {
                super.last_orphan = static_cast<std::uint32_t>(next.value);
            }));
        }
        inode.disk().dtime = 0u;
        TRY(inode.store(handle, false));
        s.unlink(ino);
        return {};
    }
}

// Whoever only looks reads what can be read of it: what is left out is told.
Result<void> OrphanList::load_file(std::vector<InodeNr>& found) {
    State& s = *state_;
    const format::Geometry& g = s.fs.geometry;
    const bool only_looks = s.fs.options.read_only;
    InodeRef file = TRY(s.inodes.get(InodeNr(g.orphan_file_inode), true));
    MutexLock map(file->map_lock);
    s.seed = format::inode_seed(g, file->number(), file->generation());
    const std::uint64_t count = file->size() / g.block_size;
    if (count == 0 || count > 1u << 16 || count > g.blocks_count) return fail(EUCLEAN, "orphan file: {} blocks", count);
    std::vector<State::FileBlock> blocks;
    std::unordered_set<std::uint64_t> met;
    for (std::uint64_t b = 0; b < count; ++b) {
        const Result<MappedRun> run = file->map().lookup(LogicalBlock(b), 1);
        if (run && !run->hole() && !met.insert(run->physical.value).second) {
            // The map is wrong, so what follows in it is not to be trusted either.
            std::string why = fmt::format("orphan file: block {} is block {}, as one before it", b, run->physical);
            if (!only_looks) return fail(EUCLEAN, "{}", why);
            s.leave_out(std::move(why));
            break;
        }
        Result<BufferRef> read = !run          ? fail(run.error())
                                 : run->hole() ? fail(EUCLEAN, "orphan file: block {} is a hole", b)
                                               : s.fs.buffers.read(run->physical, "orphan file");
        if (read && !format::orphan_block_ok(g, s.seed, run->physical, (*read)->data()))
            read = fail(EUCLEAN, "orphan file: block {}: bad magic or checksum (inode {}, block {})", b, file->number(),
                        run->physical);
        if (!read) {
            if (!only_looks) return fail(read.error());
            s.leave_out(read.error().what);
            blocks.emplace_back();
            continue;
        }
        const BufferRef& buffer = *read;
        buffer->set_kind(BlockKind::orphan_file);
        State::FileBlock& block = blocks.emplace_back(run->physical, 0, 0);
        for (std::uint32_t i = 0; i < s.per_block(); ++i) {
            const std::uint32_t ino = view_as<Le32>(buffer->data(), i * 4u);
            if (!ino) {
                ++block.free;
                continue;
            }
            if (!g.valid_inode(InodeNr(ino)) || ino < g.first_inode) {
                s.leave_out(fmt::format("orphan file: block {} slot {}: inode {} is out of range", b, i, ino));
                continue;
            }
            if (!s.in_file.emplace(ino, b * s.per_block() + i).second) {
                s.leave_out(fmt::format("orphan file: block {} slot {}: inode {} is there twice", b, i, ino));
                continue;
            }
            found.emplace_back(ino);
        }
    }
    s.blocks = std::move(blocks);
    s.roomy.clear();
    for (std::size_t b = s.blocks.size(); b-- > 0;)
        if (s.blocks[b].free != 0) s.roomy.push_back(static_cast<std::uint32_t>(b));
    return {};
}

void OrphanList::report_skipped(std::string why) { state_->leave_out(std::move(why)); }

Result<std::vector<InodeNr>> OrphanList::load() {
    State& s = *state_;
    std::vector<InodeNr> found;
    const format::Geometry& g = s.fs.geometry;
    if (g.orphan_file_inode) {
        if (Result<void> loaded = load_file(found); !loaded) {
            if (!s.fs.options.read_only) return fail(loaded.error());
            const std::string& why = loaded.error().what;
            s.leave_out(why.starts_with("orphan file: ") ? why : "orphan file: " + why);
        }
    }
    const format::SuperBlock super = TRY(read_superblock(s.fs));
    InodeNr ino(super.last_orphan);
    while (ino) {
        if (!g.valid_inode(ino) || ino.value < g.first_inode || s.in_chain.contains(ino.value)) {
            s.leave_out(
                fmt::format("orphan list: inode {} is out of range or listed twice; the rest is left to e2fsck", ino));
            break;
        }
        Result<InodeRef> inode = s.inodes.get(ino, true);
        if (!inode) {
            s.leave_out(fmt::format("orphan list: {}", inode.error().what));
            break;
        }
        s.link_last(ino);
        found.push_back(ino);
        MutexLock map((*inode)->map_lock);
        ino = InodeNr((*inode)->disk().dtime);
    }
    return found;
}

Result<void> OrphanList::mark_present(Handle& handle, bool present) {
    if (!state_->fs.geometry.orphan_file_inode) return {};
    return update_superblock(state_->fs, handle, [&](format::SuperBlock& super) {
        const std::uint32_t f = super.feature_ro_compat;
        super.feature_ro_compat =
            present ? f | format::ro_compat::orphan_present : f & ~format::ro_compat::orphan_present;
    });
}

}  // namespace uext4

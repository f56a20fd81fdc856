#include "volume/fast_commit_replay.h"

#include "file/file_io.h"
#include "namespace/operations.h"
#include "volume/fast_commit_blocks.h"

#include <cstring>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace uext4 {

namespace {

namespace iflag = format::inode_flag;

class Replay {
public:
    Replay(FsContext& fs, InodeTable& inodes, OrphanList& orphans, FastCommitBlocks blocks)
        : fs_(fs), inodes_(inodes), orphans_(orphans), blocks_(std::move(blocks)) {}

    Result<void> apply(const FastCommitOperation& o) {
        switch (o.type) {
            case format::fc_add_range: return add_range(o);
            case format::fc_delete_range: return delete_range(o);
            case format::fc_create: return add_name(o, true);
            case format::fc_link: return add_name(o, false);
            case format::fc_unlink: return remove_name(o);
            case format::fc_inode: return write_inode(o);
            default: return {};
        }
    }
    // The inodes that ordinary commits left without a name, or to be cut.
    Result<void> begin() {
        for (const InodeNr number : TRY(orphans_.load())) known_orphans_.insert(number);
        return {};
    }
    // What has no name at the end: files that were open when the log ended. Those that are orphans on disk are left to
    // who finishes all of them.
    Result<void> finish() {
        for (const InodeNr number : std::exchange(unnamed_, {})) {
            if (known_orphans_.contains(number)) continue;
            Result<InodeRef> inode = inodes_.get(number, true);
            if (inode && (*inode)->links() == 0) TRY(remove_inode(**inode));
        }
        for (const auto& [directory, names] : names_)
            if (names > 1) return fail(EUCLEAN, "directory {}: fast commits give it {} names", directory, names);
        if (!nameless_.empty()) return fail(EUCLEAN, "inode {}: fast commits give it no name", *nameless_.begin());
        return {};
    }

private:
    // Under one handle that has room for any step of one tag.
    Result<Handle> handle() { return fs_.journal.start(1024); }

    Result<void> check_number(const FastCommitOperation& o) const {
        const format::Geometry& g = fs_.geometry;
        if (!g.valid_inode(o.inode) || g.is_own_inode(o.inode)) return fail(EUCLEAN, "no inode of a user's");
        return {};
    }

    // ---- inodes

    // With room for all fields, of which a small inode on disk has the first ones only.
    using RawInode = std::vector<std::byte>;
    static format::InodeDisk& fields(RawInode& raw) { return view_as<format::InodeDisk>(Bytes(raw), 0); }

    Result<void> write_inode(const FastCommitOperation& o) {
        TRY(check_number(o));
        const format::Geometry& g = fs_.geometry;
        if (o.contents.size() > g.inode_size)
            return fail(EUCLEAN, "{} bytes, inodes have {}", o.contents.size(), g.inode_size);
        RawInode raw(std::max<std::size_t>(g.inode_size, sizeof(format::InodeDisk)));
        const Bytes fresh = Bytes(raw).first(g.inode_size);
        std::memcpy(fresh.data(), o.contents.data(), o.contents.size());
        bool used = TRY(fs_.allocator.is_inode_used(o.inode));
        if (used && TRY(was_another(o, fields(raw)))) used = false;
        if (used && S_ISDIR(fields(raw).mode)) return {};  // what a directory is follows from its names
        if (used) TRY(keep_of_old(o, raw));
        else TRY(start_new(o, raw));
        TRY(format::validate_inode(g, o.inode, fresh));
        Handle h = TRY(handle());
        if (!used) TRY(fs_.allocator.mark_inode_used(h, o.inode, S_ISDIR(fields(raw).mode)));
        const Allocator::InodeLocation place = TRY(fs_.allocator.locate_inode(o.inode));
        BufferRef buffer = TRY(fs_.buffers.read(place.block, "inode table"));
        TRY(h.get_write_access(buffer));
        format::set_inode_checksum(g, o.inode, fresh);
        {
            MutexLock guard(buffer->lock);
            std::memcpy(buffer->data().data() + place.offset, fresh.data(), fresh.size());
        }
        h.stop();
        inodes_.evict_all();  // read again, and judged by who reads it
        InodeRef inode = TRY(inodes_.get(o.inode, true));
        if (inode->links() == 0) unnamed_.insert(o.inode);
        else if (!used) nameless_.insert(o.inode);
        return {};
    }

    // A file that had lost its name before, and was deleted without a word when it was closed: the number is another's.
    Result<bool> was_another(const FastCommitOperation& o, const format::InodeDisk& disk) {
        InodeRef inode = TRY(inodes_.get(o.inode, true));
        const bool same_type = (inode->mode() & S_IFMT) == (disk.mode & S_IFMT);
        if (same_type && generation_of(*inode) == disk.generation) return false;
        if (inode->links() != 0) return fail(EUCLEAN, "it is another one with {} names", inode->links());
        TRY(remove_inode(*inode));
        return true;
    }
    static std::uint32_t generation_of(Inode& inode) {
        MutexLock guard(inode.map_lock);
        return inode.disk().generation;
    }

    // The map of a file is what its ranges say; the log's copy of it is of no use.
    static bool maps_extents(const format::InodeDisk& disk) { return (disk.flags & iflag::extents) != 0; }
    static bool has_indirect_blocks(const format::InodeDisk& disk) {
        if (maps_extents(disk) || (disk.flags & iflag::inline_data) != 0) return false;
        return S_ISREG(disk.mode) || S_ISDIR(disk.mode) || (S_ISLNK(disk.mode) && disk.size_lo >= sizeof disk.block);
    }

    Result<void> start_new(const FastCommitOperation& o, RawInode& raw) {
        format::InodeDisk& disk = fields(raw);
        const bool directory = S_ISDIR(disk.mode);
        if (disk.file_acl_lo != 0u || disk.file_acl_hi != 0)
            return fail(EUCLEAN, "a new inode with a block of attributes");
        if (maps_extents(disk)) {
            initialise_extent_root(Bytes(disk.block, sizeof disk.block));
        } else if (has_indirect_blocks(disk)) {
            if (S_ISLNK(disk.mode)) return fail(EOPNOTSUPP, "a symbolic link's text in blocks without extents");
            std::memset(disk.block, 0, sizeof disk.block);
        }
        disk.dtime = 0u;
        disk.blocks_lo = 0u;
        disk.blocks_hi = static_cast<std::uint16_t>(0);
        if (directory) {
            empty_.insert(o.inode);
            names_[o.inode] = 0;
            disk.flags = disk.flags & ~iflag::index;  // names are added one by one, and may lead to one
            disk.links_count = static_cast<std::uint16_t>(2);
            if (maps_extents(disk) || has_indirect_blocks(disk)) disk.size_lo = disk.size_hi = 0u;
        }
        return {};
    }

    Result<void> keep_of_old(const FastCommitOperation& o, RawInode& raw) {
        format::InodeDisk& disk = fields(raw);
        InodeRef inode = TRY(inodes_.get(o.inode, true));
        if (inode->uses_extents() && !maps_extents(disk)) {
            if (!(disk.flags & iflag::inline_data)) return fail(EUCLEAN, "it had extents");
            TRY(unmap(*inode, LogicalBlock(0), ~std::uint64_t{0}));
        }
        MutexLock guard(inode->map_lock);
        const format::InodeDisk& old = inode->disk();
        if (maps_extents(disk)) {
            if (inode->uses_extents()) std::memcpy(disk.block, old.block, sizeof disk.block);
            else if (inode->is_inline()) initialise_extent_root(Bytes(disk.block, sizeof disk.block));
            else return fail(EUCLEAN, "it had no extents");
        } else if (has_indirect_blocks(disk)) {
            if (has_indirect_blocks(old)) std::memcpy(disk.block, old.block, sizeof disk.block);
            else std::memset(disk.block, 0, sizeof disk.block);
        }
        // The list of orphans goes through the time of deletion.
        disk.dtime = old.dtime;
        disk.blocks_lo = old.blocks_lo;
        disk.blocks_hi = old.blocks_hi;
        disk.file_acl_lo = old.file_acl_lo;
        disk.file_acl_hi = old.file_acl_hi;
        const std::size_t given = o.contents.size();
        std::memcpy(raw.data() + given, inode->raw().data() + given, fs_.geometry.inode_size - given);
        return {};
    }

    Result<void> remove_inode(Inode& inode) {
        unnamed_.erase(inode.number());
        nameless_.erase(inode.number());
        known_orphans_.erase(inode.number());
        const std::vector<MappedRun> runs = TRY(mapped(inode, LogicalBlock(0), ~std::uint64_t{0}));
        TRY(delete_inode(inode, inodes_, orphans_));
        TRY(fs_.journal.commit_all());  // the number can be had again
        return settle(runs);
    }

    // ---- blocks

    Result<std::vector<MappedRun>> mapped(Inode& inode, LogicalBlock from, std::uint64_t end) {
        MutexLock guard(inode.map_lock);
        if (inode.is_inline() || !(inode.uses_extents() || has_indirect_blocks(inode.disk())))
            return std::vector<MappedRun>();
        return inode.map().mapped_runs(from, end);
    }

    // Blocks were freed: they can be had again by the tags that name them, and by nobody else.
    Result<void> settle(const std::vector<MappedRun>& runs) {
        if (runs.empty()) return {};
        TRY(fs_.journal.commit_all());
        for (const MappedRun& run : runs) TRY(blocks_.note_freed(run.physical, run.count));
        return {};
    }

    Result<void> unmap(Inode& inode, LogicalBlock from, std::uint64_t end) {
        const std::vector<MappedRun> runs = TRY(mapped(inode, from, end));
        if (runs.empty()) return {};
        {
            Handle h = TRY(handle());
            TRY(remove_blocks(inode, h, from, LogicalBlock(end)));
        }
        return settle(runs);
    }

    Result<InodeRef> file_with_extents(const FastCommitOperation& o) {
        TRY(check_number(o));
        InodeRef inode = TRY(inodes_.get(o.inode, true));
        if (inode->is_inline()) {
            // It grew out of its inode; the inode's own tag follows.
            if (inode->is_directory()) return fail(EUCLEAN, "a range of a directory in its inode");
            Handle h = TRY(handle());
            MutexLock guard(inode->map_lock);
            inode->set_flags((inode->flags() & ~iflag::inline_data) | iflag::extents);
            initialise_extent_root(inode->i_block());
            TRY(inode->store(h));
        }
        // The kernel's own replay takes its map for one of extents.
        if (!inode->uses_extents()) return fail(EOPNOTSUPP, "blocks of a file without extents");
        const std::uint64_t limit = inode->map().max_block().value;
        if (o.count == 0 || o.logical.value >= limit ||
            (o.type == format::fc_add_range && o.count > limit - o.logical.value))
            return fail(EUCLEAN, "blocks {} + {} of a file", o.logical, o.count);
        return inode;
    }

    Result<void> delete_range(const FastCommitOperation& o) {
        TRY(check_number(o));
        if (InodeRef inode = TRY(inodes_.get(o.inode, true)); inode->is_directory() || inode->is_inline()) return {};
        InodeRef inode = TRY(file_with_extents(o));
        return unmap(*inode, o.logical, o.logical.value + o.count);
    }

    Result<void> add_range(const FastCommitOperation& o) {
        InodeRef inode = TRY(file_with_extents(o));
        // The blocks of directories are written by ordinary commits only: names are replayed one by one.
        if (inode->is_directory()) return {};
        if (o.logical.value % ratio() != o.physical.value % ratio())
            return fail(EUCLEAN, "blocks {} do not lie in their cluster as {} of the file", o.physical, o.logical);
        for (std::uint64_t done = 0; done < o.count;) {
            MappedRun there;
            {
                MutexLock guard(inode->map_lock);
                there = TRY(inode->map().lookup(o.logical + done, o.count - done));
            }
            if (there.count == 0) return fail(EUCLEAN, "its map has no block {}", o.logical + done);
            const BlockNr wanted = o.physical + done;
            if (there.hole()) {
                there = part_in_clusters({o.logical + done, there.count, wanted, o.unwritten});
                TRY(map_blocks(*inode, there));
            } else if (there.physical != wanted) {
                TRY(unmap(*inode, there.logical, there.logical.value + there.count));
                continue;
            } else if (there.unwritten != o.unwritten) {
                Handle h = TRY(handle());
                MutexLock guard(inode->map_lock);
                TRY(inode->map().set_unwritten(h, there.logical, there.count, o.unwritten, nullptr));
                TRY(inode->store(h));
            }
            done += there.count;
        }
        return {};
    }

    std::uint64_t ratio() const { return fs_.geometry.cluster_ratio; }

    // The front of a run that lies in whole clusters, or within one.
    MappedRun part_in_clusters(MappedRun run) const {
        const std::uint64_t inside = run.logical.value % ratio();
        if (inside != 0 || run.count < ratio()) run.count = std::min(run.count, ratio() - inside);
        else run.count = round_down(run.count, ratio());
        return run;
    }

    // Whether the file has the cluster of the run already, by other blocks in it. Where those lie elsewhere, tags to
    // come will say so of them as well: a cluster of the file is in one place.
    Result<bool> has_cluster(Inode& inode, const MappedRun& run) {
        const LogicalBlock first(round_down(run.logical.value, ratio()));
        const std::vector<MappedRun> others = TRY(mapped(inode, first, first.value + ratio()));
        for (const MappedRun& other : others)
            if (other.physical + (run.logical - first) != run.physical + (other.logical - first)) {
                TRY(unmap(inode, first, first.value + ratio()));
                return false;
            }
        return !others.empty();
    }

    // What is a hole so far, as part_in_clusters() gave it.
    Result<void> map_blocks(Inode& inode, const MappedRun& run) {
        const bool in_part = run.count % ratio() != 0;
        if (in_part && TRY(has_cluster(inode, run))) {
            Handle h = TRY(handle());
            MutexLock guard(inode.map_lock);
            TRY(inode.map().insert(h, run, nullptr, 0));
            return inode.store(h);
        }
        std::vector<Allocation> grants = TRY(blocks_.take(run.physical, run.count));
        std::uint64_t done = 0;
        for (Allocation& grant : grants) {
            const std::uint64_t allocated = grant.count(), count = std::min(allocated, run.count - done);
            Handle h = TRY(handle());
            TRY(fs_.allocator.mark_used(h, grant));
            MutexLock guard(inode.map_lock);
            const MappedRun piece{run.logical + done, count, run.physical + done, run.unwritten};
            TRY(inode.map().insert(h, piece, nullptr, allocated));
            TRY(inode.store(h));
            done += count;
        }
        return {};
    }

    // ---- names

    static Result<void> check_name(const FastCommitOperation& o) {
        if (Result<void> sound = names::check_name(o.name); !sound) return fail(EUCLEAN, "{}", sound.error().what);
        if (names::is_dot_or_dotdot(o.name)) return fail(EUCLEAN, "the name \".\" or \"..\"");
        return {};
    }

    Result<InodeRef> parent_of(const FastCommitOperation& o) {
        InodeRef parent = TRY(inodes_.get(o.parent));
        if (!parent->is_directory()) return fail(EUCLEAN, "inode {} is no directory", o.parent);
        return parent;
    }

    // A directory must not come to lie below itself.
    Result<void> check_not_above(Inode& parent, InodeNr number) {
        std::unordered_set<std::uint64_t> seen;
        for (InodeNr at = parent.number(); at.value != format::special_inode::root;) {
            if (at == number) return fail(EUCLEAN, "directory {} would lie below itself", number);
            if (!seen.insert(at.value).second) return fail(EUCLEAN, "directory {} is not below the root", at);
            InodeRef directory = TRY(inodes_.get(at));
            if (!directory->is_directory()) return fail(EUCLEAN, "inode {} is no directory", at);
            at = TRY(Directory(*directory).parent());
        }
        return {};
    }

    // The directory came and went between two commits, which then say nothing of it but what was in it.
    Result<bool> is_gone(InodeNr directory) {
        const format::Geometry& g = fs_.geometry;
        if (!g.valid_inode(directory)) return fail(EUCLEAN, "a name in inode {} of {}", directory, g.inodes_count);
        return empty_.contains(directory) || !TRY(fs_.allocator.is_inode_used(directory));
    }

    Result<void> add_name(const FastCommitOperation& o, bool fresh) {
        TRY(check_number(o));
        TRY(check_name(o));
        if (TRY(is_gone(o.parent))) {
            if (!fresh) return {};
            InodeRef inode = TRY(inodes_.get(o.inode, true));
            if (inode->is_directory()) return {};
            Handle h = TRY(handle());
            MutexLock map(inode->map_lock);
            if (inode->links() > 0) inode->set_links(inode->links() - 1);  // this name was counted
            return inode->store(h);
        }
        InodeRef parent = TRY(parent_of(o));
        InodeRef inode = TRY(inodes_.get(o.inode, true));
        if (o.inode == o.parent || o.inode.value == format::special_inode::root)
            return fail(EUCLEAN, "a name for the directory itself");
        if (inode->is_directory()) TRY(check_not_above(*parent, o.inode));
        WriteLock guard(parent->rw);
        Directory entries(*parent);
        const std::optional<FoundEntry> there = TRY(entries.find(o.name));
        nameless_.erase(o.inode);
        if (there && there->inode == o.inode) {  // done before
            if (inode->is_directory()) ++names_.try_emplace(o.inode, 1).first->second;
            return {};
        }
        if (there) return fail(EUCLEAN, "the name is that of inode {}", there->inode);
        Handle h = TRY(handle());
        if (inode->is_directory()) TRY(place_directory(h, *parent, *inode));
        TRY(entries.add(h, o.name, o.inode, names::type_of_mode(inode->mode()), true));
        TRY(names::update_directory_times(h, *parent, inode->is_directory() ? 1 : 0));
        if (inode->is_directory()) return {};
        if (fresh) return {};  // its inode counts the name already
        MutexLock map(inode->map_lock);
        inode->set_links(inode->links() + 1);
        return inode->store(h);
    }

    Result<void> place_directory(Handle& h, Inode& parent, Inode& directory) {
        ++names_.try_emplace(directory.number(), 1).first->second;
        if (empty_.erase(directory.number())) return Directory(directory).initialise(h, parent.number(), true);
        return Directory(directory).set_parent(h, parent.number());
    }

    Result<void> remove_name(const FastCommitOperation& o) {
        TRY(check_number(o));
        TRY(check_name(o));
        if (TRY(is_gone(o.parent))) return {};
        InodeRef parent = TRY(parent_of(o));
        {
            const std::optional<FoundEntry> there = TRY(Directory(*parent).find(o.name));
            if (!there || there->inode != o.inode) {  // done before
                if (const auto it = names_.find(o.inode); it != names_.end() && it->second > 1) --it->second;
                return {};
            }
        }
        InodeRef inode = TRY(inodes_.get(o.inode, true));
        const bool directory = inode->is_directory();
        const bool last_name = directory && --names_.try_emplace(o.inode, 1).first->second == 0;
        if (last_name && !TRY(Directory(*inode).is_empty())) return fail(EUCLEAN, "the directory is not empty");
        {
            WriteLock guard(parent->rw);
            Handle h = TRY(handle());
            TRY(Directory(*parent).remove(h, o.name));
            TRY(names::update_directory_times(h, *parent, directory ? -1 : 0));
            MutexLock map(inode->map_lock);
            if (directory && last_name) inode->set_links(0);
            if (!directory && inode->links() > 0) inode->set_links(inode->links() - 1);
            TRY(inode->store(h));
        }
        if (inode->links() != 0) return {};
        names_.erase(o.inode);
        return remove_inode(*inode);
    }

    FsContext& fs_;
    InodeTable& inodes_;
    OrphanList& orphans_;
    FastCommitBlocks blocks_;
    std::set<InodeNr> empty_;     // new directories without "." and ".."
    std::set<InodeNr> unnamed_;   // links 0
    std::set<InodeNr> nameless_;  // new ones, until they get a name
    std::set<InodeNr> known_orphans_;
    std::unordered_map<InodeNr, int> names_;  // of directories that got or lost some
};

}  // namespace

Result<void> replay_fast_commits(const FastCommits& commits, FsContext& fs, InodeTable& inodes, OrphanList& orphans) {
    Replay replay(fs, inodes, orphans, TRY(FastCommitBlocks::reserve(commits, fs.allocator)));
    TRY(replay.begin());
    for (const FastCommitOperation& o : commits.operations) {
        if (Result<void> done = replay.apply(o); !done)
            return fail(done.error().code == ESTALE ? EUCLEAN : done.error().code, "{}: {}", o.describe(),
                        done.error().what);
    }
    TRY(replay.finish());
    return fs.journal.commit_all();
}

}  // namespace uext4

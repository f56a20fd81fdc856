// A volume that is open: sync, freeze and close.
#include "base/seam.h"
#include "device/flush_order_device.h"
#include "volume/backup_superblocks.h"
#include "volume/volume_state.h"

namespace uext4 {

Volume::Volume(std::unique_ptr<State> state) : state_(std::move(state)) {}

Volume::~Volume() {
    if (!state_) return;
    if (Result<void> r = close(); !r) state_->log(fmt::format("close: {}", r.error().what));
    State& s = *state_;
    s.log_suppressed_errors();
    s.error_marker.stop();
    s.flusher.reset();
    s.deleter.reset();
    if (s.layers && s.layers->inodes) s.layers->inodes->evict_all();  // opening may have failed half-way
    s.names.reset();
    s.orphans.reset();
    s.mmp.reset();  // it may still tell the journal of somebody else
    s.layers.reset();
}

Result<void> Volume::close() {
    State& s = *state_;
    if (std::exchange(s.closed, true)) return {};
    if (s.options.fs.read_only) return {};
    Result<void> first;
    if (s.frozen) first = thaw();  // the deleter may have waited for it
    s.error_marker.stop();
    s.flusher.reset();
    if (Result<void> r = Flusher::flush_all(*s.layers->inodes); !r && first) first = std::move(r);
    s.deleter.reset();
    // What failed is tried once more, and told of if it still does. Where that is for want of space, the image has no
    // error by it.
    if (!first && first.error().code == ENOSPC) first = {};
    Result<void> without_space;
    if (Result<void> r = Flusher::flush_at_unmount(*s.layers->inodes, s.log); !r) {
        if (r.error().code == ENOSPC) without_space = std::move(r);
        else if (first) first = std::move(r);
    }
    FsContext& fs = s.fs();
    if (s.orphans->uses_file() && s.orphans->file_is_empty() && !fs.journal.is_aborted()) {
        Result<Handle> handle = fs.journal.start(2);
        if (handle) (void)s.orphans->mark_present(*handle, false);
    }
    if (Result<void> r = fs.journal.close(); !r && first) first = std::move(r);
    if (!fs.journal.is_aborted()) {
        Result<void> r = s.write_super([&](format::SuperBlock& super) {
            super.feature_incompat = super.feature_incompat & ~format::incompat::recover;
            std::uint16_t state = super.state;
            if (!fs.geometry.has_compat(format::compat::has_journal)) state |= format::super_state::valid;
            super.state = state;
            if (!first) s.note_error(first.error());
            if (s.damaged.load() || !first) s.fill_error_fields(super);
            super.set_free_blocks(fs.allocator.super_free_blocks());
            super.free_inodes_count = fs.allocator.super_free_inodes();
            super.wtime = static_cast<std::uint32_t>(s.seconds_now());
        });
        if (!r && first) first = std::move(r);
    } else if (first) {
        first = fail(EIO, "the journal was aborted: the image must be replayed");
    }
    if (s.mmp) s.mmp->release();
    return first ? without_space : first;
}

FsContext& Volume::fs() { return state_->fs(); }
InodeTable& Volume::inodes() { return *state_->layers->inodes; }
OrphanList& Volume::orphans() { return *state_->orphans; }
Namespace& Volume::names() { return *state_->names; }
FreezeGate& Volume::gate() { return state_->gate; }
const VolumeOptions& Volume::options() const { return state_->options; }
std::string Volume::primary_superblock_problem() const {
    return options().backup_super ? uext4::check_primary_superblock(*state_->image) : std::string();
}
const format::Geometry& Volume::geometry() const { return state_->layers->geometry; }
const RecoveryReport& Volume::recovery() const { return state_->recovery; }
std::uint64_t Volume::orphans_processed() const { return state_->orphans_processed; }
bool Volume::was_not_unmounted() const { return state_->was_not_unmounted; }
bool Volume::read_only() const { return state_->fs().read_only.load(); }

Result<void> Volume::State::write_all() {
    // What an aborted journal keeps from being written was told of when it was aborted, and is once more by close().
    const auto tell = [this](const std::string& line) {
        if (!fs().journal.is_aborted()) log(line);
    };
    std::optional<InodeWalks::ActiveWalk> walk(std::in_place, walks);
    Result<void> first = Flusher::flush_all(*layers->inodes, tell);
    walk.reset();
    (void)record_errors_in_log();  // what cannot be marked now is at the next one
    Result<void> committed = fs().journal.commit_all();
    if (committed) {
        committed = flush_completed_writes(*device);
        if (!committed) fs().journal.abort(committed.error());  // what the device has dropped is not known
    }
    return committed ? first : committed;
}

Result<void> Volume::sync() {
    State& s = *state_;
    if (s.options.fs.read_only) return {};
    const FreezeGate::SyncEntry pass(s.gate);
    if (pass) return s.write_all();
    return s.fs().pages.dirty_bytes() == 0 ? Result<void>() : fail(ENOSPC, "what had no space waits for the thaw");
}

void Volume::shrink_inodes() {
    assert_nothing_held_at_or_below(Rank::Freeze);
    State& s = *state_;
    // Where nothing runs in the background, what an operation has deleted is gone when it returns.
    if (s.options.fs.fixed_time && s.deleter && s.deleter->is_busy()) s.deleter->wait_for_deletions_unless_frozen();
    InodeTable& inodes = *s.layers->inodes;
    if (inodes.has_excess(InodeTable::Excess::times_pending)) s.store_all_pending_times();
    if (inodes.has_excess(InodeTable::Excess::cached)) inodes.shrink_to_limit();
}

// Of some inodes that leave memory then; of all, where what is stored does not keep up.
void Volume::State::store_all_pending_times() {
    constexpr std::size_t at_a_time = 64;
    constexpr unsigned most_rounds = 1024;  // others may go on changing files
    if (fs().read_only.load()) return;
    const FreezeGate::TryEntry pass(gate);
    if (!pass) return;
    try {
        const InodeWalks::ActiveWalk walk(walks);
        for (unsigned round = 0; round < most_rounds; ++round) {
            const std::vector<InodeRef> waiting = layers->inodes->oldest_times_pending(at_a_time);
            // What cannot be stored waits on, for who syncs and is told.
            for (const InodeRef& inode : waiting)
                if (!store_pending_times(*inode)) return;
            if (waiting.empty() || !layers->inodes->is_overcommitted()) break;
        }
    } catch (const std::bad_alloc&) {
        // If the journal ended by that it tells: the call at whose end this is done has succeeded.
    }
}

void Volume::set_read_only_callback(std::function<void()> tell) {
    MutexLock guard(state_->read_only_lock);
    state_->tell_read_only = std::move(tell);
}

void Volume::State::notify_read_only() {
    MutexLock guard(read_only_lock);
    if (tell_read_only) tell_read_only();
}

SpaceCounts Volume::counts() const { return state_->layers->allocator->counts(); }

std::uint64_t Volume::overhead_blocks() {
    State& s = *state_;
    if (s.overhead == 0) {
        const format::Geometry& g = geometry();
        // What shares a cluster is counted once, so where there are clusters the superblock's count is taken.
        const std::uint64_t told = g.overhead_clusters * g.cluster_ratio;
        if (told != 0 && told <= g.blocks_count) return s.overhead = told;
        std::uint64_t n = g.first_data_block;
        // Groups repeat a pattern; for very large file systems a sum over all of them is still one pass over numbers.
        for (std::uint32_t group = 0; group < g.group_count; ++group) n += g.base_meta_blocks(GroupNr(group));
        n += std::uint64_t{g.group_count} * (2 + g.inode_table_blocks);
        if (g.journal_inode) {
            if (Result<InodeRef> journal = inodes().get(InodeNr(g.journal_inode), true))
                n += (*journal)->size_hint() / g.block_size;
        }
        s.overhead = n;
    }
    return s.overhead;
}

Result<void> Volume::freeze() {
    State& s = *state_;
    if (s.options.fs.read_only) return fail(EROFS, "a read-only file system needs no freezing");
    MutexLock guard(s.freeze_lock);
    if (s.frozen) return fail(EBUSY, "the file system is frozen already");
    // Also where memory runs out on the way.
    struct Reopens {
        State& s;
        ~Reopens() {
            if (!s.frozen) s.gate.open();
        }
    } const reopens{s};
    // Most of it while others go on; what they have deleted meanwhile when they are out.
    if (s.deleter) s.deleter->wait_for_deletions();
    s.gate.close();
    s.walks.wait_for_walks();
    if (s.deleter) s.deleter->wait_for_deletions();
    s.gate.close_inner();
    auto settle = [&]() -> Result<void> {
        if (UEXT4_SEAM(freeze_writes_back)) {
            // What has no space waits in memory; the image is whole without it.
            const Result<void> written = s.write_all();
            if (!written && written.error().code != ENOSPC) return written;
        }
        TRY(s.fs().journal.checkpoint_all());
        s.fs().allocator.finish_discards();
        const bool no_orphans = s.orphans->uses_file() && s.orphans->file_is_empty();
        return s.write_super_durably([&](format::SuperBlock& super) {
            if (s.damaged.load()) s.fill_error_fields(super);  // met by readers since
            super.feature_incompat = super.feature_incompat & ~format::incompat::recover;
            if (no_orphans) super.feature_ro_compat = super.feature_ro_compat & ~format::ro_compat::orphan_present;
            if (!geometry().has_compat(format::compat::has_journal))
                super.state = static_cast<std::uint16_t>(super.state | format::super_state::valid);
            super.set_free_blocks(s.fs().allocator.super_free_blocks());
            super.free_inodes_count = s.fs().allocator.super_free_inodes();
        });
    };
    Result<void> done = settle();
    if (done && s.mmp) s.mmp->pause();
    s.frozen = done.has_value();
    if (s.frozen) s.gate.set_frozen();
    return done;
}

Result<void> Volume::thaw() {
    State& s = *state_;
    MutexLock guard(s.freeze_lock);
    if (!s.frozen) return fail(EINVAL, "the file system is not frozen");
    // Where memory runs out it stays frozen, and can be thawed again.
    struct Pauses {
        State& s;
        ~Pauses() {
            if (s.frozen && s.mmp) s.mmp->pause();
        }
    } const pauses{s};
    Result<void> thawed = s.mmp ? s.mmp->resume() : Result<void>();
    if (!UEXT4_SEAM(thaw_marks_first)) s.gate.open();
    // Where the block cannot be read, the log has it, as when it cannot be renewed.
    if (thawed || thawed.error().code != EBUSY)
        thawed = s.write_super_durably([&](format::SuperBlock& super) {
            if (s.damaged.load()) s.fill_error_fields(super);  // met meanwhile
            if (s.orphans->uses_file())
                super.feature_ro_compat = super.feature_ro_compat | format::ro_compat::orphan_present;
            if (geometry().has_compat(format::compat::has_journal))
                super.feature_incompat = super.feature_incompat | format::incompat::recover;
            else super.state = static_cast<std::uint16_t>(super.state & ~format::super_state::valid);
        });
    s.frozen = false;
    s.gate.open();
    if (s.damaged.load()) s.error_marker.request();
    return thawed;
}

void Volume::wait_for_deletions() {
    state_->walks.wait_for_walks();
    if (state_->deleter) state_->deleter->wait_for_deletions();
}

void Volume::set_keep_callback(std::function<bool(const InodeRef&)> keeps) {
    if (state_->deleter) state_->deleter->set_keep_callback(std::move(keeps));
}

}  // namespace uext4

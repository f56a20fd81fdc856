// Opening: the superblock's word, recovery, the layers, what a crash left.
#include "device/contents.h"
#include "device/flush_order_device.h"
#include "device/overlay_device.h"
#include "sync/atomic_point.h"
#include "volume/backup_super_device.h"
#include "volume/backup_superblocks.h"
#include "volume/fast_commit_replay.h"
#include "volume/journal_location.h"
#include "volume/volume_state.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace uext4 {

namespace {

std::uint64_t metadata_limit(const VolumeOptions& o) {
    return std::clamp<std::uint64_t>(o.cache_bytes / 4, std::uint64_t{4} << 20, std::uint64_t{64} << 20);
}

// What metadata and inodes may have in memory beside the cache. What they have above that is taken from the cache.
constexpr std::uint64_t beside_cache = std::uint64_t{32} << 20;

// What is committed and not home yet, in bytes.
std::uint64_t waiting_limit(const VolumeOptions& o) {
    return std::max(o.cache_bytes / 2, std::min(o.cache_bytes, std::uint64_t{16} << 20));
}

// An inode takes about 1.5 KiB, so those that nobody uses take at most three eighths of what the cache may take.
std::size_t inodes_kept(const VolumeOptions& o) { return std::clamp<std::size_t>(o.cache_bytes / 4096, 1024, 32768); }

Result<format::SuperBlock> load_super(BlockDevice& device) {
    format::SuperBlock super;
    if (device.size() < format::super_offset + sizeof super)
        return fail(EINVAL, "{}: superblock: {} bytes are too few for a file system", device.name(), device.size());
    TRY(device.read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    if (super.magic != format::super_magic)
        return fail(EINVAL, "{}: no ext2, ext3 or ext4 file system (s_magic is {:#06x}, expected {:#06x})",
                    device.name(), super.magic.get(), format::super_magic);
    if (!format::super_checksum_ok(super)) return fail(EUCLEAN, "{}: superblock: bad checksum", device.name());
    return super;
}

// The first look at it. Where it cannot be used, the error names the backups that can, or what the image is instead.
Result<format::SuperBlock> find_super(const std::shared_ptr<BlockDevice>& device) {
    Result<format::SuperBlock> super = load_super(*device);
    const bool is_other = !super && super.error().code == EINVAL;
    if (super)
        if (Result<format::Geometry> geometry = format::Geometry::parse(*super, device->size()); !geometry)
            super = fail(geometry.error().code, "{}: {}", device->name(), geometry.error().what);
    if (super) return super;
    const std::string backups = backup_superblock_hint(device);
    const std::string contents = is_other && backups.empty() ? describe_contents(*device) : "";
    if (!contents.empty()) return fail(EINVAL, "{}: no ext2, ext3 or ext4 file system: {}", device->name(), contents);
    super.error().what += backups;
    return super;
}

// What `marked` says of errors and `super` does not know. False where there is nothing.
bool take_errors(format::SuperBlock& super, const format::SuperBlock& marked) {
    if (!(marked.state & format::super_state::errors)) return false;
    const bool newer = marked.error_count > super.error_count;
    if (!newer && (super.state & format::super_state::errors)) return false;
    super.state = static_cast<std::uint16_t>(super.state | format::super_state::errors);
    if (!newer) return true;
    constexpr std::size_t first = offsetof(format::SuperBlock, error_count),
                          end = offsetof(format::SuperBlock, mount_opts);
    std::ranges::copy(bytes_of(marked).subspan(first, end - first),
                      std::as_writable_bytes(std::span(&super, 1)).subspan(first).begin());
    super.first_error_time_hi = marked.first_error_time_hi;
    super.last_error_time_hi = marked.last_error_time_hi;
    super.first_error_errcode = marked.first_error_errcode;
    super.last_error_errcode = marked.last_error_errcode;
    return true;
}

}  // namespace

Result<void> Volume::State::assemble(const format::SuperBlock& super, std::vector<BlockRun> log_runs, bool with_log,
                                     bool recount) {
    layers.reset();
    layers.emplace();
    VolumeLayers& l = *layers;
    l.geometry = TRY(format::Geometry::parse(super, device->size()));
    l.buffers =
        std::make_unique<BufferCache>(*device, l.geometry.block_size, l.geometry.blocks_count, metadata_limit(options));
    JournalOptions j;
    // Without a timer where what is in a commit is not to depend on when it is.
    const bool timed = !options.fs.read_only && !options.fs.fixed_time;
    j.commit_interval = timed ? options.commit_interval : std::chrono::milliseconds(0);
    j.barrier = options.barrier;
    j.checksums = l.geometry.metadata_csum();
    j.block_numbers_64bit = l.geometry.has_incompat(format::incompat::bit64);
    j.reserves_fast_commit_area = l.geometry.has_compat(format::compat::fast_commit);
    j.max_checkpoint_bytes = waiting_limit(options);
    j.max_transaction_bytes = std::max<std::uint64_t>(j.max_checkpoint_bytes / 4, std::uint64_t{1} << 20);
    j.on_abort = [this](const Error& why) {
        atomic_point("FsContext::read_only", &layers);
        if (layers && layers->fs) layers->fs->read_only.store(true);
        log(fmt::format("the journal was aborted, the file system is read-only now: {}", why.what));
        if (errors == ErrorPolicy::panic) panic();
        notify_read_only();
    };
    j.replaces_fast_commits = replaces_log;
    j.fixed_time = options.fs.fixed_time;
    if (with_log) l.journal = TRY(Journal::open(*l.buffers, log_runs, std::move(j)));
    else l.journal = Journal::create_without_log(*l.buffers, std::move(j));
    l.allocator =
        TRY(Allocator::open(l.geometry, *l.buffers, *l.journal, super.free_blocks(), super.free_inodes_count, recount));
    l.allocator->set_discard(options.discard, options.fs.fixed_time.has_value());
    l.buffers->set_read_error_callback([this](const Error& e) { handle_corruption(e); });
    l.allocator->set_corruption_callback([this](const Error& e) {
        if (e.code != EIO) handle_corruption(e);  // of what cannot be read the buffers have told
        return errors == ErrorPolicy::continue_;
    });
    l.allocator->set_journal_blocks(log_runs);
    const std::uint32_t folio = std::max<std::uint32_t>(options.folio_bytes, l.geometry.block_size);
    l.pages = std::make_unique<PageCache>(options.cache_bytes, folio, l.geometry.block_size);
    if (options.kernel_caches) l.pages->set_clean_limit(options.cache_bytes / 2);
    l.fs.reset(new FsContext{l.geometry, *device, *l.buffers, *l.journal, *l.allocator, *l.pages, options.fs, log,
                             [this](const Error& e) { handle_corruption(e); }, options.fs.read_only});
    l.pages->set_other_users([fs = l.fs.get()] {
        const std::uint64_t bytes = fs->buffers.cached_bytes() + fs->inode_memory.load(std::memory_order_relaxed);
        return bytes - std::min(bytes, beside_cache);
    });
    if (options.cache_grows) l.pages->join_memory_limit(CacheMemoryLimit::process_wide());
    l.inodes = std::make_unique<InodeTable>(*l.fs);
    l.inodes->set_limit(inodes_kept(options));
    return {};
}

Result<void> Volume::State::open() {
    if (options.backup_super) {
        Result<std::shared_ptr<BackupSuperDevice>> restored = BackupSuperDevice::open(image, *options.backup_super);
        if (!restored)
            return fail(restored.error().code, "{}: {}{}", image->name(), restored.error().what,
                        backup_superblock_hint(image));
        device = *restored;
    }
    format::SuperBlock super = TRY(find_super(device));
    const format::Support support =
        format::support_for(super.feature_compat, super.feature_incompat, super.feature_ro_compat);
    if (!support.readable)
        return fail(EOPNOTSUPP, "{}: features that are not supported: {}", device->name(), support.why);
    if (!support.writable && !options.fs.read_only)
        return (super.feature_ro_compat & (format::ro_compat::quota | format::ro_compat::project))
                   ? fail(EROFS, "{}: uext4 does not update quotas", device->name())
                   : fail(EROFS, "{}: can only be opened read-only because of: {}", device->name(), support.why);
    const bool external = super.has_compat(format::compat::has_journal) && super.journal_inum == 0;
    if (external && !options.fs.read_only)
        return fail(EROFS, "{}: can only be opened read-only because of: has_journal on another device (s_journal_dev)",
                    device->name());
    if (external && super.has_incompat(format::incompat::recover) && options.replay)
        return fail(EOPNOTSUPP,
                    "{}: needs_recovery, and the journal is on another device (s_journal_dev): only noload "
                    "shows it, as it is",
                    device->name());
    if (device->read_only() && !options.fs.read_only) return fail(EROFS, "{}: cannot be written", device->name());
    for (const std::string& unmet : add_superblock_defaults(options, super)) log(unmet);
    if (Result<void> given = check_options(options, super.has_compat(format::compat::has_journal)); !given)
        return fail(given.error().code, "{}: {}", device->name(), given.error().what);
    errors = options.errors;
    if (errors == ErrorPolicy::from_superblock) {
        // Whoever only looks at an image has nothing to end for.
        errors = options.fs.read_only                               ? ErrorPolicy::continue_
                 : super.errors == format::error_policy::panic      ? ErrorPolicy::panic
                 : super.errors == format::error_policy::remount_ro ? ErrorPolicy::remount_ro
                                                                    : ErrorPolicy::continue_;
    }
    // A backup superblock does not say whether the log has something to replay: the log does.
    const bool asks_log = options.backup_super && options.replay && super.has_compat(format::compat::has_journal) &&
                          super.journal_inum != 0;
    const bool wants_recovery = super.has_incompat(format::incompat::recover) || asks_log;
    const auto or_without_log = [&](auto result) {
        if (!result && asks_log) result.error().what += "; option noload shows the image as it is without its journal";
        return result;
    };
    bool dirty = wants_recovery || options.backup_super || super.last_orphan != 0 ||
                 super.has_ro_compat(format::ro_compat::orphan_present);
    if (!options.fs.read_only) {
        device = image = std::make_shared<FlushOrderDevice>(image);
        const format::Geometry geometry = TRY(format::Geometry::parse(super, device->size()));
        mmp = TRY(MultiMountProtection::acquire(*image, geometry, log, options.fs.fixed_time));
        if (mmp) device = write_fence = std::make_shared<FencedDevice>(image);
        super = TRY(load_super(*device));
    }
    if (options.fs.read_only && options.replay && dirty) device = std::make_shared<OverlayDevice>(device);
    std::vector<BlockRun> runs;
    const bool has_journal = super.has_compat(format::compat::has_journal);
    bool with_log = false;
    if (has_journal && (super.journal_inum != 0 || !options.fs.read_only)) {
        const bool read_only = std::exchange(options.fs.read_only, true);
        Result<void> first = assemble(super, {}, false, false);
        options.fs.read_only = read_only;
        TRY(std::move(first));
        layers->allocator->set_read_only(read_only);
        if (options.replay || !options.fs.read_only) {
            runs = TRY(or_without_log(locate_journal(*layers->inodes, layers->geometry)));
            const std::uint32_t block_size = layers->geometry.block_size;
            const std::uint64_t blocks = layers->geometry.blocks_count;
            layers.reset();
            if (wants_recovery) {
                const format::SuperBlock marked = super;
                recovery = TRY(or_without_log(recover(*device, block_size, blocks, runs)));
                super = TRY(load_super(*device));
                // The log may hold an earlier superblock than the one that was marked.
                if (take_errors(super, marked)) {
                    TRY(write_super([&](format::SuperBlock& s) { (void)take_errors(s, marked); }));
                    super = TRY(load_super(*device));
                }
                if (recovery.fast_commits.any()) {
                    TRY(replay_logged_fast_commits(super, runs));
                    super = TRY(load_super(*device));
                }
                // On the image the mark stays until the unmount has written the counters: without it they would be
                // believed.
                if (options.fs.read_only) {
                    TRY(write_super([](format::SuperBlock& s) {
                        s.feature_incompat = s.feature_incompat & ~format::incompat::recover;
                    }));
                    super = TRY(load_super(*device));
                }
            }
            with_log = !options.fs.read_only;
        } else if (auto found = locate_journal(*layers->inodes, layers->geometry)) {
            runs = std::move(*found);  // where nobody needs it, it may be damaged
        }
    }
    was_not_unmounted = (asks_log ? recovery.needed : wants_recovery) || !(super.state & format::super_state::valid);
    if (!options.fs.read_only) {
        // Before the log is used the superblock on disk says that it must be replayed.
        TRY(write_super([&](format::SuperBlock& s) {
            if (has_journal) s.feature_incompat = s.feature_incompat | format::incompat::recover;
            else s.state = static_cast<std::uint16_t>(s.state & ~format::super_state::valid);
            if (s.has_compat(format::compat::dir_index)) format::record_hash_sign(s);
            s.mnt_count = static_cast<std::uint16_t>(s.mnt_count + 1);
            s.mtime = s.wtime = static_cast<std::uint32_t>(seconds_now());
            if (!options.mounted_on.empty()) {
                std::ranges::fill(s.last_mounted, '\0');
                options.mounted_on.copy(s.last_mounted, sizeof s.last_mounted);
            }
        }));
    }
    TRY(assemble(super, runs, with_log, was_not_unmounted));
    layers->allocator->set_read_only(options.fs.read_only);
    TRY(import_journal_error());
    orphans = std::make_unique<OrphanList>(fs(), *layers->inodes);
    names = std::make_unique<Namespace>(fs(), *layers->inodes, *orphans);
    const bool may_finish = !options.fs.read_only || device != image;
    if (options.replay && may_finish) TRY(finish_orphans());
    if (!options.fs.read_only) {
        if (orphans->uses_file()) {
            Handle handle = TRY(fs().journal.start(2));
            TRY(orphans->mark_present(handle, true));
        }
        deleter = std::make_unique<InodeDeleter>(fs(), *layers->inodes, *orphans, gate, options.background);
        if (options.background) {
            flusher = std::make_unique<Flusher>(fs(), *layers->inodes, gate, walks);
            error_marker.start([this] { record_errors_now(); });
        }
    }
    // Also by what was met before these layers.
    if (read_only_by_error.load()) fs().read_only.store(true);
    if (mmp)
        mmp->set_lost_callback([this](const Error& why) {
            if (why.code == EBUSY) write_fence->fence(why);
            layers->journal->abort(why);
        });
    return {};
}

// The fast commits are replayed in memory first: a tag that lies leaves the image as the ordinary recovery left it.
// What came of them is then one transaction of the log, which takes their place as a whole.
Result<void> Volume::State::replay_logged_fast_commits(const format::SuperBlock& super,
                                                       const std::vector<BlockRun>& runs) {
    const std::shared_ptr<BlockDevice> target = device;
    const bool read_only = options.fs.read_only;
    auto overlay = std::make_shared<OverlayDevice>(target);
    auto replayed = [&]() -> Result<void> {
        device = overlay;
        options.fs.read_only = false;
        TRY(assemble(super, runs, false, true));
        OrphanList owner(fs(), *layers->inodes);
        TRY(replay_fast_commits(recovery.fast_commits, fs(), *layers->inodes, owner));
        return layers->journal->close();
    };
    Result<void> done = replayed();
    layers.reset();
    device = target;
    options.fs.read_only = read_only;
    TRY(std::move(done));

    const format::Geometry geometry = TRY(format::Geometry::parse(super, device->size()));
    const std::uint32_t block_size = geometry.block_size;
    std::vector<std::pair<BlockNr, std::vector<std::byte>>> changed;
    Result<void> compared;
    overlay->for_each_page([&](std::uint64_t index, const SparsePages::Page&) {
        for (std::uint64_t at = round_down(index * SparsePages::page_size, std::uint64_t{block_size});
             compared && at < (index + 1) * SparsePages::page_size; at += block_size) {
            const BlockNr block(at / block_size);
            if (at + block_size > device->size() || (!changed.empty() && changed.back().first == block)) continue;
            std::vector<std::byte> before(block_size), after(block_size);
            compared = device->read(at, before);
            if (compared) compared = overlay->read(at, after);
            if (compared && before != after) changed.emplace_back(block, std::move(after));
        }
    });
    TRY(std::move(compared));
    if (read_only) {
        for (const auto& [block, bytes] : changed) TRY(device->write(block.value * block_size, bytes));
        return {};
    }
    replaces_log = true;
    auto logged = [&]() -> Result<void> {
        TRY(assemble(super, runs, true, false));
        {
            Handle handle = TRY(layers->journal->start(static_cast<unsigned>(changed.size()) + 1));
            for (const auto& [block, bytes] : changed) {
                BufferRef buffer = TRY(layers->buffers->get(block, "fast commit"));
                TRY(handle.get_create_access(buffer));
                std::memcpy(buffer->data().data(), bytes.data(), bytes.size());
            }
        }
        return layers->journal->close();
    };
    done = logged();
    replaces_log = false;
    layers.reset();
    return done;
}

Result<void> Volume::State::finish_orphan(Inode& inode) {
    if (inode.links() == 0) return delete_inode(inode, *layers->inodes, *orphans);
    // A truncate that was under way.
    WriteLock guard(inode.rw);
    if (inode.has_map()) TRY(finish_truncate(inode));
    Handle handle = TRY(fs().journal.start(OrphanList::credits() + 2));
    return orphans->remove(handle, inode);
}

Result<void> Volume::State::finish_orphans() {
    const bool read_only = fs().read_only.exchange(false);  // an overlay is written, not the image
    auto finish = [&]() -> Result<void> {
        const std::vector<InodeNr> found = TRY(orphans->load());
        for (InodeNr number : found) {
            Result<InodeRef> inode = layers->inodes->get(number, true);
            if (!inode) {
                log(fmt::format("orphan: {}", inode.error().what));
                continue;
            }
            if (Result<void> finished = finish_orphan(**inode); !finished) {
                if (!options.fs.read_only) return finished;
                orphans->report_skipped(fmt::format("orphan list: {}", finished.error().what));
                continue;
            }
            ++orphans_processed;
        }
        if (options.fs.read_only && orphans_processed) return fs().journal.commit_all();
        return {};
    };
    Result<void> done = finish();
    fs().read_only.store(read_only || read_only_by_error.load());
    return done;
}

Result<std::unique_ptr<Volume>> Volume::open(std::shared_ptr<BlockDevice> device, const VolumeOptions& options,
                                             LogCallback log) {
    auto state = std::make_unique<State>();
    state->image = state->device = std::move(device);
    state->options = options;
    if (options.fs.fixed_time) state->options.background = false;
    state->log = log ? std::move(log) : [](const std::string&) {};
    std::unique_ptr<Volume> volume(new Volume(std::move(state)));
    if (Result<void> opened = volume->state_->open(); !opened) {
        volume->state_->closed = true;  // nothing to write back
        State& s = *volume->state_;
        s.error_marker.stop();
        s.flusher.reset();
        s.deleter.reset();
        if (s.layers && s.layers->journal && !options.fs.read_only) s.layers->journal->abort(opened.error());
        return fail(opened.error());
    }
    return volume;
}

}  // namespace uext4

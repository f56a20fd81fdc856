#include "volume/volume.h"

#include "device/fenced_device.h"
#include "device/overlay_device.h"
#include "inode/super_access.h"
#include "sync/atomic_point.h"
#include "volume/deleter.h"
#include "volume/fast_commit_replay.h"
#include "volume/flusher.h"
#include "volume/journal_location.h"
#include "volume/multiple_mount.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <future>
#include <set>
#include <thread>

namespace uext4 {

namespace {

// The layers below the volume, from one superblock. Built twice when there is a journal: first to find it.
struct Layers {
    format::Geometry geometry;
    std::unique_ptr<BufferCache> buffers;
    std::unique_ptr<Journal> journal;
    std::unique_ptr<Allocator> allocator;
    std::unique_ptr<PageCache> pages;
    std::unique_ptr<FsContext> fs;
    std::unique_ptr<InodeTable> inodes;

    Layers() = default;
    Layers(Layers&&) = default;
    Layers& operator=(Layers&&) = delete;
    // Upper layers go first.
    ~Layers() {
        if (inodes) inodes->evict_all();
        inodes.reset();
        fs.reset();
        pages.reset();
        allocator.reset();
        journal.reset();
        buffers.reset();
    }
};

std::uint64_t metadata_limit(const VolumeOptions& o) {
    return std::clamp<std::uint64_t>(o.cache_bytes / 4, std::uint64_t{4} << 20, std::uint64_t{64} << 20);
}

Result<format::SuperBlock> load_super(BlockDevice& device, const VolumeOptions& options) {
    format::SuperBlock super;
    const std::uint64_t at = options.backup_super ? *options.backup_super * 1024 : format::super_offset;
    if (device.size() < at + sizeof super)
        return options.backup_super ? fail(EINVAL, "{}: superblock: option sb={}: the image ends before it",
                                           device.name(), *options.backup_super)
                                    : fail(EINVAL, "{}: superblock: {} bytes are too few for a file system",
                                           device.name(), device.size());
    TRY(device.read(at, std::as_writable_bytes(std::span(&super, 1))));
    if (super.magic != format::super_magic)
        return fail(EINVAL, "{}: no ext2, ext3 or ext4 file system (s_magic is {:#06x})", device.name(),
                    super.magic.get());
    if (!format::super_checksum_ok(super))
        return fail(EUCLEAN, "{}: superblock: bad checksum{}", device.name(),
                    options.backup_super ? "" : "; option sb= reads a backup");
    return super;
}

std::uint32_t seconds_now() { return static_cast<std::uint32_t>(::time(nullptr)); }

}  // namespace

struct Volume::State {
    std::shared_ptr<BlockDevice> device;  // what the layers use: the image, or an overlay on it
    std::shared_ptr<BlockDevice> image;
    VolumeOptions options;
    LogCallback log;
    ErrorPolicy errors = ErrorPolicy::carry_on;
    std::unique_ptr<MultipleMount> mmp;
    std::shared_ptr<FencedDevice> fence;  // before `image`, with mmp
    std::optional<Layers> layers;
    std::unique_ptr<Orphans> orphans;
    std::unique_ptr<Namespace> names;
    FreezeGate gate;
    std::unique_ptr<Deleter> deleter;
    std::unique_ptr<Flusher> flusher;
    RecoveryReport recovery;
    std::uint64_t orphans_finished = 0;
    std::uint64_t overhead = 0;
    std::atomic<bool> damaged{false}, panicking{false};
    Mutex told_lock{Rank::Leaf, "Volume::told"};
    std::set<std::string> told UEXT4_GUARDED_BY(told_lock);  // damage that the log has
    Mutex freeze_lock{Rank::Topology, "Volume::freeze"};
    bool frozen = false;
    bool closed = false;
    bool supersedes = false;  // the log that is opened holds fast commits that were replayed

    FsContext& fs() { return *layers->fs; }

    Result<void> assemble(const format::SuperBlock& super, std::vector<BlockRun> log_runs, bool with_log, bool recount);
    Result<void> open();
    Result<void> begin_writing();
    Result<void> finish_orphans();
    Result<void> replay_fast(const format::SuperBlock& super, const std::vector<BlockRun>& runs);
    Result<void> take_over_journal_error();
    Result<void> write_super(const std::function<void(format::SuperBlock&)>& change);
    // Of a mount that goes on: whether there may be something in the log. Where it is not known what the device says of
    // that, nothing goes there any more.
    Result<void> announce(const std::function<void(format::SuperBlock&)>& change);
    Result<void> write_everything();
    void met_corruption(const Error& error);
    Result<void> mark_errors();
    [[noreturn]] void panic();
    // One damage is met on several levels of an operation, and by each one that comes by.
    bool is_news(const Error& error);
};

Result<void> Volume::State::assemble(const format::SuperBlock& super, std::vector<BlockRun> log_runs, bool with_log,
                                     bool recount) {
    layers.reset();
    layers.emplace();
    Layers& l = *layers;
    l.geometry = TRY(format::Geometry::parse(super, device->size()));
    l.buffers =
        std::make_unique<BufferCache>(*device, l.geometry.block_size, l.geometry.blocks_count, metadata_limit(options));
    JournalOptions j;
    j.commit_interval = options.fs.read_only ? std::chrono::milliseconds(0) : options.commit_interval;
    j.barrier = options.barrier;
    j.checksums = l.geometry.metadata_csum();
    j.wide = l.geometry.has_incompat(format::incompat::bit64);
    j.close_at_bytes = std::max<std::uint64_t>(options.cache_bytes / 4, std::uint64_t{1} << 20);
    j.waiting_bytes = std::max<std::uint64_t>(options.cache_bytes, std::uint64_t{1} << 20);
    j.on_abort = [this](const Error& why) {
        atomic_point("FsContext::read_only", &layers);
        if (layers && layers->fs) layers->fs->read_only.store(true);
        log(fmt::format("the journal was aborted, the file system is read-only now: {}", why.what));
        if (errors == ErrorPolicy::panic) panic();
    };
    j.after_fast_commits = supersedes;
    if (with_log) l.journal = TRY(Journal::open(*l.buffers, log_runs, std::move(j)));
    else l.journal = Journal::create_none(*l.buffers, std::move(j));
    l.allocator =
        TRY(Allocator::open(l.geometry, *l.buffers, *l.journal, super.free_blocks(), super.free_inodes_count, recount));
    l.allocator->set_discard(options.discard);
    l.allocator->set_on_damage([this](const Error& e) {
        met_corruption(e);
        return errors == ErrorPolicy::carry_on;
    });
    if (with_log) l.allocator->set_log(log_runs);
    const std::uint32_t folio = std::max<std::uint32_t>(options.folio_bytes, l.geometry.block_size);
    l.pages = std::make_unique<PageCache>(options.cache_bytes, folio, l.geometry.block_size);
    l.fs.reset(new FsContext{l.geometry, *device, *l.buffers, *l.journal, *l.allocator, *l.pages, options.fs, log,
                             [this](const Error& e) { met_corruption(e); }, options.fs.read_only});
    if (options.backup_super) l.fs->super_offset = *options.backup_super * 1024;
    l.inodes = std::make_unique<InodeTable>(*l.fs);
    return {};
}

bool Volume::State::is_news(const Error& error) {
    constexpr std::size_t most = 256;
    MutexLock guard(told_lock);
    if (told.size() >= most) told.clear();
    return told.insert(error.what).second;
}

void Volume::State::met_corruption(const Error& error) {
    if (is_news(error)) log(fmt::format("damage: {}", error.what));
    damaged.store(true);
    if (errors == ErrorPolicy::panic) panic();
    if (errors == ErrorPolicy::remount_ro && layers && layers->fs && !layers->fs->read_only.exchange(true))
        log("errors=remount-ro: the file system is read-only now");
}

Result<void> Volume::State::mark_errors() {
    return write_super(
        [](format::SuperBlock& s) { s.state = static_cast<std::uint16_t>(s.state | format::super_state::errors); });
}

// The end of the process, as errors=panic asks for; the mark of it comes first. Whatever locks the caller holds, this
// needs the device alone, and a device that hangs is not waited for.
void Volume::State::panic() {
    constexpr std::chrono::seconds patience{5};
    if (layers && layers->fs) layers->fs->read_only.store(true);
    if (panicking.exchange(true)) {
        std::this_thread::sleep_for(patience);  // somebody else is at it
    } else if (device && !options.fs.read_only) {
        try {
            std::promise<void> marked;
            std::future<void> done = marked.get_future();
            std::thread([&] {
                (void)mark_errors();
                marked.set_value();
            }).detach();
            (void)done.wait_for(patience);
        } catch (const std::exception&) {  // no thread
            (void)mark_errors();
        }
    }
    std::abort();
}

Result<void> Volume::State::write_super(const std::function<void(format::SuperBlock&)>& change) {
    format::SuperBlock super;
    TRY(device->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    change(super);
    format::set_super_checksum(super);
    TRY(device->write(format::super_offset, bytes_of(super)));
    return device->flush();
}

Result<void> Volume::State::announce(const std::function<void(format::SuperBlock&)>& change) {
    Result<void> written = write_super(change);
    if (!written) fs().journal.abort(written.error());
    return written;
}

Result<void> Volume::State::open() {
    format::SuperBlock super = TRY(load_super(*device, options));
    const format::Support support =
        format::support_for(super.feature_compat, super.feature_incompat, super.feature_ro_compat);
    if (!support.readable)
        return fail(EOPNOTSUPP, "{}: features that are not supported: {}", device->name(), support.why);
    if (!support.writable && !options.fs.read_only)
        return fail(EROFS, "{}: can only be opened read-only because of: {}", device->name(), support.why);
    const bool external = super.has_compat(format::compat::has_journal) && super.journal_inum == 0;
    if (external && !options.fs.read_only)
        return fail(EROFS, "{}: can only be opened read-only because of: has_journal on another device (s_journal_dev)",
                    device->name());
    if (external && super.has_incompat(format::incompat::recover) && options.replay && !options.backup_super)
        return fail(EOPNOTSUPP,
                    "{}: needs_recovery, and the journal is on another device (s_journal_dev): only noload "
                    "shows it, as it is",
                    device->name());
    if (device->read_only() && !options.fs.read_only) return fail(EROFS, "{}: cannot be written", device->name());
    for (const std::string& unmet : add_superblock_defaults(options, super)) log(unmet);
    errors = options.errors;
    if (errors == ErrorPolicy::from_superblock) {
        errors = super.errors == format::error_policy::panic        ? ErrorPolicy::panic
                 : super.errors == format::error_policy::remount_ro ? ErrorPolicy::remount_ro
                                                                    : ErrorPolicy::carry_on;
    }
    const bool wants_recovery = super.has_incompat(format::incompat::recover);
    bool dirty = wants_recovery || super.last_orphan != 0 || super.has_ro_compat(format::ro_compat::orphan_present);
    if (!options.fs.read_only) {
        const format::Geometry geometry = TRY(format::Geometry::parse(super, device->size()));
        mmp = TRY(MultipleMount::claim(*image, geometry, log));
        if (mmp) device = fence = std::make_shared<FencedDevice>(image);
        super = TRY(load_super(*device, options));
    }
    if (options.fs.read_only && options.replay && dirty && !options.backup_super)
        device = std::make_shared<OverlayDevice>(image);
    std::vector<BlockRun> runs;
    const bool has_journal = super.has_compat(format::compat::has_journal);
    bool with_log = false;
    const bool replays = options.replay && !options.backup_super;
    if (has_journal && (super.journal_inum != 0 || !options.fs.read_only)) {
        const bool read_only = std::exchange(options.fs.read_only, true);
        Result<void> first = assemble(super, {}, false, false);
        options.fs.read_only = read_only;
        TRY(std::move(first));
        if (replays || !options.fs.read_only) {
            runs = TRY(locate_journal(*layers->inodes, layers->geometry));
            const std::uint32_t block_size = layers->geometry.block_size;
            const std::uint64_t blocks = layers->geometry.blocks_count;
            layers.reset();
            if (wants_recovery) {
                const bool had_errors = super.state & format::super_state::errors;
                recovery = TRY(recover(*device, block_size, blocks, runs));
                super = TRY(load_super(*device, options));
                // The log may hold an earlier superblock than the one that was marked.
                if (had_errors && !(super.state & format::super_state::errors)) {
                    TRY(mark_errors());
                    super = TRY(load_super(*device, options));
                }
                if (recovery.fast_commits.any()) {
                    TRY(replay_fast(super, runs));
                    super = TRY(load_super(*device, options));
                }
                // On the image the mark stays until the unmount has written the counters: without it they would be
                // believed.
                if (options.fs.read_only) {
                    TRY(write_super([](format::SuperBlock& s) {
                        s.feature_incompat = s.feature_incompat & ~format::incompat::recover;
                    }));
                    super = TRY(load_super(*device, options));
                }
            }
            with_log = !options.fs.read_only;
        }
    }
    const bool recount = wants_recovery || !(super.state & format::super_state::valid);
    if (!options.fs.read_only) {
        // Before the log is used the superblock on disk says that it must be replayed.
        TRY(write_super([&](format::SuperBlock& s) {
            if (has_journal) s.feature_incompat = s.feature_incompat | format::incompat::recover;
            else s.state = static_cast<std::uint16_t>(s.state & ~format::super_state::valid);
            if (s.has_compat(format::compat::dir_index)) format::record_hash_sign(s);
            s.mnt_count = static_cast<std::uint16_t>(s.mnt_count + 1);
            s.mtime = seconds_now();
            s.wtime = seconds_now();
        }));
    }
    TRY(assemble(super, runs, with_log, recount));
    TRY(take_over_journal_error());
    orphans = std::make_unique<Orphans>(fs(), *layers->inodes);
    names = std::make_unique<Namespace>(fs(), *layers->inodes, *orphans);
    const bool may_finish = !options.fs.read_only || device != image;
    if (replays && may_finish) TRY(finish_orphans());
    if (!options.fs.read_only) {
        if (orphans->uses_file()) {
            Handle handle = TRY(fs().journal.start(2));
            TRY(orphans->mark_present(handle, true));
        }
        deleter = std::make_unique<Deleter>(fs(), *layers->inodes, *orphans, gate, options.background);
        if (options.background) flusher = std::make_unique<Flusher>(fs(), *layers->inodes, gate);
    }
    if (mmp)
        mmp->watch([this](const Error& why) {
            fence->close(why);
            layers->journal->abort(why);
        });
    return {};
}

// The fast commits are replayed in memory first: a tag that lies leaves the image as the ordinary recovery left it.
// What came of them is then one transaction of the log, which takes their place as a whole.
Result<void> Volume::State::replay_fast(const format::SuperBlock& super, const std::vector<BlockRun>& runs) {
    const std::shared_ptr<BlockDevice> target = device;
    const bool read_only = options.fs.read_only;
    auto overlay = std::make_shared<OverlayDevice>(target);
    auto replayed = [&]() -> Result<void> {
        device = overlay;
        options.fs.read_only = false;
        TRY(assemble(super, {}, false, true));
        Orphans owner(fs(), *layers->inodes);
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
    supersedes = true;
    auto logged = [&]() -> Result<void> {
        TRY(assemble(super, runs, true, false));
        {
            Handle handle = TRY(layers->journal->start(static_cast<unsigned>(changed.size()) + 1));
            for (const auto& [block, bytes] : changed) {
                BufferRef buffer = TRY(layers->buffers->get(block, "fast commit"));
                TRY(handle.create_access(buffer));
                std::memcpy(buffer->data().data(), bytes.data(), bytes.size());
            }
        }
        return layers->journal->close();
    };
    done = logged();
    supersedes = false;
    layers.reset();
    return done;
}

// A journal that gave up left a word of it in the log. It goes to the superblock, where e2fsck looks, before the log
// may forget it.
Result<void> Volume::State::take_over_journal_error() {
    const int code = layers->journal->has_log() ? layers->journal->recorded_error() : recovery.recorded_error;
    if (code == 0) return {};
    log(fmt::format("the journal was aborted by an earlier mount: {}", std::strerror(code)));
    if (options.fs.read_only) return {};
    damaged.store(true);
    TRY(mark_errors());
    return layers->journal->forget_recorded_error();
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
            if ((*inode)->links() == 0) {
                TRY(delete_inode(**inode, *layers->inodes, *orphans));
            } else {
                // A truncate that was under way: blocks past the size go.
                WriteLock guard((*inode)->rw);
                Handle handle = TRY(fs().journal.start(64));
                const std::uint64_t bs = fs().block_size();
                if (!(*inode)->is_inline())
                    TRY(remove_blocks(**inode, handle, LogicalBlock(divide_up((*inode)->size_hint(), bs)),
                                      LogicalBlock(~std::uint64_t{0})));
                if (!handle.extend(Orphans::credits() + 2)) TRY(handle.restart(Orphans::credits() + 2));
                TRY(orphans->remove(handle, **inode));
            }
            ++orphans_finished;
        }
        if (options.fs.read_only && orphans_finished) return fs().journal.commit_all();
        return {};
    };
    Result<void> done = finish();
    fs().read_only.store(read_only);
    return done;
}

Volume::Volume(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Volume>> Volume::open(std::shared_ptr<BlockDevice> device, const VolumeOptions& options,
                                             LogCallback log) {
    auto state = std::make_unique<State>();
    state->image = state->device = std::move(device);
    state->options = options;
    state->log = log ? std::move(log) : [](const std::string&) {};
    std::unique_ptr<Volume> volume(new Volume(std::move(state)));
    if (Result<void> opened = volume->state_->open(); !opened) {
        volume->state_->closed = true;  // nothing to write back
        State& s = *volume->state_;
        s.flusher.reset();
        s.deleter.reset();
        if (s.layers && s.layers->journal && !options.fs.read_only) s.layers->journal->abort(opened.error());
        return fail(opened.error());
    }
    return volume;
}

Volume::~Volume() {
    if (!state_) return;
    if (Result<void> r = close(); !r) state_->log(fmt::format("close: {}", r.error().what));
    State& s = *state_;
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
    s.flusher.reset();
    Result<void> first;
    if (s.frozen) first = thaw();  // the deleter may have waited for it
    if (Result<void> r = Flusher::flush_all(*s.layers->inodes); !r && first) first = std::move(r);
    s.deleter.reset();
    // What failed is tried once more, and told of if it still does.
    if (Result<void> r = Flusher::flush_all(*s.layers->inodes, s.log); !r && first) first = std::move(r);
    FsContext& fs = s.fs();
    if (s.orphans->uses_file() && !fs.journal.aborted()) {
        Result<Handle> handle = fs.journal.start(2);
        if (handle) (void)s.orphans->mark_present(*handle, false);
    }
    const SpaceCounts counts = fs.allocator.counts();
    if (Result<void> r = fs.journal.close(); !r && first) first = std::move(r);
    if (!fs.journal.aborted()) {
        Result<void> r = s.write_super([&](format::SuperBlock& super) {
            super.feature_incompat = super.feature_incompat & ~format::incompat::recover;
            std::uint16_t state = super.state;
            if (!fs.geometry.has_compat(format::compat::has_journal)) state |= format::super_state::valid;
            if (s.damaged.load() || !first) state |= format::super_state::errors;
            super.state = state;
            super.set_free_blocks(fs.allocator.super_free_blocks());
            super.free_inodes_count = static_cast<std::uint32_t>(counts.free_inodes);
            super.wtime = seconds_now();
        });
        if (!r && first) first = std::move(r);
    } else if (first) {
        first = fail(EIO, "the journal was aborted: the image must be replayed");
    }
    if (s.mmp) s.mmp->release();
    return first;
}

FsContext& Volume::fs() { return state_->fs(); }
InodeTable& Volume::inodes() { return *state_->layers->inodes; }
Orphans& Volume::orphans() { return *state_->orphans; }
Namespace& Volume::names() { return *state_->names; }
FreezeGate& Volume::gate() { return state_->gate; }
const VolumeOptions& Volume::options() const { return state_->options; }
const format::Geometry& Volume::geometry() const { return state_->layers->geometry; }
const RecoveryReport& Volume::recovery() const { return state_->recovery; }
std::uint64_t Volume::orphans_finished() const { return state_->orphans_finished; }
bool Volume::read_only() const { return state_->fs().read_only.load(); }

Result<void> Volume::State::write_everything() {
    // What an aborted journal keeps from being written was told of when it was aborted, and is once more by close().
    const auto tell = [this](const std::string& line) {
        if (!fs().journal.aborted()) log(line);
    };
    Result<void> first = Flusher::flush_all(*layers->inodes, tell);
    Result<void> committed = fs().journal.commit_all();
    if (committed) {
        committed = device->flush();
        if (!committed) fs().journal.abort(committed.error());  // what the device has dropped is not known
    }
    if (!first) return first;
    return committed;
}

Result<void> Volume::sync() {
    State& s = *state_;
    if (s.options.fs.read_only) return {};
    const FreezeGate::SyncPass pass(s.gate);
    return pass ? s.write_everything() : Result<void>();
}

SpaceCounts Volume::counts() const { return state_->layers->allocator->counts(); }

std::uint64_t Volume::overhead_blocks() {
    State& s = *state_;
    if (s.overhead == 0) {
        const format::Geometry& g = geometry();
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
    if (s.deleter) s.deleter->finish();
    s.gate.close();
    auto settle = [&]() -> Result<void> {
        TRY(s.write_everything());
        TRY(s.fs().journal.checkpoint_all());
        const SpaceCounts counts = this->counts();
        return s.announce([&](format::SuperBlock& super) {
            super.feature_incompat = super.feature_incompat & ~format::incompat::recover;
            if (!geometry().has_compat(format::compat::has_journal))
                super.state = static_cast<std::uint16_t>(super.state | format::super_state::valid);
            super.set_free_blocks(s.fs().allocator.super_free_blocks());
            super.free_inodes_count = static_cast<std::uint32_t>(counts.free_inodes);
        });
    };
    Result<void> done = settle();
    s.frozen = done.has_value();
    if (s.frozen) s.gate.all_is_durable();
    else s.gate.open();
    return done;
}

Result<void> Volume::thaw() {
    State& s = *state_;
    MutexLock guard(s.freeze_lock);
    if (!s.frozen) return fail(EINVAL, "the file system is not frozen");
    s.frozen = false;
    Result<void> marked = s.announce([&](format::SuperBlock& super) {
        if (geometry().has_compat(format::compat::has_journal))
            super.feature_incompat = super.feature_incompat | format::incompat::recover;
        else super.state = static_cast<std::uint16_t>(super.state & ~format::super_state::valid);
    });
    s.gate.open();
    return marked;
}

void Volume::finish_deletions() {
    if (state_->deleter) state_->deleter->finish();
}

}  // namespace uext4

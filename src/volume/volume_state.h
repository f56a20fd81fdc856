// A volume's inside: what is open, and the steps of opening, marking and closing.
#pragma once

#include "device/fenced_device.h"
#include "volume/error_recorder.h"
#include "volume/flusher.h"
#include "volume/inode_deleter.h"
#include "volume/multi_mount_protection.h"
#include "volume/volume.h"

#include <ctime>
#include <optional>
#include <set>
#include <string>

namespace uext4 {

// The layers below the volume, from one superblock. Built twice when there is a journal: first to find it.
struct VolumeLayers {
    format::Geometry geometry;
    std::unique_ptr<BufferCache> buffers;
    std::unique_ptr<Journal> journal;
    std::unique_ptr<Allocator> allocator;
    std::unique_ptr<PageCache> pages;
    std::unique_ptr<FsContext> fs;
    std::unique_ptr<InodeTable> inodes;

    VolumeLayers() = default;
    VolumeLayers(VolumeLayers&&) = default;
    VolumeLayers& operator=(VolumeLayers&&) = delete;
    // Upper layers go first.
    ~VolumeLayers() {
        if (pages) pages->leave_memory_limit();
        if (inodes) inodes->evict_all();
        inodes.reset();
        fs.reset();
        pages.reset();
        allocator.reset();
        journal.reset();
        buffers.reset();
    }
};

struct Volume::State {
    std::shared_ptr<BlockDevice> device;  // what the layers use: the image, or an overlay on it
    std::shared_ptr<BlockDevice> image;
    VolumeOptions options;
    LogCallback log;
    ErrorPolicy errors = ErrorPolicy::continue_;
    std::unique_ptr<MultiMountProtection> mmp;
    std::shared_ptr<FencedDevice> write_fence;  // before `image`, with mmp
    std::optional<VolumeLayers> layers;
    std::unique_ptr<OrphanList> orphans;
    std::unique_ptr<Namespace> names;
    FreezeGate gate;
    InodeWalks walks;
    ErrorRecorder error_marker;  // not without background threads
    std::unique_ptr<InodeDeleter> deleter;
    std::unique_ptr<Flusher> flusher;
    RecoveryReport recovery;
    std::uint64_t orphans_processed = 0;
    bool was_not_unmounted = false;
    std::uint64_t overhead = 0;
    std::atomic<bool> damaged{false}, read_only_by_error{false}, panicking{false};
    Mutex error_lock{Rank::Leaf, "Volume::told"};
    std::set<std::string> reported_errors UEXT4_GUARDED_BY(error_lock);  // damage that the log has
    // What the superblock is to say of the damage that was met since it was told of it.
    struct RecordedError {
        std::int64_t time = 0;  // seconds
        Error error;
    };
    std::uint32_t error_count UEXT4_GUARDED_BY(error_lock) = 0;
    RecordedError first_error UEXT4_GUARDED_BY(error_lock), last_error UEXT4_GUARDED_BY(error_lock);
    std::uint64_t unreadable UEXT4_GUARDED_BY(error_lock) = 0;  // blocks, since:
    std::chrono::nanoseconds unreadable_since UEXT4_GUARDED_BY(error_lock){};
    Mutex freeze_lock{Rank::Freeze, "Volume::freeze", 0};
    bool frozen = false;
    bool closed = false;
    bool replaces_log = false;  // the log that is opened holds fast commits that were replayed

    Mutex read_only_lock{Rank::Leaf, "Volume::tell_read_only", 0};
    std::function<void()> tell_read_only UEXT4_GUARDED_BY(read_only_lock);

    FsContext& fs() { return *layers->fs; }
    std::int64_t seconds_now() const { return options.fs.fixed_time.value_or(::time(nullptr)); }

    Result<void> assemble(const format::SuperBlock& super, std::vector<BlockRun> log_runs, bool with_log, bool recount);
    Result<void> open();
    Result<void> finish_orphan(Inode& inode);
    Result<void> finish_orphans();
    Result<void> replay_logged_fast_commits(const format::SuperBlock& super, const std::vector<BlockRun>& runs);
    Result<void> import_journal_error();
    Result<void> write_super(const std::function<void(format::SuperBlock&)>& change);
    // Of a mount that goes on: whether there may be something in the log. Where it is not known what the device says of
    // that, nothing goes there any more.
    Result<void> write_super_durably(const std::function<void(format::SuperBlock&)>& change);
    Result<void> write_all();
    void store_all_pending_times();
    void notify_read_only();
    void handle_corruption(const Error& error);
    void log_error(const Error& error);
    void log_suppressed_errors();
    void note_error(const Error& error);
    void fill_error_fields(format::SuperBlock& super);
    Result<void> record_errors();  // on the device, past the journal: for who ends
    // In the running transaction, from inside of the gate. False: there are none.
    Result<bool> record_errors_in_log();
    void record_errors_now();  // and durable; not while frozen
    [[noreturn]] void panic();
    // One damage is met on several levels of an operation, and by each one that comes by.
    bool is_new_error(const Error& error);
};

}  // namespace uext4

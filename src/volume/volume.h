// A mounted file system: all layers together, from open to close.
#pragma once

#include "device/block_device.h"
#include "file/file_io.h"
#include "namespace/namespace.h"
#include "volume/freeze_gate.h"
#include "volume/options.h"

#include <memory>

namespace uext4 {

using LogCallback = std::function<void(const std::string&)>;

class Volume {
public:
    // Reads the superblock, recovers the journal (read-only: in memory), finishes orphans. EROFS, EOPNOTSUPP name the
    // feature that does not permit what is asked; EUCLEAN the structure that is damaged.
    static Result<std::unique_ptr<Volume>> open(std::shared_ptr<BlockDevice> device, const VolumeOptions& options,
                                                LogCallback log);
    ~Volume();  // close(), its error told to the log

    // Writes everything back, empties the journal, marks the file system clean. EIO names the first file whose data
    // could not be written. The volume is closed afterwards in any case.
    Result<void> close();

    FsContext& fs();
    InodeTable& inodes();
    OrphanList& orphans();
    Namespace& names();
    FreezeGate& gate();
    const VolumeOptions& options() const;
    // With option sb=: what is wrong with the primary superblock, empty where it is sound.
    std::string primary_superblock_problem() const;
    const format::Geometry& geometry() const;
    const RecoveryReport& recovery() const;  // what was found in the journal at open
    std::uint64_t orphans_processed() const;
    // It was found as a mount that still ran, or was killed, leaves it: the superblock's counters were not believed.
    bool was_not_unmounted() const;
    bool read_only() const;

    // All dirty data, then one commit.
    Result<void> sync();
    // For whoever uses more files than memory is to hold, with Call held at most: lets go of what is cached of others,
    // and of these, and stores times that keep others, in the transaction that runs (but not while frozen). Waits for a
    // commit where far too many wait for one.
    void shrink_inodes();
    // Told once the file system has become read-only by damage, or by the end of the journal: by any thread, with locks
    // held, so that `tell` must not wait. Empty: nobody.
    void set_read_only_callback(std::function<void()> tell);
    SpaceCounts counts() const;
    std::uint64_t overhead_blocks();  // the file system's own structures (statfs)
    // Nothing changes on the device until thaw(); the image, copied, needs no replay. Does not nest: EBUSY for what is
    // frozen, EINVAL for the thaw of what is not. What makes durable does not wait; close() thaws.
    Result<void> freeze();
    Result<void> thaw();
    // Until all is deleted that is queued now (close and freeze do it as well). Nothing may be held: the deleter may
    // wait for a thaw.
    void wait_for_deletions();
    // For whoever answers for inodes without references to them: InodeDeleter::set_keep_callback().
    void set_keep_callback(std::function<bool(const InodeRef&)> keeps);
    // For who met ENOSPC, with nothing held: waits for what gives space back (deletions, writeback of promised data, a
    // commit of what was freed, discards), each for what there is of it now. `given_back`: free_count_generation()
    // before the attempt. False when there is nothing to gain by another attempt.
    bool wait_for_space(std::uint64_t given_back);
    std::uint64_t free_count_generation() const;

    struct State;

private:
    explicit Volume(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace uext4

// The journal: handles, transactions, commit, checkpoint (jbd2's format).
//
// Life of a transaction: running -> locked (no new handle; waits for the open ones) -> copied (every block's bytes are
// copied; a new running transaction opens) -> logged -> flushed -> commit record -> durable -> checkpointed.
//
// Invariants
//   J1  Blocks are copied for the log when no handle is open, so a copy is what the transaction's handles left.
//   J2  What is checksummed is what is logged: both are made from the copy. File contents have one copy, the block's
//       buffer, which nobody changes before the next commit copies to it: until then the block cannot be used again.
//   J3  The commit record is written after a flush that follows all its log blocks and all data written before.
//   J4  The log's tail moves past a transaction only when each of its blocks is home and flushed, or a newer durable
//       transaction holds the block.
//   J5  A block that a transaction freed is revoked in it; it may be used again only when that transaction is durable.
//   J6  After an abort nothing is written to the log or home any more; every start() answers EROFS, every wait EIO.
// Without a journal (create_without_log) the same transactions are written home at commit, and nothing is atomic.
#pragma once

#include "base/numbers.h"
#include "base/result.h"
#include "journal/buffer.h"
#include "journal/fast_commit.h"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace uext4 {

using Tid = std::uint64_t;  // transaction number, from 1 at each open; 0 means none

struct BlockRun {
    BlockNr first;
    std::uint64_t count = 0;
};

// File contents in a transaction (data=journal). Implemented above; the journal calls with no handle open.
class JournaledData {
public:
    virtual ~JournaledData() = default;
    // Protects client maps of the block, then copies its bytes to `out` (one block) and marks it as no longer owned by
    // a running transaction. Must not block on a folio or a handle.
    virtual void copy_for_commit(BlockNr block, Bytes out) = 0;
    // For a read before that, of what nobody else has. Must not block either. False: there is a folio that has it.
    virtual bool copy_uncommitted(Bytes /*out*/) const { return false; }
};

class Journal;
struct Transaction;

// An open operation on the running transaction. Its blocks become durable all together. Must be stopped (stop() or the
// destructor) by the thread that started it; holds rank Transaction meanwhile.
class Handle {
public:
    Handle() = default;
    Handle(Handle&&) noexcept;
    Handle& operator=(Handle&&) noexcept;
    ~Handle() { stop(); }

    // Revokes go to the log as well, and credits do not count them: one step frees at most so many blocks that may have
    // been journaled. The transaction's weight knows them when the next step begins.
    static constexpr std::uint64_t max_revokes_per_step = 2048;

    explicit operator bool() const { return transaction_ != nullptr; }
    Tid tid() const;
    unsigned credits() const { return credits_; }  // blocks it may still add

    // Makes room for at least `wanted` blocks in all. False when the transaction has no room: the caller brings its
    // structures to a valid state, then restart()s. Never false because a commit is waiting.
    [[nodiscard]] bool extend(unsigned wanted);
    // What the transaction holds, of freed blocks above all, is so much memory that it is to be committed: an operation
    // of many steps, each of which may take nothing of the log, ends one here and restart()s.
    bool needs_restart() const;
    // Stops and starts again with `wanted` credits, perhaps in a newer transaction; with as many as an extend() of this
    // handle was refused, where those are more: what asked for them then has them. On error the handle is closed.
    Result<void> restart(unsigned wanted, SourceLocation where = SourceLocation::current());
    void stop();

    // The buffer may be changed from now on, until the handle stops. Costs a credit when the block is new in the
    // transaction. EROFS after an abort.
    Result<void> get_write_access(const BufferRef& buffer);
    // The same for a block whose old contents do not matter: zeroed, marked up to date.
    Result<void> get_create_access(const BufferRef& buffer);
    // The block is being freed: not logged by this transaction any more, revoked, its buffer forgotten when this
    // transaction is durable. For metadata blocks and for blocks of journaled files, cached or not.
    Result<void> revoke(BlockNr block);
    // File contents join the transaction; one credit when new. `owner` lives at least until copied or dropped.
    Result<void> journal_data(BlockNr block, std::shared_ptr<JournaledData> owner);
    // Runs on the thread that commits when the transaction is durable (not when it aborts). Must not block.
    void on_durable(std::function<void()> action);

private:
    friend class Journal;
    JournalState* journal_ = nullptr;
    Transaction* transaction_ = nullptr;
    unsigned credits_ = 0;
    unsigned refused_credits_ = 0;  // the most that the transaction had no room for
    // Exceptions under way when it began: whoever ends it because of a later one, ends it half done.
    int exceptions_at_start_ = 0;
};

struct JournalOptions {
    std::chrono::milliseconds commit_interval{5000};  // 0: only when asked
    bool barrier = true;                              // flushes are sent
    bool checksums = false;                           // the log gets csum v3 when it has none (metadata_csum)
    bool block_numbers_64bit = false;                 // the log gets 64-bit block numbers
    bool reserves_fast_commit_area = false;           // its end is left to them, by whoever else uses it
    bool replaces_fast_commits = false;               // the first transaction takes the place of the fast commits
    // Commit records carry this time (seconds since 1970), and a thread that asks the journal's thread for work waits
    // until all of it is done: what the log holds, and when freed blocks are free, depends on the operations alone.
    std::optional<std::int64_t> fixed_time;
    // What the running transaction holds stays in memory until it is copied for the log, however large that is: beyond
    // this much it is committed, and of twice as much no handle is started on it.
    std::uint64_t max_transaction_bytes = 16u << 20;
    // The copies that are not home yet are memory, too: from half of this on they are taken home, and beyond it, with
    // those that are just being logged, no transaction starts.
    std::uint64_t max_checkpoint_bytes = 128u << 20;
    // Called once, at the first abort, on whatever thread met the error; must not call the journal.
    std::function<void(const Error&)> on_abort;
};

struct JournalCounters {
    std::uint64_t commits = 0, blocks_logged = 0, revokes = 0, checkpoints = 0, handles = 0;
};

class Journal {
public:
    // A clean log (recover() has run). `super` is where the journal's superblock lies in `log` (block 0 of it).
    static Result<std::unique_ptr<Journal>> open(BufferCache& buffers, const std::vector<BlockRun>& log,
                                                 JournalOptions options);
    static std::unique_ptr<Journal> create_without_log(BufferCache& buffers, JournalOptions options);
    ~Journal();

    bool has_log() const;
    // Waits for log space, for memory that transactions hold and for a commit that is locking down. Nothing of rank
    // Transaction or below may be held: who has a handle open waits for none of them.
    // EROFS after an abort; ENOSPC when credits exceed what any transaction can hold.
    Result<Handle> start(unsigned credits, SourceLocation where = SourceLocation::current());
    unsigned max_credits() const;

    Tid running_tid() const;  // the transaction a handle would join now, or the newest if none is open
    // Nothing of this transaction has been written yet: its flush is still to come.
    bool is_open(Tid tid) const;
    bool is_durable(Tid tid) const { return durable_tid() >= tid; }
    Tid durable_tid() const;  // the newest that is
    // Commits `tid` if it is not yet, in the caller's thread when nobody writes the log, and waits until it is durable.
    // Rank: nothing from Transaction on may be held.
    Result<void> commit(Tid tid, SourceLocation where = SourceLocation::current());
    void request_commit(Tid tid);                                               // without waiting
    Result<void> commit_all(SourceLocation where = SourceLocation::current());  // whatever is running now
    // Writes home what is durable, up to this transaction, and takes it out of the log. Commits what is
    // running only where that has changed a block of theirs again.
    Result<void> checkpoint(Tid tid, SourceLocation where = SourceLocation::current());
    // Of a block that a handle has just forgotten, an older image may be on its way home: it has arrived.
    Result<void> wait_for_checkpoint_writes(SourceLocation where = SourceLocation::current());
    // Commits what is running, writes every committed block home and empties the log.
    Result<void> checkpoint_all(SourceLocation where = SourceLocation::current());
    // commit_all, checkpoint_all, marks the log empty, stops the threads.
    Result<void> close(SourceLocation where = SourceLocation::current());

    void abort(const Error& why);
    bool is_aborted() const;
    // The error that an earlier user of the log left in it when it gave up (a positive errno, or 0). The next write of
    // the journal's superblock clears it, so whoever opens the log must keep it elsewhere.
    int recorded_error() const;
    // Before the first handle: it is kept elsewhere now.
    Result<void> clear_recorded_error();
    JournalCounters counters() const;
    // The newest not yet checkpointed image of a journaled-data block, if there is one: a read of it from the device
    // would be stale. Copies `out.size()` bytes from `offset` in the block. Of the running transaction what no folio
    // has (JournaledData::copy_uncommitted), and then the whole block.
    bool read_journaled_data(BlockNr block, std::size_t offset, Bytes out);
    // One of these blocks was freed by a transaction that is not durable yet: its old contents may still be wanted, and
    // an older image of it may still go home or answer a read. Not to be written to but through the journal (J5).
    bool has_uncommitted_frees(BlockNr first, std::uint64_t count) const;
    bool has_uncommitted_frees() const;  // any block
    // No recovery writes an image of this transaction or an older one any more.
    Tid newest_tid_out_of_log() const;

private:
    friend class Handle;
    explicit Journal(std::unique_ptr<JournalState> state);
    std::unique_ptr<JournalState> state_;
};

struct RecoveryReport {
    bool needed = false;
    int recorded_error = 0;  // as Journal::recorded_error()
    std::uint64_t transactions = 0, blocks = 0, revoked = 0;
    FastCommits fast_commits;  // to be replayed by the caller; the log keeps them until its next transaction is durable
};
// Three passes over the log: scan, revoke, replay; then flush and an empty log (kept as it is when `reset` is false),
// but for its fast commits.
// EUCLEAN names the block of the log that lies. Errors of the last, unfinished transaction end the scan, as they must.
Result<RecoveryReport> recover(BlockDevice& device, std::uint32_t block_size, std::uint64_t blocks_count,
                               const std::vector<BlockRun>& log, bool reset = true);
// Is there anything to recover? Reads the journal's superblock only.
Result<bool> needs_recovery(BlockDevice& device, std::uint32_t block_size, const std::vector<BlockRun>& log);

}  // namespace uext4

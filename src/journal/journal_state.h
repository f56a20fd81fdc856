// The journal's inside: what its parts share. One thread at a time does all log writing: commits, and checkpoints
// between them, so a checkpoint that needs a commit first simply makes it. That is the journal's own thread, or whoever
// waits for a commit while nobody writes: a hand-over to another thread and back costs more than a small commit does.
#pragma once

#include "base/large_buffer.h"
#include "format/journal.h"
#include "journal/journal.h"
#include "journal/log_map.h"
#include "sync/condition.h"
#include "sync/thread.h"

#include <atomic>
#include <map>
#include <unordered_map>
#include <unordered_set>

namespace uext4 {

struct Transaction {
    Tid tid = 0;
    unsigned handles = 0;
    unsigned outstanding_credits = 0;  // credits of open handles that are not used yet
    bool locked = false;
    std::chrono::nanoseconds started{0};
    std::unordered_map<std::uint64_t, BufferRef> buffers;
    std::unordered_map<std::uint64_t, std::shared_ptr<JournaledData>> data;
    std::unordered_set<std::uint64_t> revoked_blocks;  // freed: not to be replayed from older transactions
    std::unordered_set<std::uint64_t> freed_blocks;    // freed: their buffers go when this is durable
    std::vector<std::function<void()>> durable_callbacks;
    void run_durable_callbacks() {
        for (const auto& action : std::exchange(durable_callbacks, {})) action();
    }

    bool empty() const { return buffers.empty() && data.empty() && freed_blocks.empty() && revoked_blocks.empty(); }
    std::size_t blocks() const { return buffers.size() + data.size(); }
    // About what it holds in memory: the blocks, a node and a place in a table for each number, and what each action
    // remembers.
    std::uint64_t bytes(std::uint32_t block_size) const {
        return blocks() * std::uint64_t{block_size} + (revoked_blocks.size() + freed_blocks.size()) * 40 +
               durable_callbacks.size() * 128;
    }
};

// What a durable transaction left to write home.
struct Checkpoint {
    std::uint32_t log_start = 0;  // where it begins in the log
    std::uint32_t sequence = 0;   // its number there
    std::uint64_t log_blocks = 0;
    std::unordered_map<std::uint64_t, BufferRef> buffers;
};

// A block as it goes into the log.
struct LogImage {
    BlockNr block;
    ConstBytes bytes;
    bool escaped = false;
    std::uint32_t checksum = 0;
};

struct JournalState {
    JournalState(BufferCache& b, JournalOptions o)
        : buffers(b), device(b.device()), options(std::move(o)), block_size(b.block_size()) {}

    Journal* owner = nullptr;
    BufferCache& buffers;
    BlockDevice& device;
    JournalOptions options;
    std::uint32_t block_size;

    // The log; only the writer changes head, and reads or writes these.
    bool has_log = false;
    LogMap log;
    format::JournalLayout layout;
    std::vector<std::byte> super_bytes;       // the journal's superblock as it is on disk
    std::atomic<bool> log_in_use = false;     // its s_start is not 0
    bool clears_fast_commit_feature = false;  // an empty log is one for kernels that do not know of fast commits, too
    std::uint32_t head = 0;                   // next block of the log to write
    // The number that the next logged transaction gets in the log. Without gaps, which recovery takes for the end:
    // transactions that changed nothing have a Tid, but no place in the log.
    std::uint32_t log_sequence = 1;

    mutable Mutex lock{Rank::Journal, "Journal::lists"};
    CondVar changed{"journal"};                             // a transaction was committed, space came, handles stopped
    CondVar work{"journal work"};                           // for the journal's thread
    CondVar drained{"handles"};                             // the locked transaction has no open handle any more
    bool writing UEXT4_GUARDED_BY(lock) = false;            // a thread is the log writer
    SourceLocation writer_location UEXT4_GUARDED_BY(lock);  // where it became that
    bool thread_waits UEXT4_GUARDED_BY(lock) = false;       // the journal's thread waits for the writer to end
    bool thread_idle UEXT4_GUARDED_BY(lock) = false;     // it waits without a time limit: start_commit_timer() wakes it
    bool work_requested UEXT4_GUARDED_BY(lock) = false;  // is_synchronous(): a thread waits until its work is done
    // The lock guards what these point to as well. The writer alone reads `committing` without it.
    std::unique_ptr<Transaction> running UEXT4_GUARDED_BY(lock);
    std::unique_ptr<Transaction> committing UEXT4_GUARDED_BY(lock);
    std::uint64_t committing_log_blocks UEXT4_GUARDED_BY(lock) = 0;  // what it takes of log_free at most
    std::map<Tid, Checkpoint> checkpoints UEXT4_GUARDED_BY(lock);
    // In which of them a block is: all blocks of all of them.
    std::unordered_map<std::uint64_t, Tid> checkpoint_of_block UEXT4_GUARDED_BY(lock);
    std::uint64_t log_free UEXT4_GUARDED_BY(lock) = 0;
    bool checkpoint_writing UEXT4_GUARDED_BY(lock) = false;           // images of a checkpoint are on their way
    std::uint64_t checkpoint_writes_done UEXT4_GUARDED_BY(lock) = 0;  // of such images
    // What left `checkpoints` is added to log_free once the superblock on disk says so.
    bool tail_update_pending UEXT4_GUARDED_BY(lock) = false;
    Tid next_tid UEXT4_GUARDED_BY(lock) = 1, durable_tid UEXT4_GUARDED_BY(lock) = 0;
    Tid commit_wanted UEXT4_GUARDED_BY(lock) = 0;
    Tid checkpoint_wanted UEXT4_GUARDED_BY(lock) = 0;  // transactions up to this one are to be checkpointed
    bool space_wanted UEXT4_GUARDED_BY(lock) = false, clean_wanted UEXT4_GUARDED_BY(lock) = false;
    bool stop UEXT4_GUARDED_BY(lock) = false, stopped UEXT4_GUARDED_BY(lock) = false;
    JournalCounters counters UEXT4_GUARDED_BY(lock);
    std::atomic<Tid> newest_tid_out_of_log{0};
    std::atomic<bool> aborted{false};
    Error abort_reason;             // written once, before `aborted`
    int recorded_error = 0;         // found at open
    bool writer_holds_lock = true;  // for the log writer alone: see release_lock()
    unsigned max_credits = 0;
    std::uint64_t max_log_blocks = 0;  // what one transaction may take in the log
    Thread thread;

    // ---- what threads wait for
    HeldResource log_writer_resource(const char* for_what, Tid tid) const { return {&writing, for_what, tid}; }
    HeldResource handles_resource(const char* what, Tid tid) const { return {this, what, tid}; }
    void begin_writing(SourceLocation where) UEXT4_REQUIRES(lock);
    void end_writing() UEXT4_REQUIRES(lock);
    // ---- handle.cpp
    void add_block(Transaction& t, std::uint64_t block, bool fresh, unsigned& credits) UEXT4_REQUIRES(lock);
    void start_commit_timer(Transaction& t) UEXT4_REQUIRES(lock);
    // ---- synchronous.cpp
    // The journal's thread works only while a thread waits for it.
    bool is_synchronous() const { return options.fixed_time.has_value(); }
    bool has_work() const UEXT4_REQUIRES(lock);
    // The journal's thread looks for work. If is_synchronous(), waits until it has none, without the lock.
    void wake(SourceLocation where) UEXT4_REQUIRES(lock);
    // ---- journal_work.cpp
    void run();
    // The log writer lets other threads at the lists, and takes them back. An exception between the two leaves the lock
    // released, which with_log_writer() knows by `writer_holds_lock`.
    void release_lock() UEXT4_RELEASE(lock) {
        writer_holds_lock = false;
        lock.unlock();
    }
    void retake_lock() UEXT4_ACQUIRE(lock) {
        lock.lock();
        writer_holds_lock = true;
    }
    // These release the lock meanwhile, as do commit_running(), checkpoint_oldest() and empty_log().
    bool do_work() UEXT4_REQUIRES(lock);
    void commit_in_caller(SourceLocation where) UEXT4_REQUIRES(lock);
    // Does a piece of work as the log writer. If memory runs out in the middle, aborts the journal: a transaction may
    // be half committed.
    template <class Work>
    bool with_log_writer(Work work, SourceLocation where) UEXT4_REQUIRES(lock);
    // Commits the running transaction, once there is room for the next transaction to begin meanwhile; unless another
    // thread did it while room was made.
    void commit_after_making_space() UEXT4_REQUIRES(lock);
    // To begin a transaction.
    bool has_log_space(std::uint64_t committed_blocks, std::uint64_t committed_bytes) const UEXT4_REQUIRES(lock);
    bool needs_checkpoint() const UEXT4_REQUIRES(lock);           // the log or memory: checkpoints are due
    std::uint64_t checkpoint_bytes() const UEXT4_REQUIRES(lock);  // images that are not checkpointed yet
    std::uint64_t committing_bytes() const UEXT4_REQUIRES(lock);  // those of the transaction that is committed
    bool is_full(const Transaction& t, unsigned credits) const;   // no handle of so many joins it
    // Until what is durable up to this transaction is checkpointed and out of the log. Releases the lock meanwhile.
    Result<void> wait_for_checkpoint(Tid last, SourceLocation where) UEXT4_REQUIRES(lock);
    void abort(const Error& why);
    std::unexpected<Error> aborted_error(int code = EROFS) const;
    // ---- commit.cpp
    void remove_from_checkpoints(std::uint64_t block) UEXT4_REQUIRES(lock);
    void commit_running() UEXT4_REQUIRES(lock);
    Result<void> write_in_place(const std::vector<LogImage>& images);
    // ---- log_writer.cpp
    // `space`: free blocks of the log; `used`: those that it took.
    Result<void> write_log(const Transaction& t, std::vector<LogImage>& images, std::uint64_t space,
                           std::uint64_t& used);
    Result<void> write_super(std::uint32_t start, std::uint32_t sequence);
    Result<void> write_abort_mark();                                               // s_errno
    std::uint64_t log_blocks_for(const Transaction& t, std::size_t images) const;  // an upper bound
    // ---- checkpoint.cpp
    // Writes the oldest transaction in place and frees its part of the log.
    void checkpoint_oldest() UEXT4_REQUIRES(lock);
    Result<void> empty_log() UEXT4_REQUIRES(lock);

    std::size_t revokes_per_block() const;
    std::size_t log_blocks_of(const Transaction& t) const {
        return t.blocks() + t.revoked_blocks.size() / revokes_per_block();
    }
};

}  // namespace uext4

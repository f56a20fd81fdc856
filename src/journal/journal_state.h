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
    CondVar changed{"journal"};      // a transaction was committed, space came, handles stopped
    CondVar work{"journal work"};    // for the journal's thread
    CondVar drained{"handles"};      // the locked transaction has no open handle any more
    bool writing = false;            // somebody is the writer
    SourceLocation writer_location;  // where it became that
    bool thread_waits = false;       // the journal's thread waits for the writer to end
    bool thread_idle = false;        // it waits without a time limit: start_commit_timer() wakes it
    bool work_requested = false;     // is_synchronous(): a thread waits for it to have done its work
    std::unique_ptr<Transaction> running;
    std::unique_ptr<Transaction> committing;
    std::uint64_t committing_log_blocks = 0;  // what it takes of log_free at most
    std::map<Tid, Checkpoint> checkpoints;
    std::unordered_map<std::uint64_t, Tid>
        checkpoint_of_block;  // of which of them a block is: all blocks of all of them
    std::uint64_t log_free = 0;
    bool checkpoint_writing = false;           // images of a checkpoint are on their way
    std::uint64_t checkpoint_writes_done = 0;  // of such images
    bool tail_update_pending = false;  // what left `checkpoints` is added to log_free once the superblock tells of it
    Tid next_tid = 1, durable_tid = 0, commit_wanted = 0;
    std::atomic<Tid> newest_tid_out_of_log{0};
    std::uint64_t checkpoint_wanted = 0;  // transactions up to this tid are to go home
    bool space_wanted = false, clean_wanted = false, stop = false, stopped = false;
    std::atomic<bool> aborted{false};
    Error abort_reason;
    int recorded_error = 0;  // found at open
    JournalCounters counters;
    unsigned max_credits = 0;
    std::uint64_t max_log_blocks = 0;  // what one transaction may take in the log
    Thread thread;

    // ---- what is waited for; lists held
    HeldResource log_writer_resource(const char* for_what, Tid tid) const { return {&writing, for_what, tid}; }
    HeldResource handles_resource(const char* what, Tid tid) const { return {this, what, tid}; }
    void begin_writing(SourceLocation where);
    void end_writing();
    // ---- handle.cpp; lists held
    void add_block(Transaction& t, std::uint64_t block, bool fresh, unsigned& credits);
    void start_commit_timer(Transaction& t);
    // ---- synchronous.cpp
    // The journal's thread works only while a thread waits for it.
    bool is_synchronous() const { return options.fixed_time.has_value(); }
    bool has_work() const;
    // Has the journal's thread look for work; in turn, waits until it has none. lists held; given up meanwhile.
    void wake(SourceLocation where) UEXT4_REQUIRES(lock);
    // ---- journal.cpp
    void run();
    bool do_work(MutexLock& guard) UEXT4_NO_THREAD_SAFETY_ANALYSIS;  // lists held; given up meanwhile
    void commit_in_caller(MutexLock& guard, SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS;  // the same
    // Does a piece of work while nobody else writes. Where memory runs out in the middle, the journal is aborted: a
    // transaction may be half committed.
    template <class Work>
    bool with_log_writer(MutexLock& guard, Work work, SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS;
    // Commits what runs, once there is room for the next transaction to begin meanwhile; unless another did it while
    // room was made. The same.
    void commit_after_making_space(MutexLock& guard) UEXT4_NO_THREAD_SAFETY_ANALYSIS;
    bool has_log_space(std::uint64_t committed_blocks, std::uint64_t committed_bytes) const;  // to begin a transaction
    bool needs_checkpoint() const;                               // the log or memory: checkpoints are due
    std::uint64_t checkpoint_bytes() const;                      // images that are not home yet
    std::uint64_t committing_bytes() const;                      // those of the transaction that is committed
    bool is_full(const Transaction& t, unsigned credits) const;  // no handle of so many joins it
    // lists held; given up meanwhile. Until what is durable up to this transaction is home and out of the log.
    Result<void> wait_for_checkpoint(Tid last, SourceLocation where) UEXT4_REQUIRES(lock);
    void abort(const Error& why);
    std::unexpected<Error> aborted_error(int code = EROFS) const;
    // ---- commit.cpp
    void remove_from_checkpoints(std::uint64_t block);                      // lists held
    void commit_running(MutexLock& guard) UEXT4_NO_THREAD_SAFETY_ANALYSIS;  // lists held; given up meanwhile
    Result<void> write_in_place(const std::vector<LogImage>& images);
    // ---- log_writer.cpp
    Result<void> write_log(const Transaction& t, std::vector<LogImage>& images, std::uint64_t& used);
    Result<void> write_super(std::uint32_t start, std::uint32_t sequence);
    Result<void> write_abort_mark();                                               // s_errno
    std::uint64_t log_blocks_for(const Transaction& t, std::size_t images) const;  // an upper bound
    // ---- checkpoint.cpp
    // Writes the oldest transaction home and frees its part of the log. lists held; given up meanwhile.
    void checkpoint_oldest(MutexLock& guard) UEXT4_NO_THREAD_SAFETY_ANALYSIS;
    Result<void> empty_log(MutexLock& guard) UEXT4_NO_THREAD_SAFETY_ANALYSIS;

    std::size_t revokes_per_block() const;
    std::size_t log_blocks_of(const Transaction& t) const {
        return t.blocks() + t.revoked_blocks.size() / revokes_per_block();
    }
};

}  // namespace uext4

// The server of one mount: reads the kernel's requests on one thread and answers them.
//
// One thread beats several for short requests. What may take long is handed to workers: syncs (unless they are short as
// well), fallocate, copies. A freeze must not stop the reading thread, or nobody would read the thaw: while the file
// system is frozen, requests that change something are parked and run by the reading thread after the thaw. So
// changes of names happen on the reading thread, but for what takes space while the kernel is made to send (space.h),
// and a rename before or behind which the kernel has to give something up: data that it has not written yet, or the
// names of a directory that is moved. These are a worker's.
// What a worker is at when a freeze comes waits where it is, so what need not wait has threads of its own meanwhile.
// While the kernel holds the reading thread up in an answer, its deputy is the reading thread (deputy.h).
#pragma once

#include "api/file_system.h"
#include "fuse/deputy.h"
#include "fuse/inode_handles.h"
#include "fuse/library.h"
#include "fuse/marks.h"
#include "fuse/options.h"
#include "fuse/placement.h"
#include "fuse/protocol.h"
#include "fuse/space_claims.h"
#include "fuse/space_level.h"
#include "fuse/work_queue.h"

#include <atomic>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_set>

namespace uext4::fuse {

// What a descriptor of the mount is here.
struct OpenHandle {
    std::unique_ptr<OpenFile> file;
    // Of a directory, and the reading thread's: an error that reading it has met, told behind what could be read; how
    // far it was read, and whether from its start; and where it ended, when there had been so many changes
    // (Server::changes).
    int damage = 0;
    std::uint64_t place = 0;
    bool from_start = false;
    std::optional<std::uint64_t> end;
    std::uint64_t changes_at_end = 0;
    std::uint32_t mark = 0;  // Server::marks
};

class Server {
public:
    Server(FileSystem& fs, MountOptions options, LogCallback log, Placement placement);
    ~Server();
    Server(const Server&) = delete;

    // Starts the workers. When all is prepared, `mount` mounts and gives the descriptor by which requests come; `ready`
    // is called from loop() when the kernel and the server have greeted each other.
    Result<void> attach(const std::function<Result<int>()>& mount, bool debug, std::function<void()> ready);
    // Until the mount is gone or stop() was called.
    Result<void> loop();
    // Ends the loop from another thread: sets a flag and interrupts the reading thread (interrupting_signal), as often
    // as needed. From now on only the kernel's own requests are worked on, until no answer is held up any more: what it
    // writes may be what that waits for, and a thread that the kernel holds keeps the process.
    void stop();
    // Who looks up supplementary groups when the server itself cannot open files.
    void ask_for_groups(std::function<std::vector<gid_t>(pid_t)> ask) { groups_ = std::move(ask); }
    std::vector<gid_t> groups_of(pid_t pid) { return groups_ ? groups_(pid) : std::vector<gid_t>(); }
    bool asks_for_groups() const { return groups_ != nullptr; }
    // After the loop: no request is answered any more, all work is done, everything the kernel held is let go.
    void detach();

    FileSystem& fs() { return fs_; }
    InodeHandles& inodes() { return inodes_; }
    const MountOptions& options() const { return options_; }
    fuse_session* session() { return session_; }
    // The request that a handler is called for takes set-id bits with what it changes. Not for jobs: they run later.
    bool takes_set_ids() const { return protocol_.takes_set_ids(); }
    // Likewise: it creates a file without a name; it asks for what answer_statx() is for, which answers the request.
    bool makes_unnamed() const { return protocol_.makes_unnamed(); }
    std::optional<std::uint64_t> statx() const { return protocol_.statx(); }
    void answer_statx(fuse_req_t request, Protocol::StatxAnswer answer);
    void log(const std::string& text) { log_(text); }

    // The inode of a node id; ESTALE when it is none. (A handle of NFS may name an inode that the kernel forgot.)
    Result<InodeRef> inode(fuse_ino_t node);

    // ---- where a request runs. Jobs own what they use and answer the request themselves.
    // Changes something: now, or after the thaw.
    template <class Job>
    void change(Job job) {
        changes_.fetch_add(1);
        if (parks()) parked_.push_back(std::move(job));
        else job();
    }
    bool is_frozen() const { return freeze_state_.load() != FreezeState::open; }
    bool parks() const { return is_frozen() || !parked_.empty(); }
    // Another thread does the reading thread's work, and must not be held up as that is.
    // Its direct requests: by threads of their own.
    void hand_on(std::function<void()> direct) { direct_.add(std::move(direct)); }
    // What waits for answers of the reading thread's.
    void off_the_reading_thread(std::function<void()> job) {
        if (is_reading_thread()) hand_on(std::move(job));
        else job();
    }
    // An answer to a direct request that waits for the kernel to send something. The kernel has so many requests under
    // way that nobody waits for (direct ones, what it sends of its cache), and no more: what it is to send has to find
    // a place among them. Nothing: as many are held already, and this one has to be answered at once.
    using Held = std::shared_ptr<void>;
    Held hold_direct();
    bool is_stood_in_for() const { return !pthread_equal(reader_.load(), own_thread_); }
    // Takes long: on a worker. `changes`: after the thaw.
    void later(std::function<void()> job, bool changes);
    // Makes something durable. On a worker, so that many share one commit and none holds up the rest; but where the
    // device is so fast that the hand-over would cost more, on the reading thread, if `little` is to do. It does not
    // wait for a thaw: what is frozen is durable, and what was parked has been promised to nobody.
    void make_durable(std::function<void()> job, bool little);
    void freeze(fuse_req_t request);
    void thaw(fuse_req_t request);
    // Of descriptors of the root. Given up when it freezes.
    Marks& marks() { return marks_; }
    // From another thread, before the end: what waits for a thaw may go on.
    void thaw_to_end();
    // Held by whoever calls in (space.h) while the kernel sends: never by the reading thread, nor with another lock.
    std::mutex& call_in_lock() { return call_in_lock_; }
    // From another thread, while the loop runs: the kernel is made to write what it holds of files that are open for
    // writing, which is all that it holds. For an fsync of the root: false where there is no space for all of it. And
    // for an end that the supervisor cannot prepare: all that finds space is written, and the rest is lost. As the
    // kernel sees it nobody has asked for this, so what fails is told to nobody here (but to each file's fsync), and
    // the files' times stay with the kernel.
    bool call_in_writes();
    void call_in_last_writes();
    // The same as far as it may need space, of all files that are open for writing but `other`.
    void call_in_what_needs_space(std::optional<fuse_ino_t> other);
    // Something has taken space, for the file `by`, from which the kernel may send more by itself, or for a name: where
    // that is the half of what was left before, others' writes that the kernel has taken are called in, while there is
    // space for them. Until they are here the space is spoken for.
    void space_taken(std::optional<fuse_ino_t> by = {});
    // Not on the reading thread: others' writes that the kernel has taken are called in, if what is left of the space
    // is little behind this. As long as it lives the space is spoken for.
    class LargeTake {
    public:
        LargeTake(Server& server, std::uint64_t bytes);
        ~LargeTake();
        LargeTake(const LargeTake&) = delete;

    private:
        Server& server_;
        std::optional<std::uint64_t> claim_;
    };
    // Then nobody is told that there is space; and who asks whether he may write, or has written past the kernel's
    // cache, is answered behind it: he is faster than what is called in page by page.
    bool is_space_spoken_for() const { return claims_.any(); }
    // For who takes space past the kernel's cache: later() and change(), behind what is being called in. (Nothing that
    // the kernel keeps from writing its cache meanwhile, as a truncation does.)
    void take_space_later(std::function<void()> job);
    void change_taking_space(std::function<void()> job);
    void answer_when_free(std::function<void()> job) {
        waiting_.add([this, job = std::move(job)] {
            claims_.wait_for_those_made();
            job();
        });
    }

    // What the kernel lets go of it says in requests that may be read after others which need the space (FORGET comes
    // behind up to eight): reads what waits, does these, and holds the others back. The reading thread's alone: called
    // for it when an operation meets no space, before free space is told, and before work that needs much goes to a
    // worker, which cannot read.
    void read_what_is_let_go();

    // ---- open files
    std::uint64_t keep(std::unique_ptr<OpenFile> file);
    static OpenHandle& handle(const fuse_file_info& info) { return *reinterpret_cast<OpenHandle*>(info.fh); }
    static OpenFile& file(const fuse_file_info& info) { return *handle(info).file; }
    void drop(std::uint64_t handle);
    // The kernel may hold bytes of it that were not written here yet.
    bool has_writers(const Inode& inode);
    // As the file system has them, but a file that may get its first bytes has a block: programs take one without any
    // for nothing but holes, and do not read it.
    Result<struct stat> attributes(Inode& inode);
    void foresee_a_block(struct stat& attributes);
    // Names in a directory have changed, for a request that is not answered yet; or may have, where it failed behind
    // that.
    void directory_changed(fuse_req_t request, fuse_ino_t node);
    // Of any kind that there have been: names among them, also where an error was told after the name had gone.
    std::uint64_t changes() const { return changes_.load(); }

private:
    enum class FreezeState : std::uint8_t { open, freezing, frozen, thawing };
    static constexpr unsigned most_background = 64, most_direct_held = most_background / 4;
    static void greet(void* server, fuse_conn_info* connection);
    bool is_reading_thread() const { return pthread_equal(pthread_self(), reader_.load()) != 0; }
    void run_parked();
    std::vector<InodeRef> written_inodes();  // that are open for writing, each once
    void wait_for_request();
    bool has_request(int milliseconds) const;
    bool serve_one(fuse_buf& buffer, int& status);  // false: there are no more; `status` says why
    void stand_in();
    ssize_t send(int channel, iovec* parts, int count);
    bool is_over();
    void behind_what_is_called_in(std::function<void()> job);  // on a worker
    void work_on(const fuse_buf& request);
    void work_on_held_back();
    // A buffer of libfuse's, which allocates what it reads into.
    struct Freed {
        void operator()(void* memory) const { std::free(memory); }
    };
    struct HeldBack {
        fuse_buf request;
        std::unique_ptr<void, Freed> memory;
    };

    FileSystem& fs_;
    MountOptions options_;
    LogCallback log_;
    std::function<void()> ready_;
    std::function<std::vector<gid_t>(pid_t)> groups_;
    fuse_session* session_ = nullptr;
    bool mounted_ = false;
    std::atomic<bool> stopping_{false};
    pthread_t own_thread_{};           // that of loop()
    std::atomic<pthread_t> reader_{};  // it, or its deputy's
    InodeHandles inodes_;
    std::atomic<std::uint64_t> changes_{0};
    Marks marks_;
    SpaceClaims claims_;
    std::atomic<unsigned> direct_held_{0};  // hold_direct()
    std::mutex call_in_lock_;
    SpaceLevel space_level_;
    SpaceClaims called_in_;  // one for each call_in_what_needs_space() under way
    std::mutex open_lock_;
    std::unordered_set<OpenHandle*> open_;
    std::unordered_set<OpenHandle*> open_to_write_;  // those of `open_` that can write
    Placement placement_;
    Protocol protocol_;
    unsigned slow_syncs_ = 0;        // in a row, on the reading thread, which has this, as is:
    unsigned syncs_on_workers_ = 0;  // since then
    int thaw_event_ = -1, closed_ = -1;
    std::atomic<FreezeState> freeze_state_{FreezeState::open};  // leaves `open` on the reading thread only
    std::deque<std::function<void()>> parked_;                  // the reading thread's, as is:
    std::deque<HeldBack> held_back_;                            // read, but not worked on
    bool reads_ahead_ = false;
    Deputy deputy_;
    WorkQueue workers_{"uext4-fuse", 16};
    WorkQueue direct_{"uext4-direct", 16};  // their answers may be held up, and then take none of the others' threads
    WorkQueue waiting_{"uext4-space", 4};   // for space that is spoken for, by jobs of the workers'
    WorkQueue control_{"uext4-freeze", 1};  // a thaw never waits behind work
    WorkQueue beside_{"uext4-beside", 4};   // of what is frozen: the workers may all wait for the thaw, in mid-work
};

inline Server& server_of(fuse_req_t request) { return *static_cast<Server*>(fuse_req_userdata(request)); }

}  // namespace uext4::fuse

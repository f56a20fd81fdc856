#include "fuse/server.h"

#include "format/constants.h"
#include "fuse/heap.h"
#include "fuse/operations.h"
#include "fuse/session.h"
#include "fuse/signals.h"
#include "fuse/space.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace uext4::fuse {

namespace {

constexpr std::size_t size_of_a_request = 160;  // bytes at most, in libfuse 3.14
constexpr unsigned largest_write = 1 << 20;
constexpr std::chrono::microseconds quick_sync{250};
// A slow sync may be one that had to wait for its processor, or for a checkpoint; a slow device has several.
constexpr unsigned slow_in_a_row = 2;
constexpr unsigned syncs_until_retry = 64;
// More than the kernel has read before it lets a FORGET be read, which then brings many.
constexpr unsigned most_read_ahead = 32;

}  // namespace

Server::Server(FileSystem& fs, MountOptions options, LogCallback log, Placement placement)
    : fs_(fs),
      options_(std::move(options)),
      log_(std::move(log)),
      space_level_(bytes_available(fs.volume())),
      placement_(std::move(placement)) {}

Server::~Server() {
    detach();
    if (session_) fuse_session_destroy(session_);
    for (const int fd : {thaw_event_, closed_})
        if (fd >= 0) close(fd);
}

void Server::greet(void* self, fuse_conn_info* connection) {
    Server& server = *static_cast<Server*>(self);
    const auto want = [connection](unsigned capability) {
        if (connection->capable & capability) connection->want |= capability;
    };
    for (const unsigned capability :
         {FUSE_CAP_ASYNC_READ, FUSE_CAP_WRITEBACK_CACHE, FUSE_CAP_READDIRPLUS, FUSE_CAP_READDIRPLUS_AUTO,
          FUSE_CAP_PARALLEL_DIROPS, FUSE_CAP_ASYNC_DIO, FUSE_CAP_EXPORT_SUPPORT, FUSE_CAP_IOCTL_DIR,
          FUSE_CAP_CACHE_SYMLINKS, FUSE_CAP_EXPLICIT_INVAL_DATA})
        want(static_cast<unsigned>(capability));
    // The umask is applied here, because a default ACL takes its place. Without ACLs the kernel can do it.
    if (server.fs_.volume().options().fs.acl) {
        want(FUSE_CAP_POSIX_ACL);
        want(FUSE_CAP_DONT_MASK);
    }
    // Locks are the kernel's own. It says when set-id bits go (protocol.h): a cached write arrives long after the fact.
    // Splicing costs more than copying. O_TRUNC comes as a truncation of its own, once the kernel has seen that the
    // file is no program that runs.
    connection->want &= ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                                               FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_HANDLE_KILLPRIV |
                                               FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC);
    connection->max_write = largest_write;
    connection->max_background = most_background;
    connection->congestion_threshold = 48;
    if (server.options_.max_read) connection->max_read = *server.options_.max_read;
    // A small inode has no room for nanoseconds; the kernel must not remember what the image will not.
    connection->time_gran = server.fs_.volume().geometry().inode_size > format::classic_inode_size ? 1 : 1'000'000'000;
    if (server.ready_) server.ready_();
}

Result<void> Server::attach(const std::function<Result<int>()>& mount, bool debug, std::function<void()> ready) {
    ready_ = std::move(ready);
    TRY(workers_.start());
    TRY(control_.start());
    TRY(direct_.start());
    TRY(waiting_.start());
    TRY(beside_.start());
    TRY(deputy_.start([this] { stand_in(); }));
    thaw_event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (thaw_event_ < 0) return fail(errno, "eventfd: {}", std::strerror(errno));
    closed_ = epoll_create1(EPOLL_CLOEXEC);  // can neither be read nor written
    if (closed_ < 0) return fail(errno, "epoll_create1: {}", std::strerror(errno));
    TRY(fs_.root());
    inodes_.add_root();

    fuse_lowlevel_ops table{};
    table.init = &Server::greet;
    add_attribute_operations(table);
    add_name_operations(table);
    add_directory_operations(table);
    add_io_operations(table);
    add_xattr_operations(table);
    add_ioctl_operations(table);

    session_ = TRY(new_session(options_, table, this, debug));
    const int channel = TRY(mount());
    fuse_custom_io io{};
    io.read = [](int fd, void* bytes, std::size_t size, void*) { return ::read(fd, bytes, size); };
    io.writev = [](int fd, iovec* parts, int count, void* self) {
        return static_cast<Server*>(self)->send(fd, parts, count);
    };
    if (const int error = fuse_session_custom_io(session_, &io, channel)) {
        close(channel);
        return fail(error < 0 ? -error : EINVAL, "FUSE does not let its requests be looked at");
    }
    mounted_ = true;
    fs_.set_keep_callback([this](const InodeRef& inode) { return inodes_.keep_unlinked(inode); });
    return {};
}

void Server::wait_for_request() {
    pollfd wanted[] = {{fuse_session_fd(session_), POLLIN, 0}, {thaw_event_, POLLIN, 0}};
    if (poll(wanted, 2, -1) > 0 && (wanted[1].revents & POLLIN)) {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t got = ::read(thaw_event_, &count, sizeof count);
    }
}

// A job that waits for the kernel may have to wait for the answer to another request. (The deputy is not in the place:
// it would be the one who is here.)
bool Server::is_over() {
    if (fuse_session_exited(session_)) return true;
    return stopping_.load() && direct_.is_idle() && waiting_.is_idle() && workers_.is_idle() && beside_.is_idle();
}

void Server::work_on(const fuse_buf& request) {
    if (stopping_.load() && !Protocol::is_of_the_kernel(request)) {
        fuse_out_header refusal = Protocol::refusal(request, ENOTCONN);
        iovec part = {&refusal, sizeof refusal};
        send(fuse_session_fd(session_), &part, 1);  // who is told of an error here has gone
        return;
    }
    protocol_.note(request);
    if (const std::optional<pid_t> caller = protocol_.caller(); caller && !is_stood_in_for())
        placement_.called_by(*caller);
    fuse_session_process_buf(session_, &request);
}

void Server::read_what_is_let_go() {
    if (!is_reading_thread() || reads_ahead_) return;
    reads_ahead_ = true;
    pollfd waiting = {fuse_session_fd(session_), POLLIN, 0};
    for (unsigned read = 0; read < most_read_ahead && poll(&waiting, 1, 0) > 0; ++read) {
        HeldBack next{};
        const int status = fuse_session_receive_buf(session_, &next.request);
        next.memory.reset(next.request.mem);
        if (status <= 0) break;  // the loop meets it as well
        // Of an open file nothing else waits: the kernel releases it behind the last request for it.
        if (Protocol::lets_go(next.request)) fuse_session_process_buf(session_, &next.request);
        else held_back_.push_back(std::move(next));
    }
    reads_ahead_ = false;
}

void Server::work_on_held_back() {
    const HeldBack next = std::move(held_back_.front());
    held_back_.pop_front();
    work_on(next.request);
}

bool Server::serve_one(fuse_buf& buffer, int& status) {
    if (parks() && !is_frozen()) {
        run_parked();
        return true;
    }
    if (!held_back_.empty()) {
        work_on_held_back();
        return true;
    }
    if (parks()) {
        wait_for_request();
        if (freeze_state_.load() == FreezeState::open) return true;
        if (!has_request(0)) return true;
    }
    status = fuse_session_receive_buf(session_, &buffer);
    if (status == -EINTR || status == -EAGAIN) return true;
    if (status <= 0) return false;
    work_on(buffer);
    return true;
}

bool Server::has_request(int milliseconds) const {
    pollfd waiting = {fuse_session_fd(session_), POLLIN, 0};
    return poll(&waiting, 1, milliseconds) > 0;
}

// The reading thread is in an answer that the kernel holds up.
void Server::stand_in() {
    constexpr int patience = 5;  // milliseconds
    reader_.store(pthread_self());
    fuse_buf buffer{};
    int status = 0;
    // Also behind stop(): the reading thread cannot end before it is back.
    while (!deputy_.wanted_back() && !fuse_session_exited(session_)) {
        const bool has_work = !held_back_.empty() || (parks() && !is_frozen());
        if (!has_work && !has_request(patience)) continue;
        if (!serve_one(buffer, status)) break;
    }
    std::free(buffer.mem);
    reader_.store(own_thread_);
}

ssize_t Server::send(int channel, iovec* parts, int count) {
    // Only what is the last that the reading thread does for a request: not what it tells the kernel in between.
    if (!pthread_equal(pthread_self(), own_thread_) || !Protocol::answers(parts, count))
        return protocol_.send(channel, parts, count);
    deputy_.leave();
    const ssize_t sent = protocol_.send(channel, parts, count);
    const int error = errno;
    deputy_.back();
    errno = error;
    return sent;
}

void Server::answer_statx(fuse_req_t request, Protocol::StatxAnswer answer) {
    iovec part = {&answer, sizeof answer};
    send(fuse_session_fd(session_), &part, 1);  // who is told of an error here has gone
    fuse_reply_none(request);                   // libfuse has nothing more to say to it
}

Result<void> Server::loop() {
    own_thread_ = pthread_self();
    reader_.store(own_thread_);
    // libfuse asks for the memory of each request by calloc(3), which does not look where free(3) puts what is this
    // small.
    prepare_heap(size_of_a_request);
    fs_.set_low_space_callback([this] { read_what_is_let_go(); });
    placement_.place_this_thread();
    fuse_buf buffer{};
    int status = 0;
    while (!is_over() && serve_one(buffer, status)) {
    }
    std::free(buffer.mem);
    reads_ahead_ = true;  // no more
    while (!held_back_.empty()) work_on_held_back();
    if (status < 0 && status != -EINTR && status != -EAGAIN && !stopping_.load())
        return fail(-status, "reading requests: {}", std::strerror(-status));
    return {};
}

void Server::stop() {
    stopping_.store(true);
    pthread_kill(reader_.load(), interrupting_signal);
}

void Server::detach() {
    if (!session_ || !std::exchange(mounted_, false)) return;
    // Whoever waits for an answer gets none, a worker among them that waits for the kernel. The number stays taken
    // until nobody can mean the channel by it.
    dup3(closed_, fuse_session_fd(session_), O_CLOEXEC);
    deputy_.finish();
    control_.drain();
    if (freeze_state_.load() == FreezeState::frozen) {
        if (Result<void> thawed = fs_.thaw(); !thawed) log_(fmt::format("thaw: {}", thawed.error().what));
        freeze_state_.store(FreezeState::open);
    }
    run_parked();
    direct_.finish();   // hands on to the next
    waiting_.finish();  // and so does this
    workers_.finish();
    beside_.finish();
    control_.finish();
    // No FORGET and not every RELEASE comes before the end.
    std::unordered_set<OpenHandle*> open;
    {
        const std::lock_guard guard(open_lock_);
        open.swap(open_);
        open_to_write_.clear();
    }
    for (OpenHandle* handle : open) delete handle;
    fs_.set_keep_callback({});
    inodes_.clear();
}

Result<InodeRef> Server::inode(fuse_ino_t node) {
    const InodeNr number = number_of(node);
    if (number.value != format::special_inode::root && number.value < fs_.volume().geometry().first_inode)
        return fail(ESTALE, "node {} is no file", node);
    return fs_.inode(number, inodes_.knows(node));
}

void Server::later(std::function<void()> job, bool changes) {
    if (changes && parks()) parked_.push_back([this, job = std::move(job)]() mutable { workers_.add(std::move(job)); });
    else if (!changes && is_frozen()) beside_.add(std::move(job));
    else workers_.add(std::move(job));
}

void Server::make_durable(std::function<void()> job, bool little) {
    if (is_frozen()) return later(std::move(job), false);
    if (parks() || !little || (slow_syncs_ >= slow_in_a_row && ++syncs_on_workers_ < syncs_until_retry))
        return later(std::move(job), true);
    const auto start = std::chrono::steady_clock::now();
    job();
    if (std::chrono::steady_clock::now() - start < quick_sync) slow_syncs_ = 0;
    else slow_syncs_ = std::min(slow_syncs_ + 1, slow_in_a_row);
    syncs_on_workers_ = 0;
}

void Server::run_parked() {
    // One by one: where an answer is held up, the deputy goes on with the next.
    while (!parked_.empty() && !is_frozen()) {
        const std::function<void()> job = std::move(parked_.front());
        parked_.pop_front();
        job();
    }
}

void Server::freeze(fuse_req_t request) {
    FreezeState expected = FreezeState::open;
    if (!freeze_state_.compare_exchange_strong(expected, FreezeState::freezing)) {
        fuse_reply_err(request, EBUSY);
        return;
    }
    // What was unlinked before is deleted before.
    read_what_is_let_go();
    marks_.give_up();
    control_.add([this, request] {
        const Result<void> done = fs_.freeze();
        freeze_state_.store(done ? FreezeState::frozen : FreezeState::open);
        eventfd_write(thaw_event_, 1);
        if (done) fuse_reply_ioctl(request, 0, nullptr, 0);
        else reply_error(request, done.error());
    });
}

void Server::thaw(fuse_req_t request) {
    FreezeState expected = FreezeState::frozen;
    if (!freeze_state_.compare_exchange_strong(expected, FreezeState::thawing)) {
        fuse_reply_err(request, expected == FreezeState::open ? EINVAL : EBUSY);
        return;
    }
    control_.add([this, request] {
        const Result<void> done = fs_.thaw();
        freeze_state_.store(FreezeState::open);
        eventfd_write(thaw_event_, 1);
        if (done) fuse_reply_ioctl(request, 0, nullptr, 0);
        else reply_error(request, done.error());
    });
}

void Server::thaw_to_end() {
    control_.drain();
    FreezeState expected = FreezeState::frozen;
    if (!freeze_state_.compare_exchange_strong(expected, FreezeState::thawing)) return;
    if (Result<void> done = fs_.thaw(); !done) log_(fmt::format("thaw: {}", done.error().what));
    freeze_state_.store(FreezeState::open);
    eventfd_write(thaw_event_, 1);
}

std::vector<InodeRef> Server::written_inodes() {
    std::vector<InodeRef> written;
    const std::lock_guard guard(open_lock_);
    for (const OpenHandle* open : open_to_write_) written.push_back(open->file->inode_ref());
    std::ranges::sort(written, {}, [](const InodeRef& inode) { return inode->number(); });
    written.erase(std::ranges::unique(written).begin(), written.end());
    return written;
}

void Server::take_space_later(std::function<void()> job) {
    if (called_in_.any() && !parks()) behind_what_is_called_in(std::move(job));
    else later(std::move(job), true);
}

void Server::change_taking_space(std::function<void()> job) {
    if (called_in_.any() && !parks()) behind_what_is_called_in(std::move(job));
    else change(std::move(job));
}

void Server::behind_what_is_called_in(std::function<void()> job) {
    waiting_.add([this, job = std::move(job)]() mutable {
        called_in_.wait_for_those_made();
        workers_.add(std::move(job));
    });
}

Server::Held Server::hold_direct() {
    if (direct_held_.fetch_add(1) < most_direct_held) return {this, [this](void*) { direct_held_.fetch_sub(1); }};
    direct_held_.fetch_sub(1);
    return {};
}

bool Server::call_in_writes() {
    bool all = true;
    for (const InodeRef& inode : written_inodes()) all = call_in(*this, inode) && all;
    return all;
}

void Server::call_in_last_writes() {
    for (const InodeRef& inode : written_inodes())
        fuse_lowlevel_notify_inval_inode(session_, node_of(inode->number()), 0, 0);
}

void Server::call_in_what_needs_space(std::optional<fuse_ino_t> other) {
    const std::uint64_t claim = called_in_.make();
    for (const InodeRef& inode : written_inodes())
        if (node_of(inode->number()) != other && inode->is_regular() && is_worth_calling_in(*this, *inode))
            fuse::call_in_what_needs_space(*this, inode);
    called_in_.drop(claim);
}

void Server::space_taken(std::optional<fuse_ino_t> by) {
    if (is_space_spoken_for() || is_frozen()) return;
    // (Not bytes_left(): whoever speaks for the space meanwhile has not taken it.)
    if (!space_level_.fell(bytes_available(fs_.volume()))) return;
    later(
        [this, by, claim = claims_.make()] {
            if (by) fuse_lowlevel_notify_inval_inode(session_, *by, -1, 0);  // who writes to it asks
            call_in_what_needs_space(by);
            claims_.drop(claim);
        },
        false);
}

Server::LargeTake::LargeTake(Server& server, std::uint64_t bytes) : server_(server) {
    constexpr std::uint64_t large = std::uint64_t{1} << 20;  // what is less, space_taken() sees
    const std::uint64_t left = bytes_left(server);
    if (bytes < large || (left >= bytes && !is_little(left - bytes))) return;
    claim_ = server.claims_.make();
    if (!server.is_frozen()) server.call_in_what_needs_space({});
}

Server::LargeTake::~LargeTake() {
    if (claim_) server_.claims_.drop(*claim_);
}

std::uint64_t Server::keep(std::unique_ptr<OpenFile> file) {
    const bool to_write = (file->flags() & O_ACCMODE) != O_RDONLY;
    inodes_.opened(node_of(file->inode().number()), to_write);
    auto handle = std::make_unique<OpenHandle>(std::move(file));
    const std::lock_guard guard(open_lock_);
    open_.insert(handle.get());
    if (to_write) open_to_write_.insert(handle.get());
    return reinterpret_cast<std::uint64_t>(handle.release());
}

void Server::drop(std::uint64_t handle) {
    OpenHandle* open = reinterpret_cast<OpenHandle*>(handle);
    {
        const std::lock_guard guard(open_lock_);
        if (open_.erase(open) == 0) return;
        open_to_write_.erase(open);
    }
    if ((open->file->flags() & O_ACCMODE) != O_RDONLY) inodes_.closed_to_write(node_of(open->file->inode().number()));
    delete open;
}

Result<struct stat> Server::attributes(Inode& inode) {
    struct stat attributes = TRY(fs_.attributes(inode));
    if (attributes.st_blocks == 0 && S_ISREG(attributes.st_mode) && has_writers(inode)) foresee_a_block(attributes);
    return attributes;
}

void Server::foresee_a_block(struct stat& attributes) {
    if (attributes.st_blocks == 0) attributes.st_blocks = fs_.volume().geometry().block_size / 512;
}

void Server::directory_changed(fuse_req_t request, fuse_ino_t node) {
    changes_.fetch_add(1);
    const InodeHandles::Told told = inodes_.take_told(node, fuse_req_ctx(request)->pid);
    // Whoever reads on from where it is would be shown names that are gone.
    if (told.names || told.attributes) fuse_lowlevel_notify_inval_inode(session_, node, told.names ? 0 : -1, 0);
}

bool Server::has_writers(const Inode& inode) { return inodes_.has_writers(node_of(inode.number())); }

}  // namespace uext4::fuse

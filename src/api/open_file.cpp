#include "api/bounce.h"
#include "api/change_guard.h"
#include "api/file_system.h"
#include "base/page.h"
#include "sync/atomic_point.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>

namespace uext4 {

namespace {

// While frozen everything is durable that has space.
Result<void> without_space_until_thaw(const Inode& inode) {
    return fail(ENOSPC, "inode {}: what had no space waits for the thaw", inode.number());
}

}  // namespace

OpenFile::OpenFile(FileSystem& fs, InodeRef inode, int flags, Credentials who)
    : fs_(fs), inode_(std::move(inode)), flags_(flags), credentials_(std::move(who)) {
    inode_->open_files.fetch_add(1);
    errors_seen_.store(inode_->writeback_errors.load());
}

OpenFile::~OpenFile() {
    const bool last_writer = (flags_ & O_ACCMODE) != O_RDONLY;
    // A file that was emptied and written again is on its way to the device when it is closed, so that a crash does not
    // leave it empty.
    if (last_writer && inode_->fs().options.auto_da_alloc && inode_->replace_on_close.exchange(false) &&
        !inode_->fs().read_only.load()) {
        const FreezeGate::SyncEntry pass(fs_.volume().gate());
        if (pass) (void)write_back(*inode_);  // an error is kept for fsync and the unmount
    }
    inode_->open_files.fetch_sub(1);
}

Result<std::size_t> OpenFile::read_into(std::uint64_t offset, Bytes out) {
    if (flags_ & O_DIRECT) return read_direct(*inode_, offset, out);
    // All or an error: what is missing of a short answer the kernel takes for a hole.
    if (kernel_cached_) return read_uncached(*inode_, offset, out);
    Result<std::size_t> all = read_cached_or_uncached(*inode_, offset, out);
    return all ? all : read_front(offset, out);
}

Result<std::size_t> OpenFile::read_front(std::uint64_t offset, Bytes out) {
    const std::uint64_t fs = inode_->pages().folio_size();
    std::size_t done = 0;
    while (done < out.size()) {
        const std::uint64_t at = offset + done;
        const Result<std::size_t> n =
            read_file(*inode_, at, out.subspan(done, std::min(out.size() - done, fs - at % fs)));
        if (!n && done) break;
        done += TRY(n);
        if (*n == 0) break;
    }
    return done;
}

Result<std::size_t> OpenFile::read_part(std::uint64_t offset, Bytes out) {
    if (!touches_client_maps(out.data(), out.size())) return read_into(offset, out);
    return read_through_bounce_buffer(out, [&](std::size_t at, Bytes part) { return read_into(offset + at, part); });
}

Result<std::size_t> OpenFile::read(std::uint64_t offset, std::span<const Bytes> parts) {
    if ((flags_ & O_ACCMODE) == O_WRONLY && !kernel_cached_) return fail(EBADF, "the file is open for writing only");
    if (inode_->is_directory()) return fail(EISDIR, "inode {} is a directory", inode_->number());
    if (std::ranges::all_of(parts, &Bytes::empty)) return std::size_t{0};
    UniqueReadLock call;
    if ((flags_ & O_DIRECT) && !kernel_cached_) {
        call = UniqueReadLock(inode_->call_lock);
        TRY(uext4::check_direct_read(*inode_, offset, parts));
    }
    std::size_t done = 0;
    for (const Bytes& part : parts) {
        if (part.empty()) continue;
        Result<std::size_t> n = read_part(offset + done, part);
        if (!n && done) break;
        done += TRY(std::move(n));
        if (*n < part.size()) break;
    }
    call.reset();
    if (!(flags_ & O_NOATIME) && (flags_ & O_ACCMODE) != O_WRONLY) update_atime(*inode_);
    fs_.volume().shrink_inodes();
    return done;
}

Result<void> OpenFile::check_direct_read(std::uint64_t offset, Bytes out) {
    return uext4::check_direct_read(*inode_, offset, {&out, 1});
}

std::uint64_t OpenFile::largest_size() const { return max_file_size(*inode_); }

Result<void> OpenFile::check_direct_write(std::uint64_t offset, ConstBytes in) const {
    return uext4::check_direct_write(*inode_, offset, {&in, 1});
}

bool OpenFile::needs_atime_update() const {
    return !(flags_ & O_NOATIME) && (flags_ & O_ACCMODE) != O_WRONLY && uext4::needs_atime_update(*inode_);
}

WriteRequest OpenFile::make_write_request(const Credentials& who) const {
    WriteRequest request;
    request.append = (flags_ & O_APPEND) && !kernel_cached_;
    request.may_use_reserve = may_use_reserved_blocks(inode_->fs(), who);
    request.keep_times = request.bypasses_cache = kernel_cached_;
    // The kernel has cleared set-id bits at the time of its own write; those set since then must stay.
    request.credentials = kernel_cached_ ? nullptr : &who;
    return request;
}

// Direct overwrites of blocks that there are go side by side.
Result<bool> OpenFile::try_overwrite(std::uint64_t offset, std::span<const ConstBytes> parts, const Credentials& who) {
    if (!(flags_ & O_DIRECT) || (flags_ & O_APPEND) || kernel_cached_ || parts.size() != 1) return false;
    const ConstBytes in = parts.front();
    if (touches_client_maps(in.data(), in.size())) return false;
    const UniqueReadLock call(inode_->call_lock);
    const ChangeGuard pass(fs_.maps());
    return try_overwrite_direct(*inode_, offset, in, make_write_request(who));
}

Result<std::size_t> OpenFile::write_from(std::uint64_t offset, ConstBytes in, const Credentials& who) {
    const ChangeGuard pass(fs_.maps());
    const WriteRequest request = make_write_request(who);
    if ((flags_ & O_DIRECT) && !request.append) return write_direct(*inode_, offset, in, request);
    return TRY(write_file(*inode_, offset, in, request))
    .count;
}

Result<std::size_t> OpenFile::write_parts(std::uint64_t offset, std::span<const ConstBytes> parts,
                                          const Credentials& who) {
    if (TRY(try_overwrite(offset, parts, who))) return parts.front().size();
    const UniqueWriteLock call = lock_call();
    BounceGather gather(parts);
    std::size_t done = 0;
    for (;;) {
        const Result<ConstBytes> piece = gather.next_part();
        if (!piece && done) return done;
        ConstBytes in = TRY(piece);
        if (in.empty() && done) return done;
        // What was cut short goes on: with the space that is there by then, or with the error that says why not.
        do {
            const Result<std::size_t> n = fs_.retry_on_enospc([&] { return write_from(offset + done, in, who); });
            if (!n && done) return done;
            done += TRY(n);
            if (*n == 0) return done;
            in = in.subspan(*n);
        } while (!in.empty());
    }
}

Result<std::size_t> OpenFile::write(std::uint64_t offset, std::span<const ConstBytes> parts, const Credentials* by) {
    const Credentials& who = by ? *by : credentials_;
    if ((flags_ & O_ACCMODE) == O_RDONLY) return fail(EBADF, "the file is open for reading only");
    TRY(fs_.check_writable());
    if ((flags_ & O_DIRECT) && !(flags_ & O_APPEND)) TRY(uext4::check_direct_write(*inode_, offset, parts));
    const std::size_t done = TRY(write_parts(offset, parts, who));
    TRY(finish_call());
    return done;
}

Result<void> OpenFile::finish_call() {
    const bool all =
        (flags_ & O_SYNC) == O_SYNC || fs_.volume().options().sync || inode_->has_flag(format::inode_flag::sync);
    if (!all && !(flags_ & O_DSYNC)) return {};
    const FreezeGate::SyncEntry pass(fs_.volume().gate());
    if (pass) return sync_file(*inode_, !all);
    return inode_->pages().has_dirty_or_writeback() ? without_space_until_thaw(*inode_) : Result<void>();
}

Result<std::size_t> OpenFile::write_beyond_reserved_space(std::uint64_t offset, ConstBytes in) {
    TRY(fs_.check_writable());
    const UniqueWriteLock call = lock_call();
    const ChangeGuard pass(fs_.maps());
    WriteRequest request = make_write_request(credentials_);
    request.may_exceed_space = true;
    request.bypasses_cache = false;
    return TRY(write_file(*inode_, offset, in, request))
    .count;
}

Result<void> OpenFile::check_can_continue_writing() const {
    TRY(fs_.check_writable());
    constexpr std::uint64_t few = 64;
    const std::uint64_t left = available_blocks();
    return left < few ? fail(ENOSPC, "{} blocks are left", left) : Result<void>();
}

Result<void> OpenFile::check_can_start_writing() {
    std::uint64_t least = 0;
    {
        MutexLock guard(inode_->map_lock);
        const DelallocSpace& delalloc = inode_->delalloc();
        if (inode_->is_inline() || inode_->block_count_512() != 0 || delalloc.reserved_blocks() != 0) return {};
        least = delalloc.min_free_for_one_block();
    }
    return fs_.retry_on_enospc([&]() -> Result<void> {
        const std::uint64_t left = available_blocks();
        return left < least ? fail(ENOSPC, "{} blocks are left", left) : Result<void>();
    });
}

std::uint64_t OpenFile::available_blocks() const {
    const SpaceCounts counts = fs_.volume().counts();
    return may_use_reserved_blocks(inode_->fs(), credentials_) ? counts.free_blocks : counts.available_blocks;
}

Result<void> OpenFile::sync(bool data_only) {
    if (inode_->fs().options.read_only) return {};
    TRY(fs_.check_writable());
    const Result<void> now = fs_.retry_on_enospc([&]() -> Result<void> {
        const FreezeGate::SyncEntry pass(fs_.volume().gate());
        if (pass) return sync_file(*inode_, data_only);
        return inode_->pages().has_dirty_or_writeback() ? without_space_until_thaw(*inode_) : Result<void>();
    });
    fs_.volume().shrink_inodes();
    // An error of background writeback is reported once to each who has the file open.
    atomic_point("Inode::writeback_errors", &inode_->writeback_errors);
    const std::uint64_t errors = inode_->writeback_errors.load();
    const bool missed = errors_seen_.exchange(errors) != errors;
    if (now && missed)
        return fail(inode_->writeback_error.load(), "inode {}: earlier writeback failed", inode_->number());
    return now;
}

Result<void> OpenFile::truncate(std::uint64_t size, const Credentials* who) {
    if ((flags_ & O_ACCMODE) == O_RDONLY) return fail(EINVAL, "the file is open for reading only");
    const UniqueWriteLock call = lock_call();
    TRY(fs_.truncate(*inode_, size, who ? *who : credentials_, false));
    return finish_call();
}

Result<void> OpenFile::fallocate(int mode, std::uint64_t offset, std::uint64_t length, const Credentials* by) {
    TRY(check_fallocate_mode(mode));
    if ((flags_ & O_ACCMODE) == O_RDONLY) return fail(EBADF, "the file is open for reading only");
    TRY(fs_.check_writable());
    const Credentials& who = by ? *by : credentials_;
    const Credentials* takes_bits = kernel_cached_ ? nullptr : &who;  // there the kernel has done it, and has the times
    const bool reserve = may_use_reserved_blocks(inode_->fs(), who);
    const UniqueWriteLock call = lock_call();
    bool only_zeroed = false;
    const Result<void> done = fs_.retry_on_enospc([&] {
        ChangeGuard pass(fs_.maps());
        only_zeroed = false;
        return fallocate_file(*inode_, mode, offset, length, reserve, takes_bits, kernel_cached_, &only_zeroed);
    });
    if (!done && !only_zeroed) return done;
    return finish_call();
}

Result<void*> OpenFile::map(std::uint64_t offset, std::size_t length, int protection, int flags) {
    const int type = flags & MAP_TYPE;
    const bool shared = type == MAP_SHARED || type == MAP_SHARED_VALIDATE;
    // What Linux knew before MAP_SHARED_VALIDATE: whoever asks for more with it asks whether it is there.
    constexpr int old_flags = MAP_TYPE | MAP_FIXED | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_DENYWRITE | MAP_EXECUTABLE |
                              MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_STACK | MAP_HUGETLB;
    if (type == MAP_SHARED_VALIDATE && (flags & ~old_flags))
        return fail(EOPNOTSUPP, "memory map: flags {:#x} are unknown", flags & ~old_flags);
    if ((!shared && type != MAP_PRIVATE) || (flags & ~(MAP_TYPE | MAP_POPULATE | MAP_NORESERVE)))
        return fail(EINVAL,
                    "memory map: flags {:#x} are not MAP_SHARED, MAP_SHARED_VALIDATE or MAP_PRIVATE, with MAP_POPULATE "
                    "or MAP_NORESERVE",
                    flags);
    if (protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
        return fail(EINVAL, "memory map: protection {:#x}", protection);
    if (!inode_->is_regular()) return fail(ENODEV, "inode {} is not a regular file", inode_->number());
    const int mode = flags_ & O_ACCMODE;
    if (mode == O_WRONLY) return fail(EACCES, "memory map: the file is open for writing only");
    if (shared && (protection & PROT_WRITE) && mode != O_RDWR)
        return fail(EACCES, "memory map: the file is open for reading only");
    // Also a map for loads: the program may give it the right to store later, by mprotect.
    if (shared && mode == O_RDWR && inode_->has_flag(format::inode_flag::append))
        return fail(EACCES, "inode {} is append-only and open for writing", inode_->number());
    return fs_.maps().map({.inode = inode_,
                           .offset = offset,
                           .length = length,
                           .protection = protection,
                           .shared = shared,
                           .populate = (flags & MAP_POPULATE) != 0,
                           .may_write = mode == O_RDWR,
                           .may_use_reserve = may_use_reserved_blocks(inode_->fs(), credentials_)});
}

Result<void> FileSystem::sync_maps(void* address, std::size_t length, bool wait) {
    const auto start = reinterpret_cast<std::uintptr_t>(address);
    if (start % page_size != 0)
        return fail(EINVAL, "msync of {} bytes at {}: not whole pages", length, fmt::ptr(address));
    // As in Linux: a length that wraps when it is rounded up is none.
    const std::uintptr_t end = start + (length + (page_size - 1)) / page_size * page_size;
    if (end < start) return fail(ENOMEM, "msync of {} bytes at {}: no such addresses", length, fmt::ptr(address));
    // What is there is synced, beyond a gap as well.
    std::uintptr_t at = start;
    bool gaps = false;
    ClientMaps::EngineUse use;
    for (const Region& part : ClientMaps::regions_in(start, end, use)) {
        gaps = gaps || part.start != at;
        at = part.end();
        if (wait && part.shared && part.may_write) TRY(part.engine->sync(part.inode));
    }
    if (gaps || at < end) return fail(ENOMEM, "msync of {} bytes at {}: no map of a file", length, fmt::ptr(address));
    return {};
}

Result<std::uint64_t> OpenFile::seek(std::uint64_t offset, int whence) {
    // Before the start is past the end, too.
    auto within = [&](std::uint64_t at) -> Result<std::uint64_t> {
        const std::uint64_t limit = max_file_size(*inode_);
        if (at <= limit) return at;
        return fail(EINVAL, "inode {}: offset {} is not in [0, {}]", inode_->number(), static_cast<std::int64_t>(at),
                    limit);
    };
    switch (whence) {
        case SEEK_SET: return within(offset);
        case SEEK_END: return within(inode_->size_hint() + offset);
        case SEEK_DATA: return seek_file(*inode_, offset, true);
        case SEEK_HOLE: return seek_file(*inode_, offset, false);
        default: return fail(EINVAL, "whence is {}", whence);
    }
}

}  // namespace uext4

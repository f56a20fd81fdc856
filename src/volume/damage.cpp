// Damage, and errors=: what was met is told once, marked in the superblock, and answered as the policy says.
#include "inode/superblock.h"
#include "sync/condition.h"
#include "volume/volume_state.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <future>
#include <thread>

namespace uext4 {

namespace {
constexpr std::uint64_t most_unreadable = 10;  // lines of a minute
}

bool Volume::State::is_new_error(const Error& error) {
    constexpr std::size_t most = 256;
    MutexLock guard(error_lock);
    if (reported_errors.size() >= most) reported_errors.clear();
    return reported_errors.insert(error.what).second;
}

// A device that is gone fails every read: of each minute the log gets the first ones, and how many more there were.
void Volume::State::log_error(const Error& error) {
    constexpr std::chrono::minutes period{1};
    if (error.code == EIO) {
        std::uint64_t more = 0;
        bool tells = false;
        {
            MutexLock guard(error_lock);
            const auto now = monotonic_now();
            if (unreadable == 0 || now - unreadable_since >= period) {
                more = unreadable > most_unreadable ? unreadable - most_unreadable : 0;
                unreadable = 0;
                unreadable_since = now;
            }
            tells = ++unreadable <= most_unreadable;
        }
        if (more) log(fmt::format("damage: ... and {} more like it", more));
        if (!tells) return;
    }
    log(fmt::format("damage: {}", error.what));
}

void Volume::State::log_suppressed_errors() {
    std::uint64_t more = 0;
    {
        MutexLock guard(error_lock);
        more = std::exchange(unreadable, 0);
    }
    if (more > most_unreadable) log(fmt::format("damage: ... and {} more like it", more - most_unreadable));
}

namespace {

// As the format counts them (s_first_error_errcode).
std::uint8_t error_number(int code) {
    switch (code) {
        case EIO: return 2;
        case ENOMEM: return 3;
        case EBADMSG: return 4;
        case EUCLEAN: return 5;
        case ENOSPC: return 6;
        case EROFS: return 8;
        default: return 1;
    }
}

}  // namespace

void Volume::State::note_error(const Error& error) {
    MutexLock guard(error_lock);
    last_error = {seconds_now(), error};
    if (error_count++ == 0) first_error = last_error;
}

void Volume::State::handle_corruption(const Error& error) {
    const bool news = is_new_error(error);
    if (news) {
        note_error(error);
        log_error(error);
    }
    damaged.store(true);
    if (errors == ErrorPolicy::panic) panic();
    if (news) error_marker.request();  // and not for what keeps it from being marked, over and over
    if (errors == ErrorPolicy::remount_ro) read_only_by_error.store(true);
    if (errors == ErrorPolicy::remount_ro && layers && layers->fs && !layers->fs->read_only.exchange(true)) {
        log("errors=remount-ro: the file system is read-only now");
        notify_read_only();
    }
}

// In place of the function that e2fsck would name stands the beginning of the sentence.
void Volume::State::fill_error_fields(format::SuperBlock& super) {
    super.state = static_cast<std::uint16_t>(super.state | format::super_state::errors);
    MutexLock guard(error_lock);
    if (error_count == 0) return;
    const auto fill = [](const RecordedError& met, Le32& time, std::uint8_t& time_hi, char(&text)[32],
                         std::uint8_t& code) {
        time = static_cast<std::uint32_t>(met.time);
        time_hi = static_cast<std::uint8_t>(met.time >> 32);
        std::ranges::fill(text, '\0');
        std::ranges::copy_n(met.error.what.data(), static_cast<long>(std::min(met.error.what.size(), sizeof text - 1)),
                            text);
        code = error_number(met.error.code);
    };
    if (super.error_count == 0) {
        fill(first_error, super.first_error_time, super.first_error_time_hi, super.first_error_func,
             super.first_error_errcode);
        super.first_error_ino = super.first_error_line = 0;
        super.first_error_block = 0;
    }
    fill(last_error, super.last_error_time, super.last_error_time_hi, super.last_error_func, super.last_error_errcode);
    super.last_error_ino = super.last_error_line = 0;
    super.last_error_block = 0;
    super.error_count = super.error_count + error_count;
    error_count = 0;
}

Result<void> Volume::State::record_errors() {
    return write_super([this](format::SuperBlock& s) { fill_error_fields(s); });
}

Result<bool> Volume::State::record_errors_in_log() {
    {
        MutexLock guard(error_lock);
        if (error_count == 0) return false;
    }
    Handle handle = TRY(fs().journal.start(1));
    TRY(update_superblock(fs(), handle, [this](format::SuperBlock& s) { fill_error_fields(s); }));
    return true;
}

// What cannot be marked now is by the next sync, or is told of by the journal, which is aborted then.
void Volume::State::record_errors_now() {
    const FreezeGate::SyncEntry pass(gate);
    if (pass && record_errors_in_log().value_or(false)) (void)fs().journal.commit_all();
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
                (void)record_errors();
                marked.set_value();
            }).detach();
            (void)done.wait_for(patience);
        } catch (const std::exception&) {  // no thread
            (void)record_errors();
        }
    }
    std::abort();
}

Result<void> Volume::State::write_super(const std::function<void(format::SuperBlock&)>& change) {
    format::SuperBlock super;
    TRY(device->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    change(super);
    format::set_super_checksum(super);
    // Half of it on the device is an image that only its backups open: what failed is written again, or given up.
    constexpr int attempts = 3;
    Result<void> written;
    for (int i = 0; i < attempts; ++i) {
        written = device->write(format::super_offset, bytes_of(super));
        if (written) return device->flush();
    }
    return written;
}

Result<void> Volume::State::write_super_durably(const std::function<void(format::SuperBlock&)>& change) {
    auto write = [&]() -> Result<void> {
        const BufferRef known = TRY(read_superblock_buffer(fs()));
        format::SuperBlock written;
        TRY(write_super([&](format::SuperBlock& super) {
            change(super);
            written = super;
        }));
        format::set_super_checksum(written);
        MutexLock guard(known->lock);
        superblock_in(fs(), *known) = written;
        return {};
    };
    Result<void> written = write();
    if (!written) fs().journal.abort(written.error());
    return written;
}

// A journal that gave up left a word of it in the log. It goes to the superblock, where e2fsck looks, before the log
// may forget it.
Result<void> Volume::State::import_journal_error() {
    const int code = layers->journal->has_log() ? layers->journal->recorded_error() : recovery.recorded_error;
    if (code == 0) return {};
    log(fmt::format("the journal was aborted by an earlier mount: {}", std::strerror(code)));
    if (options.fs.read_only) return {};
    note_error(Error{code, "journal: aborted by an earlier mount"});
    damaged.store(true);
    TRY(write_super_durably([this](format::SuperBlock& s) { fill_error_fields(s); }));
    return layers->journal->clear_recorded_error();
}

}  // namespace uext4

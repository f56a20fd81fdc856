// Damage, and errors=: what was met is told once, marked in the superblock, and answered as the policy says.
#include "volume/volume_state.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <future>
#include <thread>

namespace uext4 {

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

}  // namespace uext4

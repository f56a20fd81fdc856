#include "base/counted.h"
#include "capi/call.h"
#include "capi/handles.h"
#include "device/callback_device.h"
#include "device/slice_device.h"

#include <linux/limits.h>

#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>

namespace uext4::capi {

namespace {

thread_local std::string last_error = "no error";
thread_local std::optional<Credentials> thread_identity;

struct Log {
    Mutex lock{Rank::Leaf, "uext4 log"};
    void (*function)(void*, const char*) = nullptr;
    void* context = nullptr;
};
Log& log_target() {
    static Log& log = *new Log;  // never destroyed: threads of the library may log to the end of the program
    return log;
}

void log_line(const std::string& line) {
    void (*function)(void*, const char*) = nullptr;
    void* context = nullptr;
    {
        Log& log = log_target();
        MutexLock guard(log.lock);
        function = log.function;
        context = log.context;
    }
    if (function) function(context, line.c_str());
}

Credentials make(const uext4_identity& i) {
    Credentials c = Credentials::of(i.uid, i.gid, {}, i.umask);
    if (i.groups) c.groups.assign(i.groups, i.groups + i.group_count);
    if (i.privileged) c.capabilities = Capabilities::all();
    return c;
}

constexpr const char* too_many_groups = "an identity with more than NGROUPS_MAX groups";

Capabilities make(std::uint64_t bits) {
    Capabilities c;
    c.chown = bits & UEXT4_CAP_CHOWN;
    c.dac_override = bits & UEXT4_CAP_DAC_OVERRIDE;
    c.dac_read_search = bits & UEXT4_CAP_DAC_READ_SEARCH;
    c.fowner = bits & UEXT4_CAP_FOWNER;
    c.fsetid = bits & UEXT4_CAP_FSETID;
    c.linux_immutable = bits & UEXT4_CAP_LINUX_IMMUTABLE;
    c.sys_admin = bits & UEXT4_CAP_SYS_ADMIN;
    c.sys_resource = bits & UEXT4_CAP_SYS_RESOURCE;
    c.mknod = bits & UEXT4_CAP_MKNOD;
    c.setfcap = bits & UEXT4_CAP_SETFCAP;
    return c;
}

// A structure of this library's version, or of a later one that asks for nothing new.
Result<Credentials> make(const uext4_credentials& who) {
    constexpr std::size_t known = sizeof(uext4_credentials);
    if (who.size < known) return fail(EINVAL, "uext4_credentials of {} bytes, at least {}", who.size, known);
    const auto* bytes = reinterpret_cast<const unsigned char*>(&who);
    for (std::size_t i = known; i < who.size; ++i)
        if (bytes[i] != 0) return fail(E2BIG, "uext4_credentials of {} bytes: only {} are known", who.size, known);
    if (const std::uint64_t other = who.capabilities & ~UEXT4_CAP_ALL)
        return fail(EINVAL, "capabilities {:#x} are not those of a file system", other);
    if (who.groups && who.group_count > NGROUPS_MAX) return fail(EINVAL, "{}", too_many_groups);
    Credentials c{who.uid, who.gid, {}, who.umask, make(who.capabilities)};
    if (who.groups) c.groups.assign(who.groups, who.groups + who.group_count);
    return c;
}

void set(uext4_fs* fs, Credentials who) {
    MutexLock guard(fs->identity_lock);
    fs->identity = std::move(who);
}

int finish(Result<std::unique_ptr<FileSystem>> mounted, uext4_fs** out) {
    if (!mounted) return report(mounted.error());
    auto handle = std::make_unique<uext4_fs>();
    handle->fs = std::move(*mounted);
    *out = handle.release();
    return 0;
}

}  // namespace

int report(const Error& error) {
    last_error = error.what;
    return error.code > 0 ? -error.code : -EIO;
}

int thrown(const std::exception& e) noexcept {
    const bool memory = dynamic_cast<const std::bad_alloc*>(&e) || dynamic_cast<const std::length_error*>(&e);
    last_error = memory ? "out of memory" : "thrown inside";  // short enough to need no memory
    return memory ? -ENOMEM : -EIO;
}

int invalid(const char* what) { return report(Error{EINVAL, what}); }

Credentials identity(uext4_fs* fs) {
    if (thread_identity) return *thread_identity;
    MutexLock guard(fs->identity_lock);
    return fs->identity;
}

}  // namespace uext4::capi

using namespace uext4;
using namespace uext4::capi;

extern "C" {

const char* uext4_strerror(void) { return last_error.c_str(); }

void uext4_set_log(void (*function)(void*, const char*), void* context) {
    Log& log = log_target();
    MutexLock guard(log.lock);
    log.function = function;
    log.context = context;
}

int uext4_mount(const char* image, const char* options, uext4_fs** fs) try {
    const Call call;
    if (!image || !fs) return invalid("uext4_mount: image or result is NULL");
    return finish(FileSystem::mount(image, options ? options : "", log_line), fs);
}
UEXT4_NOTHING_THROWN

int uext4_mount_device(const uext4_device* device, const char* options, uext4_fs** fs) try {
    const Call call;
    if (!device || !device->read || !fs) return invalid("uext4_mount_device: device, its read or the result is NULL");
    const Result<VolumeOptions> parsed = parse_all_options(options ? options : "");
    if (!parsed) return report(parsed.error());
    DeviceCallbacks callbacks;
    const uext4_device d = *device;
    callbacks.read = [d](std::uint64_t at, void* out, std::size_t n) { return d.read(d.context, out, n, at); };
    if (d.write)
        callbacks.write = [d](std::uint64_t at, const void* in, std::size_t n) {
            return d.write(d.context, in, n, at);
        };
    if (d.flush) callbacks.flush = [d] { return d.flush(d.context); };
    if (d.discard) callbacks.discard = [d](std::uint64_t at, std::uint64_t n) { return d.discard(d.context, at, n); };
    std::shared_ptr<BlockDevice> opened = std::make_shared<CallbackDevice>(d.size, std::move(callbacks));
    if (const std::uint64_t offset = parsed->offset) {
        if (offset >= d.size)
            return report(Error{EINVAL, fmt::format("option offset={}: the device has {} bytes", offset, d.size)});
        Result<std::unique_ptr<SliceDevice>> part = SliceDevice::make(std::move(opened), offset, d.size - offset);
        if (!part) return report(part.error());
        opened = std::move(*part);
    }
    return finish(FileSystem::mount_device(std::move(opened), *parsed, log_line), fs);
}
UEXT4_NOTHING_THROWN

int uext4_umount(uext4_fs* fs) try {
    const Call call(Cancelled::goes_on);
    if (!fs) return invalid("uext4_umount: NULL");
    if (const unsigned open = fs->open_handles.load())
        return report(
            Error{EBUSY, fmt::format("{} still open", counted(open, "file or directory", "files or directories"))});
    if (const std::size_t maps = fs->fs->maps().region_count())
        return report(Error{EBUSY, fmt::format("{} memory maps of files are left", maps)});
    Result<void> done = fs->fs->unmount();
    delete fs;
    // EBUSY means that the handle is still good, whatever the device says.
    if (!done && done.error().code == EBUSY) return report(Error{EIO, std::move(done.error().what)});
    return status(done);
}
UEXT4_NOTHING_THROWN

int uext4_set_identity(uext4_fs* fs, const uext4_identity* identity) try {
    const Call call;
    if (!fs) return invalid("uext4_set_identity: NULL");
    if (identity && identity->groups && identity->group_count > NGROUPS_MAX) return invalid(too_many_groups);
    set(fs, identity ? make(*identity) : Credentials::root());
    return 0;
}
UEXT4_NOTHING_THROWN

int uext4_set_credentials(uext4_fs* fs, const uext4_credentials* who) try {
    const Call call;
    if (!fs) return invalid("uext4_set_credentials: NULL");
    Result<Credentials> made = who ? make(*who) : Result<Credentials>(Credentials::root());
    if (!made) return report(made.error());
    set(fs, std::move(*made));
    return 0;
}
UEXT4_NOTHING_THROWN

int uext4_set_thread_credentials(const uext4_credentials* who) try {
    const Call call(Cancelled::goes_on);
    if (!who) {
        thread_identity.reset();
        return 0;
    }
    Result<Credentials> made = make(*who);
    if (!made) return report(made.error());
    thread_identity = std::move(*made);
    return 0;
}
UEXT4_NOTHING_THROWN

int uext4_set_thread_identity(const uext4_identity* identity) try {
    const Call call(Cancelled::goes_on);
    if (identity && identity->groups && identity->group_count > NGROUPS_MAX) return invalid(too_many_groups);
    if (identity) thread_identity = make(*identity);
    else thread_identity.reset();
    return 0;
}
UEXT4_NOTHING_THROWN

int uext4_syncfs(uext4_fs* fs) try {
    const Call call;
    return fs ? status(fs->fs->sync()) : invalid("uext4_syncfs: NULL");
}
UEXT4_NOTHING_THROWN
int uext4_freeze(uext4_fs* fs) try {
    const Call call;
    return fs ? status(fs->fs->freeze()) : invalid("uext4_freeze: NULL");
}
UEXT4_NOTHING_THROWN
int uext4_thaw(uext4_fs* fs) try {
    const Call call(Cancelled::goes_on);
    return fs ? status(fs->fs->thaw()) : invalid("uext4_thaw: NULL");
}
UEXT4_NOTHING_THROWN

int uext4_statfs(uext4_fs* fs, struct statvfs* out) try {
    const Call call;
    if (!fs || !out) return invalid("uext4_statfs: NULL");
    const Result<struct statvfs> r = fs->fs->statistics();
    if (!r) return report(r.error());
    *out = *r;
    return 0;
}
UEXT4_NOTHING_THROWN

}  // extern "C"

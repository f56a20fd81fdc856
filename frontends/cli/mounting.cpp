// mount, umount, freeze, thaw.
#include "cli/session.h"
#include "cli/verbs.h"
#include "fuse/cached_writes.h"
#include "fuse/ioctls.h"
#include "fuse/mount.h"
#include "volume/option_table.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

namespace uext4::cli {

namespace {

// Whoever closes a file of a frozen mount that others go on writing to waits for the thaw: the kernel writes its cache
// of the file back first. So does the end of a process. What a freeze has inherited goes before it, and its standard
// streams, where they are files of the mount, have none meanwhile.
class Inherited {
public:
    explicit Inherited(dev_t mounted) {
        for (std::size_t n = 0; n < streams_.size(); ++n) {
            const int stream = static_cast<int>(n);
            struct stat now{};
            if (::fstat(stream, &now) != 0 || now.st_dev != mounted || !S_ISREG(now.st_mode)) continue;
            flags_[n] = ::fcntl(stream, F_GETFL);
            streams_[n] = ::open(path_of(stream).c_str(), O_PATH | O_CLOEXEC);
            const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
            if (nothing < 0) continue;
            ::dup2(nothing, stream);
            ::close(nothing);
        }
    }
    Inherited(const Inherited&) = delete;
    // For the words that say why it is not frozen.
    void take_back() {
        for (std::size_t n = 0; n < streams_.size(); ++n) {
            if (streams_[n] < 0) continue;
            const int again = ::open(path_of(streams_[n]).c_str(), (flags_[n] & O_ACCMODE) | O_APPEND | O_CLOEXEC);
            if (again < 0) continue;
            ::dup2(again, static_cast<int>(n));
            ::close(again);
        }
    }

private:
    static std::string path_of(int fd) { return fmt::format("/proc/self/fd/{}", fd); }
    std::array<int, 3> streams_{-1, -1, -1}, flags_{};
};

dev_t device_of(int fd) {
    struct stat found{};
    return ::fstat(fd, &found) == 0 ? found.st_dev : 0;
}

// What was written before is to be in the image. `root` is closed where this gives up.
void send_before_freeze(const std::string& directory, int root) {
    int frozen = 0;
    if (::ioctl(root, UEXT4_IOC_FROZEN, &frozen) == 0 && frozen) {
        // What is written meanwhile waits for the thaw, and syncfs would wait for that.
        ::close(root);
        fail_with(exit_negative, directory + ": frozen already");
    }
    const Result<int> refused = fuse::send_cached_writes(root);
    const int error = refused ? *refused : refused.error().code;
    // Another freeze has come before, or it is no mount of uext4: said when this one is asked for.
    if (error == 0 || (!refused && (error == EBUSY || error == ENOTTY || error == ENOSYS))) return;
    // What found no space, or came after its file was made append-only or immutable, has been told to its writers,
    // or will be; it is no reason not to freeze the rest.
    if (!refused || (error != ENOSPC && error != EFBIG && error != EPERM)) {
        ::close(root);
        fail_with(exit_failure, directory + ": " + std::strerror(error));
    }
    fmt::print(stderr, "uext4 freeze: {}: {}: what was refused is not in the image\n", quote(directory),
               std::strerror(error));
}

void request(const std::string& directory, unsigned long what) {
    if (what == UEXT4_IOC_FREEZE) ::close_range(STDERR_FILENO + 1, ~0U, 0);
    const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) fail_with(exit_failure, directory + ": " + std::strerror(errno));
    if (what == UEXT4_IOC_FREEZE) send_before_freeze(directory, fd);
    const char* const busy = what == UEXT4_IOC_FREEZE
                                 ? "frozen already"
                                 : "a freeze is on its way, or another host has taken the file system";
    std::optional<Inherited> inherited;
    if (what == UEXT4_IOC_FREEZE) inherited.emplace(device_of(fd));
    const int result = ::ioctl(fd, what);
    const int error = errno;
    ::close(fd);
    if (result == 0) return;
    if (inherited) inherited->take_back();
    if (error == ENOTTY || error == ENOSYS) fail_with(exit_failure, directory + ": no mount of uext4");
    fail_with(error == EINVAL || error == EBUSY ? exit_negative : exit_failure,
              directory + ": " +
                  (error == EINVAL  ? "not frozen"
                   : error == EBUSY ? busy
                                    : std::strerror(error)));
}

// The table of -o.
std::string options_help() {
    std::string out = "Options after -o:\n";
    for (const MountOption& row : option_table()) {
        if (row.use == OptionTarget::refused) continue;
        std::string names;
        for_each_name(row,
                      [&](std::string_view name) { names += fmt::format("{}{}", names.empty() ? "" : ", ", name); });
        const std::string unit = row.unit.empty() ? "" : fmt::format(" ({})", row.unit);
        const std::string otherwise =
            row.default_value.empty()
                ? ""
                : fmt::format(" Without it: {}.", row.default_value == "so" ? "the same" : row.default_value);
        out += fmt::format("  {}{}: {}{}\n", names, unit, row.meaning, otherwise);
    }
    return out;
}

}  // namespace

void add_mount_verbs(CLI::App& app) {
    {
        auto r = std::make_shared<fuse::MountRequest>();
        CLI::App* v = app.add_subcommand("mount", "Mounts an image by FUSE");
        v->footer("Examples: uext4 mount disk.img /mnt   uext4 mount -o ro,cache=512M disk.img@2 /mnt\n\n" +
                  options_help());
        auto options = std::make_shared<std::vector<std::string>>();
        v->add_option("-o,--options", *options, "Options (docs/MOUNT.md); may be repeated; unknown ones are errors")
            ->allow_extra_args(false);
        v->add_flag("-f,--foreground", r->foreground, "Stay in the foreground");
        v->add_flag("-d,--debug", r->debug, "Print every request; stays in the foreground");
        auto wait = std::make_shared<std::optional<double>>();
        add_wait(v, *wait);
        v->add_option("IMAGE", r->image, "The image")->required();
        v->add_option("DIR", r->directory, "Where")->required();
        v->callback([r, options, wait] {
            r->image = whole_image(r->image);
            r->options = joined(*options);
            r->wait = time_to_wait(*wait, true);
            if (const int code = fuse::run_mount(*r); code > 0) fail_with(code, "");
        });
    }
    {
        auto directory = std::make_shared<std::string>();
        CLI::App* v = app.add_subcommand("umount", "Unmounts, and waits until the image is released");
        v->footer("Example: uext4 umount /mnt");
        v->add_option("DIR", *directory, "Where it is mounted")->required();
        v->callback([directory] {
            if (const int code = fuse::run_umount(*directory)) fail_with(code, "");
        });
    }
    auto simple = [&](const char* name, const char* help, unsigned long what) {
        auto directory = std::make_shared<std::string>();
        CLI::App* v = app.add_subcommand(name, help);
        v->footer(fmt::format("Example: uext4 {} /mnt", name));
        v->add_option("DIR", *directory, "Where it is mounted")->required();
        v->callback([directory, what] { request(*directory, what); });
    };
    simple("freeze", "Stops changes of a mounted image; a copy of it then needs no replay", UEXT4_IOC_FREEZE);
    simple("thaw", "Lets changes go on", UEXT4_IOC_THAW);
}

}  // namespace uext4::cli

// mount, umount, freeze, thaw.
#include "cli/session.h"
#include "fuse/ioctls.h"
#include "fuse/mount.h"

#include <fcntl.h>
#include <unistd.h>

namespace uext4::cli {

namespace {

void request(const std::string& directory, unsigned long what) {
    const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) give_up(impossible, directory + ": " + std::strerror(errno));
    int frozen = 0;
    if (what == UEXT4_IOC_FREEZE && ::ioctl(fd, UEXT4_IOC_FROZEN, &frozen) == 0 && frozen) {
        // What is written meanwhile waits for the thaw, and syncfs would wait for that.
        ::close(fd);
        give_up(negative, directory + ": frozen already");
    }
    // Once more: it also tells of a write of somebody else's that a signal has ended.
    if (what == UEXT4_IOC_FREEZE && ::syncfs(fd) != 0 && (errno != EINTR || ::syncfs(fd) != 0)) {
        const int error = errno;
        // What found no space, or came after its file was made append-only or immutable, has been told to its writers,
        // or will be; it is no reason not to freeze the rest.
        if (error != ENOSPC && error != EFBIG && error != EPERM) {
            ::close(fd);
            give_up(impossible, directory + ": " + std::strerror(error));
        }
        fmt::print(stderr, "uext4 freeze: {}: {}: what was refused is not in the image\n", told(directory),
                   std::strerror(error));
    }
    const char* const busy = what == UEXT4_IOC_FREEZE
                                 ? "frozen already"
                                 : "a freeze is on its way, or another host has taken the file system";
    const int result = ::ioctl(fd, what);
    const int error = errno;
    ::close(fd);
    if (result == 0) return;
    if (error == ENOTTY || error == ENOSYS) give_up(impossible, directory + ": no mount of uext4");
    give_up(error == EINVAL || error == EBUSY ? negative : impossible, directory + ": " +
                                                                           (error == EINVAL  ? "not frozen"
                                                                            : error == EBUSY ? busy
                                                                                             : std::strerror(error)));
}

}  // namespace

void add_mount_verbs(CLI::App& app) {
    {
        auto r = std::make_shared<fuse::MountRequest>();
        CLI::App* v = app.add_subcommand("mount", "Mounts an image by FUSE");
        v->footer("Examples: uext4 mount disk.img /mnt   uext4 mount -o ro,cache=512M disk.img@2 /mnt");
        auto options = std::make_shared<std::vector<std::string>>();
        v->add_option("-o,--options", *options, "Options (docs/MOUNT.md); may be repeated; unknown ones are errors")
            ->allow_extra_args(false);
        v->add_flag("-f,--foreground", r->foreground, "Stay in the foreground");
        v->add_flag("-d,--debug", r->debug, "Print every request; stays in the foreground");
        v->add_option("IMAGE", r->image, "The image")->required();
        v->add_option("DIR", r->directory, "Where")->required();
        v->callback([r, options] {
            r->options = joined(*options);
            if (const int code = fuse::run_mount(*r); code > 0) give_up(code, "");
        });
    }
    {
        auto directory = std::make_shared<std::string>();
        CLI::App* v = app.add_subcommand("umount", "Unmounts, and waits until the image is released");
        v->footer("Example: uext4 umount /mnt");
        v->add_option("DIR", *directory, "Where it is mounted")->required();
        v->callback([directory] {
            if (const int code = fuse::run_umount(*directory)) give_up(code, "");
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

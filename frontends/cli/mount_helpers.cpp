// The program as mount(8) and umount(8) call it: mount.fuse.uext4 and umount.fuse.uext4.
#include "cli/mount_helpers.h"

#include "cli/session.h"
#include "fuse/mount.h"
#include "fuse/options.h"
#include "volume/option_table.h"

#include <unistd.h>

namespace uext4::cli {

namespace {

// Exit codes of mount(8).
constexpr int usage = 1, not_done = 32;

// Sloppy: without what is not known.
std::string for_the_mount(const std::vector<std::string>& lists, bool sloppy) {
    std::string out;
    for (const std::string& list : lists)
        for (std::size_t at = 0; at <= list.size();) {
            const std::size_t end = std::min(list.find(',', at), list.size());
            const std::string option = list.substr(at, end - at);
            at = end + 1;
            if (option.empty() || (sloppy && !find_option(option.substr(0, option.find('='))))) continue;
            out += (out.empty() ? "" : ",") + option;
        }
    return out;
}

struct HelperWords {
    std::vector<std::string> options;
    std::string image, directory, type, name_space;
    bool sloppy = false, fake = false, no_table = false, verbose = false, lazy = false, force = false,
         read_only = false;
};

// 0, or the exit code.
int parse(CLI::App& app, HelperWords& w, std::vector<std::string> words) {
    app.add_flag("-n", w.no_table, "Write no table of mounts (there is none beside the kernel's)");
    app.add_flag("-v", w.verbose, "Say what was done");
    app.add_option("-t", w.type, "fuse.uext4");
    app.add_option("-N", w.name_space, "Another name space: refused");
    std::reverse(words.begin(), words.end());
    try {
        app.parse(words);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? exit_ok : usage;
    }
    if (!w.name_space.empty()) {
        fmt::print(stderr, "{}: -N {}: a mount is made in the name space of who makes it\n", app.get_name(),
                   quote(w.name_space));
        return usage;
    }
    if (!w.type.empty() && w.type != "uext4" && w.type != "fuse.uext4" && w.type != "fuse") {
        fmt::print(stderr, "{}: -t {}: this mounts fuse.uext4\n", app.get_name(), quote(w.type));
        return usage;
    }
    return -1;
}

int mount_helper(const std::string& name, std::vector<std::string> words) {
    CLI::App app("Called by mount(8): mount -t fuse.uext4 IMAGE DIR -o OPTIONS", name);
    HelperWords w;
    app.add_option("IMAGE", w.image, "The image")->required();
    app.add_option("DIR", w.directory, "Where")->required();
    app.add_option("-o", w.options, "Options (docs/MOUNT.md), and those of fstab")->allow_extra_args(false);
    app.add_flag("-s", w.sloppy, "Leave options out that are not known");
    app.add_flag("-f", w.fake, "Only look whether the words are right");
    if (const int code = parse(app, w, std::move(words)); code >= 0) return code;
    if (prefix_of(w.image)) {
        fmt::print(stderr, "{}: {}\n", name, quote(not_available(w.image)));
        return not_done;
    }
    fuse::MountRequest request;
    request.image = w.image;
    request.directory = w.directory;
    request.by_mount_program = true;
    request.options = for_the_mount(w.options, w.sloppy);
    // mount(8) leaves out what it takes for the default, these two among it; FUSE's default is the opposite. What
    // follows, `user` as well, says otherwise.
    if (::geteuid() == 0) request.options.insert(0, request.options.empty() ? "dev,suid" : "dev,suid,");
    if (w.fake) {
        const Result<fuse::MountOptions> parsed = fuse::parse_mount_options(request.options, ::geteuid() == 0);
        if (parsed) return exit_ok;
        fmt::print(stderr, "{}: {}\n", name, quote(parsed.error().what));
        return not_done;
    }
    const int code = fuse::run_mount(request);
    if (code == fuse::absent) return exit_ok;
    if (code != 0) return not_done;
    if (w.verbose) fmt::print("{}: {} mounted on {}\n", name, printable(w.image), printable(w.directory));
    return exit_ok;
}

int umount_helper(const std::string& name, std::vector<std::string> words) {
    CLI::App app("Called by umount(8): waits until the image is released", name);
    HelperWords w;
    app.add_option("DIR", w.directory, "Where it is mounted")->required();
    app.add_flag("-l", w.lazy, "Take the name away now; nothing is waited for");
    app.add_flag("-f", w.force,
                 "Also when the server does not answer: what it has not got yet is lost; nothing is waited for");
    app.add_flag("-r", w.read_only, "If it is busy, make it read-only: not possible, so it stays as it is");
    if (const int code = parse(app, w, std::move(words)); code >= 0) return code;
    if (fuse::run_umount(w.directory, {.lazy = w.lazy, .force = w.force}) != 0) {
        if (w.read_only) fmt::print(stderr, "{}: {}: cannot be made read-only\n", name, quote(w.directory));
        return not_done;
    }
    if (w.verbose) fmt::print("{}: {} unmounted\n", name, printable(w.directory));
    return exit_ok;
}

}  // namespace

std::optional<int> run_as_helper(const std::string& program, const std::vector<std::string>& words) {
    const std::string name = program.substr(program.rfind('/') + 1);  // all of it where there is no slash
    const bool umount = name == "umount.fuse.uext4" || name == "umount.uext4";
    if (!umount && name != "mount.fuse.uext4" && name != "mount.uext4") return {};
    const int code = umount ? umount_helper(name, words) : mount_helper(name, words);
    return std::fflush(stdout) == 0 && !std::ferror(stdout) ? code : std::max(code, usage);
}

}  // namespace uext4::cli

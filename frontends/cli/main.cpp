// The program `uext4`.
#include "cli/session.h"

#include <fcntl.h>

#include <cstdio>
#include <exception>
#include <iostream>

namespace uext4::cli {

namespace {

// "chmod -x" and "chattr -i" mean what they say: a change that starts with a minus is no option.
void protect_changes(std::vector<std::string>& arguments) {
    if (arguments.empty() || (arguments.front() != "chmod" && arguments.front() != "chattr")) return;
    const char* const letters = arguments.front() == "chmod" ? "rwxXstugoa,+-=" : "suSDiadAcjItTePNVEF";
    for (std::size_t i = 1; i < arguments.size(); ++i) {
        const std::string& word = arguments[i];
        if (word == "--") return;
        if (word.size() < 2 || word[0] != '-' || word[1] == '-' ||
            word.find_first_not_of(letters, 1) != std::string::npos)
            continue;
        arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(i), "--");
        return;
    }
}

// The exit code, when all that was printed is written.
int written(const std::string& verb) {
    if (std::cout && std::fflush(stdout) == 0 && !std::ferror(stdout)) return fine;
    fmt::print(stderr, "uext4 {}: the output could not be written\n", verb);
    return impossible;
}

}  // namespace

int run_line(std::vector<std::string> arguments) {
    CLI::App app("uext4: ext4 images in user space", "uext4");
    app.set_version_flag("--version", UEXT4_VERSION);
    app.require_subcommand(1);
    app.footer(
        "Exit codes: 0 fine, 1 the answer is no or a problem was found, 2 could not do it.\n"
        "IMAGE is a file, a block device, IMAGE@N (partition N) or /dev/fd/N; a path in it is IMAGE:/path or "
        "IMAGE:<12> "
        "(inode 12).");
    add_mount_verbs(app);
    add_image_verbs(app);
    add_listing_verbs(app);
    add_content_verbs(app);
    add_name_verbs(app);
    add_attribute_verbs(app);
    add_shell_verb(app);
    app.add_subcommand("version", "Prints the version")->callback([] { fmt::print("{}\n", UEXT4_VERSION); });
    const std::string verb = arguments.empty() ? "" : arguments.front();
    if (!verb.empty() && verb.front() != '-' &&
        app.get_subcommands([&](const CLI::App* a) { return a->get_name() == verb; }).empty()) {
        fmt::print(stderr, "uext4: no verb '{}' (uext4 --help lists them)\n", told(verb));
        return impossible;
    }
    protect_changes(arguments);
    std::reverse(arguments.begin(), arguments.end());
    try {
        app.parse(arguments);
    } catch (const CLI::ParseError& e) {
        if (app.exit(e) != 0) return impossible;
        std::cout.flush();
        return written(verb);
    } catch (const Failure& failure) {
        if (!failure.what.empty()) fmt::print(stderr, "uext4 {}: {}\n", verb, told(failure.what));
        return std::max(failure.code, written(verb));
    } catch (const std::exception& e) {  // of the file system library, or out of memory
        fmt::print(stderr, "uext4 {}: {}\n", verb, told(e.what()));
        return impossible;
    }
    return written(verb);
}

}  // namespace uext4::cli

int main(int count, char** values) {
    // Whoever starts the program without them would have images and pipes taken for terminals.
    for (int fd = 0; fd < 3; ++fd)
        // What cannot be written answers so when something is printed.
        if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", fd == 1 ? O_RDONLY : O_RDWR) != fd)
            return uext4::cli::impossible;
    return uext4::cli::run_line({values + 1, values + count});
}

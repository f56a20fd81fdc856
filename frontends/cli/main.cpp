// The program `uext4`.
#include "cli/damage_notes.h"
#include "cli/interrupt.h"
#include "cli/mount_helpers.h"
#include "cli/options.h"
#include "cli/session.h"
#include "cli/times.h"
#include "cli/verbs.h"
#include "sandbox/descriptors.h"

#include <bsd/unistd.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <stdexcept>
#include <system_error>

namespace uext4::cli {

namespace {

// `help VERB` is `VERB --help`. Nothing for a word that is no verb.
void rewrite_help(std::vector<std::string>& arguments) {
    if (arguments.empty() || arguments.front() != "help") return;
    if (arguments.size() == 1) arguments = {"--help"};
    else if (arguments.size() == 2 && !arguments[1].starts_with('-')) arguments = {arguments[1], "--help"};
}

// In a shell, verbs that look at a directory look at the working directory if none is named.
void expect_no_place(CLI::App& app) {
    if (!shell_words()) return;
    for (const char* const verb : {"ls", "tree", "find", "du"}) {
        if (app.get_subcommands([&](const CLI::App* a) { return a->get_name() == verb; }).empty()) continue;
        CLI::App& found = *app.get_subcommand(verb);
        for (const char* const name : {"PLACE", "PLACES"})
            if (CLI::Option* const place = found.get_option_no_throw(name))
                place->required(false)->default_val(shell_words()->directory);
    }
}

// `uext4 ls disk.img | head` has seen what it wanted: that is not worth a sentence.
bool reader_has_gone() {
    pollfd out{STDOUT_FILENO, POLLOUT, 0};
    return ::poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

// Some file systems tell only when a descriptor is closed what of a file could not be written: any that leads to it.
bool is_kept() {
    const int another = ::dup(STDOUT_FILENO);
    return another < 0 || ::close(another) == 0;
}

// The exit code, when all that was printed is written.
int written(const std::string& verb) {
    if (std::cout && std::fflush(stdout) == 0 && !std::ferror(stdout) && is_kept()) return exit_ok;
    if (!reader_has_gone()) fmt::print(stderr, "uext4 {}: the output could not be written\n", verb);
    return exit_failure;
}

std::string verb_after_blank(const std::string& verb) { return verb.empty() || verb.front() == '-' ? "" : " " + verb; }

// What the verb held is free again by now.
int out_of_memory(const std::string& verb) {
    const std::string& image = last_image();
    fmt::print(stderr, "uext4 {}: {}{}memory ran out\n", verb, quote(image), image.empty() ? "" : ": ");
    return exit_failure;
}

// What is thrown where nothing may be, as in the destructors of a library, ends the program; where the memory ran out,
// it does so with a sentence. (An image that was being changed is then as after a crash.)
[[noreturn]] void give_up_for_good() {
    try {
        if (std::current_exception()) std::rethrow_exception(std::current_exception());
    } catch (const std::bad_alloc&) {
        std::fputs("uext4: memory ran out\n", stderr);
        _exit(exit_failure);
    } catch (...) {
        std::abort();
    }
    std::abort();
}

}  // namespace

int run_line(std::vector<std::string> arguments) {
    CLI::App app("uext4: ext4 images in user space", "uext4");
    app.set_version_flag("--version", UEXT4_VERSION);
    app.require_subcommand(1);
    app.footer(
        "Exit codes: 0 fine, 1 the answer is no or a problem was found, 2 could not do it.\n"
        "IMAGE is a file, a block device, IMAGE@N (partition N) or /dev/fd/N. IMAGE:/path is a path in it, IMAGE:<12> "
        "inode 12,\n"
        ":/path a path in the image of the operand before it. Other words are paths of the host (docs/COMMAND.md).\n"
        "With SOURCE_DATE_EPOCH in the environment, equal commands make equal images (docs/COMMAND.md).");
    add_verbs(app);
    CLI::App* version = app.add_subcommand("version", "Prints the version");
    version->footer("Example: uext4 version");
    version->callback([] { fmt::print("{}\n", UEXT4_VERSION); });
    CLI::App* help = app.add_subcommand("help", "Prints the help of a verb");
    help->footer("Example: uext4 help cp");
    help->add_option("VERB", "The verb; without it, all of them are listed");
    expect_no_place(app);
    rewrite_help(arguments);
    const std::string verb = arguments.empty() ? "" : arguments.front();
    if (const CLI::App* known = find_verb(app, verb)) {
        protect_words(*known, arguments);
        if (const std::optional<std::string> unknown = unknown_option(*known, arguments)) {
            fmt::print(stderr, "uext4 {}: unknown option '{}' (uext4 {} --help)\n", verb, quote(*unknown), verb);
            return exit_failure;
        }
    } else if (!verb.empty() && verb.front() != '-') {
        fmt::print(stderr, "uext4: no verb '{}' (uext4 --help lists them)\n", quote(verb));
        return exit_failure;
    }
    // A mount whose server does not answer is not looked at before that can be said.
    if (verb != "umount") look_at_words(arguments);
    std::reverse(arguments.begin(), arguments.end());
    try {
        app.parse(arguments);
        check_interrupt();
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() != 0) {
            fmt::print(stderr, "uext4{}: {} (uext4{} --help)\n", verb_after_blank(verb), quote(e.what()),
                       verb_after_blank(verb));
            return exit_failure;
        }
        app.exit(e);  // the help, or the version
        std::cout.flush();
        return written(verb);
    } catch (const Failure& failure) {
        if (!failure.what.empty()) fmt::print(stderr, "uext4 {}: {}\n", verb, quote(failure.what));
        note_failure(failure.what);
        const int code = print_damage(verb) ? exit_failure : failure.code;
        if (const int signal = noted_interrupt()) return end_interrupted(verb, {signal});
        return std::max(code, written(verb));
    } catch (const InterruptError& interrupt) {
        (void)print_damage(verb);  // the exit is by the signal
        return end_interrupted(verb, interrupt);
    } catch (const std::system_error& e) {  // of what prints
        if (e.code() != std::errc::broken_pipe || !reader_has_gone())
            fmt::print(stderr, "uext4 {}: {}\n", verb, quote(e.what()));
        return exit_failure;
    } catch (const std::bad_alloc&) {
        return out_of_memory(verb);
    } catch (const std::length_error&) {  // more than there could ever be
        return out_of_memory(verb);
    } catch (const std::exception& e) {  // of the file system library
        fmt::print(stderr, "uext4 {}: {}\n", verb, quote(e.what()));
        return exit_failure;
    }
    const int code = print_damage(verb) ? exit_failure : exit_ok;
    return std::max(code, written(verb));
}

}  // namespace uext4::cli

int main(int count, char** values) {
    // Whoever starts the program without them would have images and pipes taken for terminals.
    for (int fd = 0; fd < 3; ++fd)
        // What cannot be written answers so when something is printed.
        if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", fd == 1 ? O_RDONLY : O_RDWR) != fd)
            return uext4::cli::exit_failure;
    if (count < 1) return uext4::cli::exit_failure;
    ::setproctitle_init(count, values, environ);
    // Who no longer reads what is printed is an error like any other, and no reason to leave an image unclean.
    ::signal(SIGPIPE, SIG_IGN);
    // Nor is a limit of the size of files: the write then fails like any other.
    ::signal(SIGXFSZ, SIG_IGN);
    std::set_terminate(uext4::cli::give_up_for_good);
    const std::vector<std::string> words(values + 1, values + count);
    uext4::close_unnamed(words);
    try {
        if (const std::optional<int> code = uext4::cli::run_as_helper(values[0], words)) return *code;
        uext4::cli::load_time_zone();
        return uext4::cli::run_line(words);
    } catch (const std::bad_alloc&) {  // before a verb was chosen, or in what was to be said
        std::fputs("uext4: memory ran out\n", stderr);
        return uext4::cli::exit_failure;
    }
}

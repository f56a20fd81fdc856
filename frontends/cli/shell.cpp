// shell: the verbs, with the image and a current directory understood.
#include "cli/copy.h"
#include "cli/session.h"
#include "cli/shell_worker.h"
#include "cli/source_date.h"

#include <fcntl.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <cwchar>
#include <string_view>

namespace uext4::cli {

namespace {

const std::vector<std::string>& image_verbs() {
    static const std::vector<std::string> verbs = {"df", "info", "label", "check", "journal", "replay"};
    return verbs;
}
const std::vector<std::string>& path_verbs() {
    static const std::vector<std::string> verbs = {
        "ls", "tree", "find",  "stat",  "readlink", "du",     "cat",    "fiemap",   "truncate", "mkdir", "rm", "rmdir",
        "mv", "ln",   "mknod", "chmod", "chown",    "chattr", "lsattr", "getfattr", "setfattr", "touch", "cp"};
    return verbs;
}
bool contains(const std::vector<std::string>& list, const std::string& word) {
    return std::ranges::find(list, word) != list.end();
}

// What looks at the image as it is on the device, or changes that: nothing else has it open meanwhile.
bool goes_alone(const std::vector<std::string>& words) {
    static const std::vector<std::string> verbs = {"info", "check", "journal", "replay"};
    static const std::vector<std::string> options = {"-o", "--options", "--no-replay", "--no-sandbox"};
    return contains(verbs, words.front()) || std::ranges::any_of(words, [](const std::string& word) {
               return std::ranges::any_of(options, [&](const std::string& option) { return word.starts_with(option); });
           });
}

// Words, with '…', "…" and backslashes as a shell has them; nothing when a quote does not end.
std::optional<std::vector<std::string>> words_of(const std::string& line) {
    std::vector<std::string> out;
    std::string word;
    bool any = false;
    char quote = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
        const char c = line[i];
        if (quote) {
            if (c == quote) quote = 0;
            else word += c;
        } else if (c == '\'' || c == '"') {
            quote = c;
            any = true;
        } else if (c == '\\' && i + 1 < line.size()) {
            word += line[++i];
            any = true;
        } else if (std::isspace(static_cast<unsigned char>(c))) {
            if (any || !word.empty()) out.push_back(word);
            word.clear();
            any = false;
        } else if (c == '#' && word.empty() && !any) {
            break;
        } else {
            word += c;
        }
    }
    if (quote) return {};
    if (any || !word.empty()) out.push_back(word);
    return out;
}

class Shell {
public:
    // `settles`: what a line changed is durable when it has ended.
    Shell(const std::string& image, const CommonOptions& o, bool settles)
        : image_(image), o_(o), worker_(image, o, settles) {
        read_words_in_shell({image_, here_});
    }

    // A bad image is an error at once.
    int open() {
        return worker_.prepare({}, [] { return std::vector<HostReach>(); });
    }
    int close() { return worker_.finish(); }

    // 0, or the exit code of the line. `ahead`: lines that are known to follow.
    int run(const std::string& line, std::string_view ahead = {}) {
        std::optional<std::vector<std::string>> parts = words_of(line);
        if (!parts) {
            fmt::print(stderr, "uext4 shell: {}: a quote does not end\n", quote(line));
            return exit_failure;
        }
        std::vector<std::string>& words = *parts;
        if (words.empty()) return exit_ok;
        const std::string verb = words.front();
        if (verb == "exit" || verb == "quit") return leave(words);
        if (verb == "pwd") {
            fmt::print("{}\n", printable(here_));
            return exit_ok;
        }
        if (verb == "cd") return change(words.size() > 1 ? words[1] : "/");
        if (verb == "help" && words.size() == 1) {
            fmt::print("cd pwd exit help");
            for (const auto& v : path_verbs()) fmt::print(" {}", v);
            for (const auto& v : image_verbs()) fmt::print(" {}", v);
            fmt::print("\nPaths are of the image; with cp, host:PATH is a path of the host.\n");
            return exit_ok;
        }
        if (verb == "help") return run_line(words);
        if (contains(image_verbs(), verb)) {
            words.insert(words.begin() + 1, "/");
        } else if (!contains(path_verbs(), verb)) {
            fmt::print(stderr, "uext4 shell: unknown command '{}' (try help)\n", quote(verb));
            return exit_failure;
        }
        const CopyNeeds needed = needs_of(words);
        const bool alone = goes_alone(words) || std::ranges::any_of(needed.images, [&](const std::string& image) {
                               return !same_image(image, image_);
                           });
        if (!o_.mount_options.empty()) words.insert(words.begin() + 1, "--options=" + o_.mount_options);
        if (o_.no_sandbox) words.insert(words.begin() + 1, "--no-sandbox");
        if (alone) return worker_.run_alone(words);
        const int ready = worker_.prepare(needed.host, [&] { return reaches_of(ahead); });
        return ready != exit_ok ? ready : worker_.run(here_, words);
    }
    bool done() const { return done_; }
    // The code that `exit` was given.
    std::optional<int> wanted() const { return wanted_; }
    std::string prompt() const { return escaped(here_) + "> "; }

private:
    int leave(const std::vector<std::string>& words) {
        done_ = true;
        if (words.size() == 1) return exit_ok;
        wanted_ = exit_failure;
        std::uint8_t code = 0;
        const std::string& text = words[1];
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), code);
        if (words.size() > 2 || error != std::errc() || end != text.data() + text.size()) {
            fmt::print(stderr, "uext4 shell: {}: one number from 0 to 255 may follow\n", words.front());
            return exit_failure;
        }
        wanted_ = code;
        return code;
    }

    static CopyNeeds needs_of(const std::vector<std::string>& words) {
        if (words.front() != "cp") return {};
        return needs_of_copy({words.begin() + 1, words.end()});
    }

    // What lines that are to come need of the host, as far as one process can do them.
    static std::vector<HostReach> reaches_of(std::string_view lines) {
        constexpr std::size_t most = 1000;
        std::vector<HostReach> out;
        for (std::size_t end; out.size() < most && (end = lines.find('\n')) != std::string_view::npos;) {
            const std::optional<std::vector<std::string>> words = words_of(std::string(lines.substr(0, end)));
            lines.remove_prefix(end + 1);
            if (words && !words->empty() && words->front() == "cp") out.push_back(needs_of(*words).host);
        }
        return out;
    }

    int change(const std::string& path) {
        std::string wanted = path.starts_with('/') || path.starts_with('<') ? path : below(here_, path);
        // "." and ".." are resolved here, so that the prompt stays readable.
        std::vector<std::string> parts;
        std::string part;
        for (char c : wanted + "/") {
            if (c != '/') {
                part += c;
                continue;
            }
            if (part == ".." && !parts.empty()) parts.pop_back();
            else if (!part.empty() && part != "." && part != "..") parts.push_back(part);
            part.clear();
        }
        wanted = "/";
        for (const auto& p : parts) wanted += (wanted == "/" ? "" : "/") + p;
        int code = open();
        if (code == exit_ok) code = worker_.enter(wanted);
        if (code == exit_ok) here_ = wanted;
        read_words_in_shell({image_, here_});
        return code;
    }

    const std::string image_;
    std::string here_ = "/";
    const CommonOptions o_;
    ShellWorker worker_;
    bool done_ = false;
    std::optional<int> wanted_;
};

volatile sig_atomic_t signal_seen = 0;

// A signal that asks for the end ends the command that runs at its next safe point, and then the shell, with a clean
// image. A second one ends the shell at once.
class EndingSignals {
public:
    EndingSignals() {
        struct sigaction note{};
        note.sa_handler = [](int number) {
            const int error = errno;
            signal_seen = number;
            ShellWorker::pass_on_signal(number);
            errno = error;
        };
        note.sa_flags = static_cast<int>(SA_RESETHAND);
        for (std::size_t i = 0; i < std::size(numbers); ++i) {
            ::sigaction(numbers[i], nullptr, &before_[i]);
            if (before_[i].sa_handler != SIG_IGN) ::sigaction(numbers[i], &note, nullptr);
        }
    }
    ~EndingSignals() {
        for (std::size_t i = 0; i < std::size(numbers); ++i) ::sigaction(numbers[i], &before_[i], nullptr);
    }
    EndingSignals(const EndingSignals&) = delete;
    EndingSignals& operator=(const EndingSignals&) = delete;

    // Waits until standard input has something, or its end; false if a signal has asked for the shell's end. None is
    // missed: they can only arrive before the look at what was seen, or while this waits.
    static bool wait_for_input() {
        sigset_t ending, before;
        sigemptyset(&ending);
        for (const int number : numbers) sigaddset(&ending, number);
        pthread_sigmask(SIG_BLOCK, &ending, &before);
        pollfd input{STDIN_FILENO, POLLIN, 0};
        while (!signal_seen && ::ppoll(&input, 1, nullptr, &before) < 0 && errno == EINTR) {
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return !signal_seen;
    }

private:
    static constexpr int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction before_[std::size(numbers)];
};

std::string current_prompt;
char* prompt_of(EditLine*) { return current_prompt.data(); }

// A character for the editor: 1, or 0 at the end of the input, -1 for a signal.
int typed(EditLine*, wchar_t* out) {
    std::mbstate_t state{};
    while (EndingSignals::wait_for_input()) {
        char byte = 0;
        const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
        if (n <= 0) return static_cast<int>(n);
        const std::size_t used = std::mbrtowc(out, &byte, 1, &state);
        if (used == static_cast<std::size_t>(-2)) continue;  // more bytes of it are to come
        if (used == static_cast<std::size_t>(-1)) *out = static_cast<unsigned char>(byte);
        return 1;
    }
    return -1;
}

void interactive(Shell& shell) {
    EditLine* editor = ::el_init("uext4", stdin, stdout, stderr);
    History* history = ::history_init();
    HistEvent event{};
    ::history(history, &event, H_SETSIZE, 500);
    ::el_set(editor, EL_PROMPT, prompt_of);
    ::el_set(editor, EL_EDITOR, "emacs");
    ::el_set(editor, EL_GETCFN, typed);
    ::el_set(editor, EL_HIST, ::history, history);
    while (!shell.done() && !signal_seen) {
        current_prompt = shell.prompt();
        int count = 0;
        const char* line = ::el_gets(editor, &count);
        if (!line || count <= 0) break;
        if (count > 1) ::history(history, &event, H_ENTER, line);
        (void)shell.run(line);
    }
    ::history_end(history);
    ::el_end(editor);
}

// The worst exit code of the lines; the last one may lack its end.
int from_input(Shell& shell) {
    // How often the image is opened depends on the lines that are known to follow: where that is to be the same each
    // time, all of them.
    const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
    const bool reads_all_first = !epoch || *epoch;
    int worst = exit_ok;
    std::string text;
    std::vector<char> piece(std::size_t{1} << 16);  // what a pipe holds
    ssize_t n = 1;
    while (n > 0 && !shell.done()) {
        std::fflush(stdout);  // who wrote the lines may wait for what they print
        if (!EndingSignals::wait_for_input()) break;
        n = ::read(STDIN_FILENO, piece.data(), piece.size());
        if (n < 0) fail_with(exit_failure, fmt::format("standard input: {}", std::strerror(errno)));
        text.append(piece.data(), static_cast<std::size_t>(n));
        if (n == 0 && !text.empty()) text += '\n';
        if (n > 0 && reads_all_first) continue;
        std::size_t at = 0;
        for (std::size_t end; (end = text.find('\n', at)) != std::string::npos && !shell.done() && !signal_seen;) {
            const std::string line = text.substr(at, end - at);
            at = end + 1;
            worst = std::max(worst, shell.run(line, std::string_view(text).substr(at)));
        }
        text.erase(0, at);
    }
    return worst;
}

// Commands come from there instead of standard input.
void read_from(const std::string& commands) {
    if (commands.empty() || commands == "-") return;
    const int fd = ::open(commands.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail_with(exit_failure, fmt::format("{}: {}", commands, std::strerror(errno)));
    struct stat info{};
    const bool taken = ::fstat(fd, &info) == 0 && !S_ISDIR(info.st_mode) && ::dup2(fd, STDIN_FILENO) == STDIN_FILENO;
    ::close(fd);
    if (!taken) fail_with(exit_failure, commands + ": commands cannot be read from that");
}

void run_shell(const std::string& image, const std::string& commands, const CommonOptions& o) {
    read_from(commands);
    int code = exit_ok;
    {
        const EndingSignals signals;
        const bool typed_in = ::isatty(STDIN_FILENO) == 1;
        Shell shell(image, o, typed_in);
        if (const int opened = shell.open(); opened != exit_ok) fail_with(opened, "");
        if (typed_in) interactive(shell);
        else code = from_input(shell);
        if (const int closed = shell.close(); closed != exit_ok) fail_with(closed, "");
        if (shell.wanted()) code = *shell.wanted();
    }
    if (signal_seen) ::raise(signal_seen);
    if (code) fail_with(code, "");
}

}  // namespace

void add_shell_verb(CLI::App& app) {
    struct State {
        std::string image, commands;
        CommonOptions o;
    };
    auto s = std::make_shared<State>();
    CLI::App* v = app.add_subcommand("shell", "Works in an image by commands, typed or from a pipe");
    v->footer(
        "Examples: uext4 shell disk.img    uext4 shell disk.img commands.txt    printf 'mkdir a\\nls\\n' | uext4 shell "
        "disk.img");
    v->add_option("IMAGE", s->image, "The image")->required();
    v->add_option("FILE", s->commands, "Commands are read from it, one a line, instead of standard input");
    add_common(v, s->o, false, false);
    v->callback([s] { run_shell(whole_image(s->image), s->commands, s->o); });
}

}  // namespace uext4::cli

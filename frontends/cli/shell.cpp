// shell: the verbs, with the image and a current directory understood.
#include "cli/session.h"

#include <histedit.h>
#include <unistd.h>

#include <iostream>

namespace uext4::cli {

namespace {

const std::vector<std::string>& image_verbs() {
    static const std::vector<std::string> verbs = {"df", "info", "label", "check", "journal", "replay"};
    return verbs;
}
const std::vector<std::string>& path_verbs() {
    static const std::vector<std::string> verbs = {
        "ls", "tree",  "stat",  "cat",   "fiemap", "truncate", "mkdir",    "rm",       "rmdir", "mv",
        "ln", "mknod", "chmod", "chown", "chattr", "lsattr",   "getfattr", "setfattr", "touch", "cp"};
    return verbs;
}
bool contains(const std::vector<std::string>& list, const std::string& word) {
    return std::ranges::find(list, word) != list.end();
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
    Shell(std::string image, CommonOptions o) : image_(std::move(image)), o_(std::move(o)) {}

    // 0, or the exit code of the line.
    int run(const std::string& line) {
        std::optional<std::vector<std::string>> parts = words_of(line);
        if (!parts) {
            fmt::print(stderr, "uext4 shell: {}: a quote does not end\n", told(line));
            return impossible;
        }
        std::vector<std::string>& words = *parts;
        if (words.empty()) return fine;
        const std::string verb = words.front();
        if (verb == "exit" || verb == "quit") {
            done_ = true;
            return fine;
        }
        if (verb == "pwd") {
            fmt::print("{}\n", shown(here_));
            return fine;
        }
        if (verb == "cd") return change(words.size() > 1 ? words[1] : "/");
        if (verb == "help") {
            fmt::print("cd pwd exit help");
            for (const auto& v : path_verbs()) fmt::print(" {}", v);
            for (const auto& v : image_verbs()) fmt::print(" {}", v);
            fmt::print("\nPaths are of the image; with cp, host:PATH is a path of the host.\n");
            return fine;
        }
        if (contains(image_verbs(), verb)) {
            words.insert(words.begin() + 1, image_);
        } else if (contains(path_verbs(), verb)) {
            place_paths(words);
        } else {
            fmt::print(stderr, "uext4 shell: unknown command '{}' (try help)\n", told(verb));
            return impossible;
        }
        if (!o_.mount_options.empty()) words.insert(words.begin() + 1, {"-o", o_.mount_options});
        const int code = run_line(std::move(words));
        std::fflush(stdout);
        return code;
    }
    bool done() const { return done_; }
    std::string prompt() const { return escaped(here_) + "> "; }

private:
    std::string absolute(const std::string& path) const {
        if (path.starts_with('/') || path.starts_with('<')) return path;
        return here_ == "/" ? "/" + path : here_ + "/" + path;
    }

    // Which words are paths: all that are no options or their values, but for a leading argument of some verbs.
    void place_paths(std::vector<std::string>& words) {
        const std::string verb = words.front();
        const bool leads = verb == "chmod" || verb == "chown" || verb == "chattr";
        bool text_first = verb == "ln" && contains(words, "-s");
        const bool changes = verb == "chmod" || verb == "chattr";  // a change may start with a minus
        std::size_t seen = 0;
        bool any = false;
        for (std::size_t i = 1; i < words.size(); ++i) {
            std::string& w = words[i];
            if (w.size() > 1 && w[0] == '-' && !(changes && seen == 0)) {
                const bool takes = w == "-n" || w == "-v" || w == "-x" || w == "-s" || w == "--size" ||
                                   w == "--owner" || w == "--mode" || w == "--map-owner";
                if (takes && !(verb == "ln" && w == "-s")) ++i;
                continue;
            }
            const std::size_t position = seen++;
            if ((leads && position == 0) || (text_first && position == 0) || (verb == "mknod" && position > 0)) {
                if (changes && w[0] == '-') {
                    words.insert(words.begin() + static_cast<std::ptrdiff_t>(i), "--");
                    ++i;
                }
                continue;
            }
            any = true;
            if (verb == "cp" && w.starts_with("host:")) w = w.substr(5);
            else w = image_ + ":" + absolute(w);
        }
        if (!any && (verb == "ls" || verb == "tree")) words.push_back(image_ + ":" + here_);
    }

    int change(const std::string& path) {
        std::string wanted = absolute(path);
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
        try {
            Session s(image_, false, o_);
            bool directory = false;
            {
                InodeRef inode = s.resolve(wanted);
                directory = inode->is_directory();
            }
            s.close();
            if (!directory) {
                fmt::print(stderr, "uext4 shell: {}: no directory\n", told(wanted));
                return negative;
            }
        } catch (const Failure& f) {
            fmt::print(stderr, "uext4 shell: {}\n", told(f.what));
            return f.code;
        }
        here_ = wanted;
        return fine;
    }

    std::string image_, here_ = "/";
    CommonOptions o_;
    bool done_ = false;
};

std::string current_prompt;
char* prompt_of(EditLine*) { return current_prompt.data(); }

int interactive(Shell& shell) {
    EditLine* editor = ::el_init("uext4", stdin, stdout, stderr);
    History* history = ::history_init();
    HistEvent event{};
    ::history(history, &event, H_SETSIZE, 500);
    ::el_set(editor, EL_PROMPT, prompt_of);
    ::el_set(editor, EL_EDITOR, "emacs");
    ::el_set(editor, EL_HIST, ::history, history);
    while (!shell.done()) {
        current_prompt = shell.prompt();
        int count = 0;
        const char* line = ::el_gets(editor, &count);
        if (!line || count <= 0) break;
        if (count > 1) ::history(history, &event, H_ENTER, line);
        (void)shell.run(line);
    }
    ::history_end(history);
    ::el_end(editor);
    return fine;
}

}  // namespace

void add_shell_verb(CLI::App& app) {
    struct State {
        std::string image;
        CommonOptions o;
    };
    auto s = std::make_shared<State>();
    CLI::App* v = app.add_subcommand("shell", "Works in an image by commands, typed or from a pipe");
    v->footer("Examples: uext4 shell disk.img    printf 'mkdir a\\nls\\n' | uext4 shell disk.img");
    v->add_option("IMAGE", s->image, "The image")->required();
    add_common(v, s->o, false, false);
    v->callback([s] {
        reach_host_files();  // each line opens the image anew
        {
            Session probe(s->image, false, s->o);  // a bad image is an error at once
            probe.close();
        }
        Shell shell(s->image, s->o);
        if (::isatty(STDIN_FILENO)) {
            interactive(shell);
            return;
        }
        int worst = fine;
        std::string line;
        while (!shell.done() && std::getline(std::cin, line)) worst = std::max(worst, shell.run(line));
        if (worst) give_up(worst, "");
    });
}

}  // namespace uext4::cli

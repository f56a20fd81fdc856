// What every verb needs: the image it works on, paths inside it, and how it ends.
#pragma once

#include "api/file_system.h"
#include "cli/text.h"

#include <CLI/CLI.hpp>

#include <memory>
#include <optional>
#include <string>

namespace uext4::cli {

// Exit codes.
inline constexpr int fine = 0, negative = 1, impossible = 2;

// Ends the verb with an exit code and a sentence for stderr.
struct Failure {
    int code;
    std::string what;
};
[[noreturn]] void give_up(int code, const std::string& what);
// The value, or the end of the verb: ENOENT and the like are "no" (1), the rest 2.
template <class T>
T need(Result<T> result, const std::string& subject);
void need(Result<void> result, const std::string& subject);
[[noreturn]] void refuse(const Error& error, const std::string& subject);

template <class T>
T need(Result<T> result, const std::string& subject) {
    if (!result) refuse(result.error(), subject);
    return std::move(*result);
}

// IMAGE or IMAGE:/path or IMAGE:<12>. `image` empty: a path of the host.
struct Place {
    std::string image, path;
};
Place split_place(const std::string& text);
Place image_place(const std::string& text);  // no ":/": the root of an image

struct CommonOptions {
    std::string mount_options;
    bool no_replay = false, json = false;
    bool no_sandbox = false;
};

// For verbs that open other files after an image (cp, shell, several images): the sandbox leaves them that.
void reach_host_files();

class Session {
public:
    Session(const std::string& image, bool writable, const CommonOptions& options);
    ~Session();
    FileSystem& fs() { return *fs_; }
    const std::string& image() const { return image_; }
    // "IMAGE: PATH", for messages.
    std::string at(const std::string& path) const { return image_ + ": " + path; }
    // Unmounts; the end of the verb when that fails.
    void close();
    InodeRef resolve(const std::string& path, bool follow = true);
    FileSystem::Parent parent(const std::string& path);
    // The place of something that is to be no directory: the end of the verb for "name/".
    FileSystem::Parent parent_of_file(const std::string& path);

private:
    std::string image_;
    std::unique_ptr<FileSystem> fs_;
};

const Credentials& operator_identity();

// The directories between the start of a walk and where it is: a damaged image may hold one that contains itself.
class Ancestors {
public:
    // As long as it lives, the walk is in `directory`. Ends the verb when that is among those above, or they are more
    // than any path can name.
    class Inside {
    public:
        Inside(Ancestors& above, const Session& session, const Inode& directory) : above_(above) {
            above_.enter(session, directory);
        }
        ~Inside() { above_.numbers_.pop_back(); }
        Inside(const Inside&) = delete;
        Inside& operator=(const Inside&) = delete;

    private:
        Ancestors& above_;
    };

private:
    void enter(const Session& session, const Inode& directory);
    std::vector<std::uint64_t> numbers_;
};

std::string mode_text(std::uint16_t mode);
std::string time_text(format::Timestamp time);

// The verbs, by file.
void add_listing_verbs(CLI::App& app);
void add_content_verbs(CLI::App& app);
void add_name_verbs(CLI::App& app);
void add_attribute_verbs(CLI::App& app);
void add_image_verbs(CLI::App& app);
void add_mount_verbs(CLI::App& app);
void add_shell_verb(CLI::App& app);

// Runs one command line (without the program's name); the exit code.
int run_line(std::vector<std::string> arguments);
// "-h" as in chown(1): a link that is named is not followed. The help is `--help` alone then.
void link_itself(CLI::App* verb, bool& flag);
// Options that many verbs have.
void add_common(CLI::App* verb, CommonOptions& options, bool reads, bool lists);

}  // namespace uext4::cli

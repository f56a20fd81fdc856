// What every verb needs: the image it works on, paths inside it, and how it ends.
#pragma once

#include "api/file_system.h"
#include "cli/failure.h"
#include "cli/place_words.h"
#include "cli/text.h"
#include "sandbox/sandbox.h"

#include <CLI/CLI.hpp>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

namespace uext4::cli {

struct CommonOptions {
    std::string mount_options;
    bool no_replay = false, json = false;
    bool no_sandbox = false;
    std::string verb;            // for messages
    std::optional<double> wait;  // seconds for another process that has the image open; else a default
};

// What a verb needs of the host after an image is open, which the sandbox leaves it.
struct HostReach {
    SandboxProfile reach = SandboxProfile::image;
    HostFiles files{};
};
void reach_host_files(HostReach wanted);
const HostReach& host_reach();

// For verbs over several images: each is opened by its name before the first one is mounted, and to the end, so that
// the sandbox need leave them no name. Ends the verb where that is not possible.
void open_beforehand(const std::string& image, bool writable, const CommonOptions& options);

// The image that was opened last, or empty: for what ends a verb in the middle of anything.
const std::string& last_image();

// Mounts, in the sandbox. The end of the verb when that fails, which names the image.
std::unique_ptr<FileSystem> mount_image(const std::string& image, bool writable, const CommonOptions& options);

class Session {
public:
    enum class Use : std::uint8_t {
        shared,  // in a shell: the mount that its commands share
        alone    // always a mount of its own, of the image as it is on the device
    };
    Session(const std::string& image, bool writable, const CommonOptions& options, Use use = Use::shared);
    // After an interrupt it unmounts what is not shared, and notes for the last line whether the image is clean.
    ~Session();
    FileSystem& fs() { return *fs_; }
    const std::string& image() const { return image_; }
    // "IMAGE:/path", for messages.
    std::string at(const std::string& path) const;
    // The end of the verb for what the library says of a path: it names the part that it means, in quotes.
    [[noreturn]] void refuse_path(const Error& error, const std::string& path) const;
    // Unmounts what is not shared; the end of the verb when that fails.
    void close();
    // Each is the end of the verb where that is not possible.
    InodeRef resolve(const std::string& path, bool follow = true);
    FileSystem::Parent parent(const std::string& path);
    // What a directory's entry names. That it is no inode is damage, and not an answer.
    InodeRef inode_of_entry(std::uint64_t number, const std::string& path);
    // The place of something that is to be no directory: the end of the verb for "name/".
    FileSystem::Parent parent_of_file(const std::string& path);

private:
    std::string image_;
    bool writable_;
    std::unique_ptr<FileSystem> own_;
    FileSystem* fs_ = nullptr;
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

    bool contains(const Inode& directory) const;

    // Ends the verb for a link that was followed to one of them.
    void expect_outside(const Session& session, const Inode& directory, const std::string& path) const;

private:
    void enter(const Session& session, const Inode& directory);
    std::vector<std::uint64_t> numbers_;
};

std::string mode_text(std::uint16_t mode);

// Runs one command line (without the program's name); the exit code.
int run_line(std::vector<std::string> arguments);
// "-h" means something else than the help, which is `--help` alone.
void long_help_only(CLI::App* verb);
// "-h" as in chown(1): a link that is named is not followed. The help is `--help` alone then.
void link_itself(CLI::App* verb, bool& flag);
// Mount options that were given one by one: "a", "b,c" are "a,b,c".
std::string joined(const std::vector<std::string>& options);
// "--wait SECONDS", of what opens an image.
void add_wait(CLI::App* verb, std::optional<double>& seconds);
// The same in milliseconds, or the default.
std::chrono::milliseconds time_to_wait(const std::optional<double>& seconds, bool writable);
// Options that many verbs have.
void add_common(CLI::App* verb, CommonOptions& options, bool reads, bool lists);

}  // namespace uext4::cli

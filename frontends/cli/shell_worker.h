// The process in which a shell's commands work on the image.
//
// The shell itself reads what is typed, by the rights of whoever types it, and never sees a byte of the image. So the
// sandbox of the process that does can be as narrow as that of any verb: it reaches what the command names and nothing
// else. Where the next command names more, the process ends, with the image unmounted, and another one takes over.
#pragma once

#include "cli/session.h"
#include "cli/worker_reach.h"

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace uext4::cli {

class ShellWorker {
public:
    // `settles`: what a command changed is durable when it has ended.
    ShellWorker(std::string image, CommonOptions options, bool settles)
        : image_(std::move(image)), options_(std::move(options)), settles_(settles) {}
    ~ShellWorker();
    ShellWorker(const ShellWorker&) = delete;
    ShellWorker& operator=(const ShellWorker&) = delete;

    // Has a process with the image mounted and `needed` in reach, started if there is none; it is read-only until the
    // first command that changes something, and writable from then on. `later`, of commands that are known to follow,
    // is asked for only when one is started. An exit code; what is wrong has been told.
    int prepare(const HostReach& needed, const std::function<std::vector<HostReach>()>& later);
    // A command line (without the program's name) in a directory of the image: its exit code.
    int run(const std::string& directory, std::vector<std::string> words);
    // Whether there is such a directory in the image: an exit code.
    int enter(const std::string& directory);
    // A command line in a process of its own, with no mount but its own: its exit code.
    int run_alone(const std::vector<std::string>& words);
    // Unmounts, and waits for the end: an exit code. The next one reads only.
    int finish();
    // For the handler of a signal that asks for an end: the process that works gets it as well.
    static void pass_on_signal(int number);

private:
    int start(HostReach reach, bool writable);
    int ask(std::uint32_t kind, const std::vector<std::string>& words);

    const std::string image_;
    const CommonOptions options_;
    const bool settles_;
    WorkerReach reach_;
    bool writable_ = false;
    pid_t process_ = -1;
    int socket_ = -1;
};

}  // namespace uext4::cli

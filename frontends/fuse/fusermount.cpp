#include "fuse/fusermount.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

namespace uext4::fuse {

int run_fusermount(const std::string& directory, bool lazy) {
    std::vector<std::string> words = {"fusermount3", "-u"};
    if (lazy) words.emplace_back("-z");
    words.emplace_back("--");
    words.push_back(directory);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t pid = -1;
    if (posix_spawnp(&pid, "fusermount3", nullptr, nullptr, arguments.data(), environ) != 0) return -1;
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace uext4::fuse

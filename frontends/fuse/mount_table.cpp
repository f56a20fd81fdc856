#include "fuse/mount_table.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <vector>

namespace uext4::fuse {

namespace {

// Blanks and backslashes stand as three octal digits.
std::string unescaped(const std::string& text) {
    std::string out;
    const auto digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
            out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

}  // namespace

std::optional<MountEntry> find_mount(const std::string& directory) {
    std::ifstream table("/proc/self/mountinfo");
    std::optional<MountEntry> found;
    for (std::string line; std::getline(table, line);) {
        std::istringstream fields(line);
        std::string id, parent, device, root, point, options, word;
        if (!(fields >> id >> parent >> device >> root >> point >> options)) continue;
        if (unescaped(point) != directory) continue;
        while (fields >> word && word != "-") {
        }
        MountEntry entry;
        entry.device = device;
        if (!(fields >> entry.type >> entry.source)) continue;
        entry.source = unescaped(entry.source);
        found = std::move(entry);  // a later mount lies on top
    }
    return found;
}

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

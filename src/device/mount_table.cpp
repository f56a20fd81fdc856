#include "device/mount_table.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <ranges>
#include <sstream>

namespace uext4 {

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

std::vector<MountEntry> mount_table() {
    std::vector<MountEntry> mounts;
    std::ifstream table("/proc/self/mountinfo");
    for (std::string line; std::getline(table, line);) {
        // id parent major:minor root where options [tags...] - type source options
        std::istringstream words(line);
        std::string id, parent, number, root, where, word, type, source, options;
        if (!(words >> id >> parent >> number >> root >> where)) continue;
        unsigned major_number = 0, minor_number = 0;
        if (std::sscanf(number.c_str(), "%u:%u", &major_number, &minor_number) != 2) continue;
        while (words >> word && word != "-") {
        }
        if (!(words >> type >> source)) continue;
        words >> options;
        mounts.push_back({makedev(major_number, minor_number), unescaped(where), type, unescaped(source),
                          options != "ro" && !options.starts_with("ro,")});
    }
    return mounts;
}

std::optional<MountEntry> find_mount(const std::string& directory) {
    const std::vector<MountEntry> mounts = mount_table();
    const auto topmost = std::ranges::find(mounts | std::views::reverse, directory, &MountEntry::mount_point);
    if (topmost == mounts.rend()) return {};
    return *topmost;
}

}  // namespace uext4

// Paths for the problems that name an inode: users know files by their paths.
#include "check/checker.h"

#include <charconv>
#include <string_view>

namespace uext4 {

namespace {

// The number in "inode 12", "inode 12: ..." or "directory 12"; 0 for another structure.
std::uint64_t inode_named_by(std::string_view where) {
    std::uint64_t number = 0;
    for (const std::string_view word : {std::string_view("inode "), std::string_view("directory ")})
        if (where.starts_with(word)) std::from_chars(where.data() + word.size(), where.data() + where.size(), number);
    return number;
}

}  // namespace

// A second walk over the directories, only where a problem names an inode. It ends when all paths are known.
void Checker::name_paths() {
    std::unordered_map<std::uint64_t, std::string> paths;
    std::set<std::uint64_t> wanted;
    for (const CheckProblem& problem : report_.problems) wanted.insert(inode_named_by(problem.structure));
    wanted.erase(0);
    if (wanted.erase(format::special_inode::root)) paths[format::special_inode::root] = "/";
    std::set<std::uint64_t> seen{format::special_inode::root};
    std::vector<std::pair<InodeNr, std::string>> todo{{InodeNr(format::special_inode::root), ""}};
    while (!todo.empty() && !wanted.empty()) {
        const auto [number, path] = std::move(todo.back());
        todo.pop_back();
        const Result<InodeRef> directory = volume_.inodes().get(number, true);
        if (!directory || !(*directory)->is_directory()) continue;
        std::vector<std::pair<std::string, InodeNr>> entries;
        (void)volume_.names().read(**directory, 0, [&](const DirectoryEntry& e) {  // its damage is reported already
            if (e.name != "." && e.name != "..") entries.emplace_back(std::string(e.name), e.inode);
            return true;
        });
        for (const auto& [name, child] : entries) {
            std::string full = path + "/" + name;
            if (wanted.erase(child.value)) paths[child.value] = full;
            if (!seen.insert(child.value).second) continue;
            const Result<InodeRef> inode = volume_.inodes().get(child, true);
            if (inode && (*inode)->is_directory()) todo.emplace_back(child, std::move(full));
        }
    }
    for (CheckProblem& problem : report_.problems)
        if (const auto found = paths.find(inode_named_by(problem.structure)); found != paths.end())
            problem.path = found->second;
}

}  // namespace uext4

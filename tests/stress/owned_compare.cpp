// Whether a worker's own names are as its model says.
#include "tests/stress/owned.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

namespace uext4::stress {

namespace {

std::string hex(std::string_view bytes) {
    std::string text;
    for (unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
    return text;
}

}  // namespace

bool Owned::compare_status(const struct stat& status, const Node& node) {
    if (status.st_mode != node.mode) return says(fmt::format("mode {:o}, not {:o}", status.st_mode, node.mode));
    const unsigned links = is_directory(node) ? node.links + 1 : node.links;
    if (status.st_nlink != links) return says(fmt::format("{} links, not {}", status.st_nlink, links));
    if (!is_directory(node) && static_cast<std::size_t>(status.st_size) != node.bytes.size())
        return says(fmt::format("size {}, not {}", status.st_size, node.bytes.size()));
    if (status.st_rdev != node.device) return says(fmt::format("device {:x}, not {:x}", status.st_rdev, node.device));
    return true;
}

bool Owned::compare_bytes(File file, const Node& node) {
    std::string found(node.bytes.size() + 100, '\0');
    const ssize_t got = calls_.pread(file, found.data(), found.size(), 0);
    if (got < 0) return says(fmt::format("cannot be read: {}", std::strerror(static_cast<int>(-got))));
    found.resize(static_cast<std::size_t>(got));
    if (found == node.bytes) return true;
    const auto at = std::ranges::mismatch(found, node.bytes).in1 - found.begin();
    return says(fmt::format("{} bytes of {}, the first that differs at {}", found.size(), node.bytes.size(), at));
}

bool Owned::compare(const std::string& path, const Node& node) {
    struct stat status;
    if (!expect(calls_.stat(path, status), 0) || !compare_status(status, node)) return false;
    for (const auto& [key, value] : node.xattrs) {
        std::string found;
        if (!expect(calls_.get_xattr(path, key, found), 0)) return false;
        if (found != value) return says(fmt::format("another value of {}", key));
    }
    if (S_ISLNK(node.mode)) {
        std::string target;
        if (!expect(calls_.readlink(path, target), 0)) return false;
        return target == node.bytes || says("leads to " + target);
    }
    if (!S_ISREG(node.mode)) return true;
    File file = 0;
    if (!expect(calls_.open(path, O_RDONLY, 0, file), 0)) return false;
    const bool right = compare_bytes(file, node);
    calls_.close(file);
    return right;
}

bool Owned::list() {
    if (below(2) == 0) {
        const auto& [path, node] = tops_[below(static_cast<unsigned>(tops_.size()))];
        return list_shared(path, *node);
    }
    const Spot spot = pick();
    const std::string path = spot.path.substr(0, spot.path.rfind('/'));
    return list_shared(path, *spot.parent);
}

// Names that nobody changed meanwhile are there once, the worker's own exactly; nothing is there that nobody made. That
// holds for a directory read on from a position as well.
bool Owned::list_shared(const std::string& path, const Node& node) {
    trace = "list " + path;
    const bool is_shared = std::ranges::any_of(tops_, [&](const auto& top) { return top.first == path; });
    const Listing found = calls_.list(path, random_());
    if (!expect(found.result, 0)) return false;
    const std::string mine = fmt::format("w{:02}-", worker_);
    const auto stays = [&](const std::string& name) { return !is_shared || name[0] == 's' || name.starts_with(mine); };
    std::vector<std::string> once, behind, again;
    for (std::size_t i = 0; i < found.entries.size(); ++i) {
        const Entry& entry = found.entries[i];
        if (!stays(entry.name)) {
            if (entry.name[0] != 'w' || entry.name.size() < shared_.name_length) return says("there is " + entry.name);
            continue;
        }
        once.push_back(entry.name);
        if (i > found.from) behind.push_back(entry.name);
        const auto child = node.children.find(entry.name);
        if (child != node.children.end() && IFTODT(child->second->mode) != entry.type)
            return says(fmt::format("type {} of {}", entry.type, entry.name));
    }
    for (const Entry& entry : found.again)
        if (stays(entry.name)) again.push_back(entry.name);
    if (behind != again)
        return says(fmt::format("{} names that stay behind position {} of {}, {} when read again", behind.size(),
                                found.from, found.entries.size(), again.size()));
    std::set<std::string> wanted;
    for (const auto& [name, child] : node.children) wanted.insert(name);
    for (unsigned i = 0; is_shared && i < shared_.stable; ++i) wanted.insert(shared_.stable_name(i));
    std::ranges::sort(once);
    if (const auto twice = std::ranges::adjacent_find(once); twice != once.end())
        return says(*twice + " is there twice");
    for (const std::string& name : once)
        if (!wanted.contains(name)) return says(name + " is there");
    for (const std::string& name : wanted)
        if (!std::ranges::binary_search(once, name)) return says(name + " is not there");
    return true;
}

bool Owned::compare_below(const std::string& path, const Node& node) {
    if (!list_shared(path, node)) return false;
    for (const auto& [name, child] : node.children) {
        trace = "compare " + path + "/" + name;
        if (!compare(path + "/" + name, *child)) return false;
        if (is_directory(*child) && !compare_below(path + "/" + name, *child)) return false;
    }
    return true;
}

bool Owned::compare_all() {
    return std::ranges::all_of(tops_, [&](const auto& top) { return compare_below(top.first, *top.second); });
}

bool Owned::clear_below(const std::string& path, Node& node) {
    for (auto& [name, child] : node.children) {
        const std::string inner = path + "/" + name;
        if (is_directory(*child) && !clear_below(inner, *child)) return false;
        trace = "remove " + inner;
        if (!expect(is_directory(*child) ? calls_.rmdir(inner) : calls_.unlink(inner), 0)) return false;
    }
    node.children.clear();
    return true;
}

bool Owned::clear() {
    return std::ranges::all_of(tops_, [&](const auto& top) { return clear_below(top.first, *top.second); });
}

void Owned::write_down(const std::string& folder) const {
    std::ofstream lines(fmt::format("{}/w{:02}", folder, worker_));
    std::map<const Node*, std::string> contents;
    const auto write = [&](auto& self, const std::string& path, const Node& node) -> void {
        for (const auto& [name, child] : node.children) {
            std::string& file = contents[child.get()];
            if (file.empty()) {
                file = fmt::format("{}/w{:02}.{}", folder, worker_, contents.size());
                std::ofstream(file, std::ios::binary) << child->bytes;
            }
            const unsigned links = is_directory(*child) ? child->links + 1 : child->links;
            lines << fmt::format("{}/{}\t{:o}\t{}\t{}\t{}", path, name, child->mode, links, child->device, file);
            for (const auto& [key, value] : child->xattrs) lines << '\t' << key << '=' << hex(value);
            lines << '\n';
            if (is_directory(*child)) self(self, path + "/" + name, *child);
        }
    };
    for (const auto& [path, node] : tops_) write(write, path, *node);
}

}  // namespace uext4::stress

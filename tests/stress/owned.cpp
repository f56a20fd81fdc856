#include "tests/stress/owned.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <linux/fs.h>
#include <algorithm>
#include <cerrno>
#include <cstring>

namespace uext4::stress {

namespace {

constexpr unsigned spots = 8;    // names of a worker in each directory
constexpr unsigned deepest = 4;  // directories of its own below each other
constexpr std::size_t largest = 40000;

bool is_file(const Node& node) { return S_ISREG(node.mode); }

std::shared_ptr<Node> new_node(mode_t mode) {
    auto node = std::make_shared<Node>();
    node->mode = mode;
    return node;
}

bool contains(const Node& directory, const Node* wanted) {
    if (&directory == wanted) return true;
    return std::ranges::any_of(directory.children, [&](const auto& child) {
        return is_directory(*child.second) && contains(*child.second, wanted);
    });
}

}  // namespace

std::string Shared::padded(std::string name) const {
    if (name.size() < name_length) name.append(name_length - name.size(), '-');
    return name;
}

std::string Shared::stable_name(unsigned number) const { return padded(fmt::format("s{:04}", number)); }

std::shared_ptr<Node> Owned::Spot::node() const {
    const auto found = parent->children.find(name);
    return found == parent->children.end() ? nullptr : found->second;
}

Owned::Owned(Calls& calls, const Shared& shared, unsigned worker, std::uint64_t seed)
    : calls_(calls), shared_(shared), worker_(worker), random_(seed * 1009 + worker) {
    for (const std::string& path : shared.directories) tops_.emplace_back(path, new_node(S_IFDIR));
}

Owned::~Owned() {
    for (const Held& held : held_) calls_.close(held.file);
}

bool Owned::says(const std::string& what) {
    problem = fmt::format("worker {}: {}: {}", worker_, trace, what);
    return false;
}

bool Owned::expect(int got, int wanted) {
    if (got == wanted) return true;
    return says(fmt::format("{}, where {} is right", got < 0 ? std::strerror(-got) : "done",
                            wanted < 0 ? std::strerror(-wanted) : "success"));
}

// Goes down from a shared directory into those of the worker's own, then takes any name.
Owned::Spot Owned::pick() {
    auto [path, node] = tops_[below(static_cast<unsigned>(tops_.size()))];
    bool is_shared = true;
    for (unsigned depth = 0; depth < deepest && below(2) == 0; ++depth) {
        std::vector<std::pair<std::string, std::shared_ptr<Node>>> down;
        for (const auto& [name, child] : node->children)
            if (is_directory(*child)) down.emplace_back(name, child);
        if (down.empty()) break;
        const auto& [name, child] = down[below(static_cast<unsigned>(down.size()))];
        path += "/" + name;
        node = child;
        is_shared = false;
    }
    const unsigned number = below(spots);
    // Below directories of its own, names of another length: short ones fit into an inode.
    const std::string name =
        is_shared ? shared_.padded(fmt::format("w{:02}-{}", worker_, number)) : fmt::format("n{}", number);
    return {node, name, path + "/" + name};
}

Owned::Spot Owned::pick_taken() {
    Spot spot = pick();
    for (unsigned i = 0; i < 6 && spot.node() == nullptr; ++i) spot = pick();
    return spot;
}

bool Owned::put(const Spot& spot, std::shared_ptr<Node> node) {
    spot.parent->children[spot.name] = std::move(node);
    return true;
}

void Owned::take(const Spot& spot) { spot.parent->children.erase(spot.name); }

bool Owned::step() {
    const unsigned choice = below(100);
    if (choice < 14) return create();
    if (choice < 26) return make_other();
    if (choice < 29) return make_unnamed();
    if (choice < 36) return link();
    if (choice < 46) return remove();
    if (choice < 50) return remove_directory();
    if (choice < 67) return rename();
    if (choice < 77) return write();
    if (choice < 81) return truncate();
    if (choice < 83) return chmod();
    if (choice < 89) return xattr();
    if (choice < 94) return look();
    if (choice < 97) return list();
    return hold();
}

bool Owned::create() {
    const Spot spot = pick();
    const auto there = spot.node();
    const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | (below(3) == 0 ? O_TRUNC : below(2) == 0 ? O_EXCL : 0);
    const mode_t mode = below(2) == 0 ? 0644 : 0700;
    trace = fmt::format("open {} flags {:o}", spot.path, flags);
    // A fifo would be waited for, a device is none.
    if (there != nullptr && (flags & O_EXCL) == 0 && !is_file(*there) && !is_directory(*there) && !S_ISLNK(there->mode))
        return true;
    File file = 0;
    const int got = calls_.open(spot.path, flags, mode, file);
    const int wanted = there == nullptr        ? 0
                       : (flags & O_EXCL) != 0 ? -EEXIST
                       : is_directory(*there)  ? -EISDIR
                       : S_ISLNK(there->mode)  ? -ELOOP
                                               : 0;
    if (!expect(got, wanted)) return false;
    if (got < 0) return true;
    auto node = there;
    if (node == nullptr) {
        node = new_node(S_IFREG | mode);
        put(spot, node);
    } else if ((flags & O_TRUNC) != 0) {
        node->bytes.clear();
    }
    const bool right = below(2) == 0 || change_bytes(file, *node);
    calls_.close(file);
    return right;
}

bool Owned::make_other() {
    const Spot spot = pick();
    const unsigned choice = below(10);
    std::shared_ptr<Node> node;
    int got = 0;
    if (choice < 5) {
        node = new_node(S_IFDIR | 0755);
        trace = "mkdir " + spot.path;
        got = calls_.mkdir(spot.path, 0755);
    } else if (choice < 8) {
        node = new_node(S_IFLNK | 0777);
        // In the inode, or in a block.
        node->bytes = fmt::format("nowhere{}", worker_) + std::string(below(2) == 0 ? below(40) : 60 + below(900), 't');
        trace = "symlink " + spot.path;
        got = calls_.symlink(node->bytes, spot.path);
    } else {
        const mode_t type = choice == 8 ? S_IFIFO : below(2) == 0 ? S_IFSOCK : S_IFCHR;
        node = new_node(type | 0600);
        if (type == S_IFCHR) node->device = makedev(below(4000), below(1u << 20));
        trace = "mknod " + spot.path;
        got = calls_.mknod(spot.path, type | 0600, node->device);
    }
    if (!expect(got, spot.node() == nullptr ? 0 : -EEXIST)) return false;
    if (got == 0) {
        if (is_directory(*node)) ++spot.parent->links;
        put(spot, node);
    }
    return true;
}

bool Owned::make_unnamed() {
    const Spot spot = pick();
    const std::string directory = spot.path.substr(0, spot.path.rfind('/'));
    trace = "O_TMPFILE in " + directory + ", then " + spot.path;
    File file = 0;
    const int got = calls_.unnamed(directory, 0600, file);
    if (calls_.is_mount() && got == -EOPNOTSUPP) return true;  // docs/MOUNT.md
    if (!expect(got, 0)) return false;
    auto node = new_node(S_IFREG | 0600);
    node->links = 0;
    bool right = change_bytes(file, *node);
    if (right && below(4) != 0) {
        const bool taken = spot.node() != nullptr;
        right = expect(calls_.name(file, spot.path), taken ? -EEXIST : 0);
        if (right && !taken) {
            node->links = 1;
            put(spot, node);
        }
    }
    struct stat status;
    right =
        right && expect(calls_.stat(file, status), 0) && compare_status(status, *node) && compare_bytes(file, *node);
    calls_.close(file);
    return right;
}

bool Owned::link() {
    const Spot from = pick_taken(), to = pick();
    const auto node = from.node();
    trace = fmt::format("link {} {}", from.path, to.path);
    const int wanted = node == nullptr ? -ENOENT : to.node() != nullptr ? -EEXIST : is_directory(*node) ? -EPERM : 0;
    const int got = calls_.link(from.path, to.path);
    if (!expect(got, wanted)) return false;
    if (got == 0) {
        ++node->links;
        put(to, node);
    }
    return true;
}

bool Owned::remove() {
    const Spot spot = pick_taken();
    const auto node = spot.node();
    trace = "unlink " + spot.path;
    const int got = calls_.unlink(spot.path);
    if (!expect(got, node == nullptr ? -ENOENT : is_directory(*node) ? -EISDIR : 0)) return false;
    if (got == 0) {
        --node->links;
        take(spot);
    }
    return true;
}

bool Owned::remove_directory() {
    const Spot spot = pick_taken();
    const auto node = spot.node();
    trace = "rmdir " + spot.path;
    const int got = calls_.rmdir(spot.path);
    const int wanted = node == nullptr           ? -ENOENT
                       : !is_directory(*node)    ? -ENOTDIR
                       : !node->children.empty() ? -ENOTEMPTY
                                                 : 0;
    if (!expect(got, wanted)) return false;
    if (got == 0) {
        --spot.parent->links;
        node->links = 0;
        take(spot);
    }
    return true;
}

int Owned::rename_answer(const Spot& from, const Spot& to, unsigned flags, bool& unclear) const {
    const auto source = from.node(), target = to.node();
    if (source == nullptr) return -ENOENT;
    int reason = 0;
    const auto because = [&](int number) {
        unclear = unclear || (reason != 0 && reason != number);
        reason = number;
    };
    if (flags == RENAME_NOREPLACE && target != nullptr) because(-EEXIST);
    if (flags == RENAME_EXCHANGE && target == nullptr) because(-ENOENT);
    if (is_directory(*source) && contains(*source, to.parent.get())) because(-EINVAL);
    if (target != nullptr && is_directory(*target) && contains(*target, from.parent.get()))
        because(flags == RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY);
    if (reason != 0 || flags == RENAME_EXCHANGE || target == nullptr || source == target) return reason;
    if (is_directory(*source) != is_directory(*target)) return is_directory(*source) ? -ENOTDIR : -EISDIR;
    return is_directory(*target) && !target->children.empty() ? -ENOTEMPTY : 0;
}

bool Owned::rename() {
    const Spot from = pick_taken(), to = below(2) == 0 ? pick() : pick_taken();
    const unsigned choice = below(6), flags = choice < 3 ? 0u : choice == 3 ? RENAME_NOREPLACE : RENAME_EXCHANGE;
    trace = fmt::format("rename {} {} flags {}", from.path, to.path, flags);
    bool unclear = false;
    const int wanted = rename_answer(from, to, flags, unclear);
    const int got = calls_.rename(from.path, to.path, flags);
    if (unclear ? got == 0 : got != wanted) return expect(got, wanted);
    const auto source = from.node(), target = to.node();
    if (got != 0 || source == target) return true;
    take(from);
    if (is_directory(*source)) --from.parent->links, ++to.parent->links;
    if (target != nullptr && is_directory(*target)) --to.parent->links;
    if (flags == RENAME_EXCHANGE) {
        put(from, target);
        if (is_directory(*target)) ++from.parent->links;
    } else if (target != nullptr) {
        target->links = is_directory(*target) ? 0 : target->links - 1;
    }
    return put(to, source);
}

bool Owned::change_bytes(File file, Node& node) {
    for (unsigned i = 1 + below(2); i > 0; --i) {
        const std::size_t at = below(3) == 0 ? node.bytes.size() : below(4) == 0 ? below(30000) : below(300);
        std::string bytes(1 + (below(3) == 0 ? below(9000) : below(200)), '\0');
        for (char& byte : bytes) byte = static_cast<char>(random_());
        if (at + bytes.size() > largest) continue;
        const ssize_t got = calls_.pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(at));
        if (got != static_cast<ssize_t>(bytes.size())) return says(fmt::format("pwrite: {}", got));
        if (node.bytes.size() < at + bytes.size()) node.bytes.resize(at + bytes.size());
        node.bytes.replace(at, bytes.size(), bytes);
    }
    return below(16) != 0 || expect(calls_.fsync(file), 0);
}

bool Owned::write() {
    const Spot spot = pick_taken();
    const auto node = spot.node();
    if (node == nullptr || !is_file(*node)) return true;
    trace = "open and write " + spot.path;
    File file = 0;
    if (!expect(calls_.open(spot.path, O_RDWR, 0, file), 0)) return false;
    const bool right = change_bytes(file, *node) && (below(3) != 0 || compare_bytes(file, *node));
    calls_.close(file);
    return right;
}

bool Owned::truncate() {
    const Spot spot = pick_taken();
    const auto node = spot.node();
    if (node == nullptr || !is_file(*node)) return true;
    const std::size_t size = below(2) == 0 ? below(200) : below(largest);
    trace = fmt::format("open and truncate {} to {}", spot.path, size);
    File file = 0;
    if (!expect(calls_.open(spot.path, O_RDWR, 0, file), 0)) return false;
    bool right = expect(calls_.truncate(file, static_cast<off_t>(size)), 0);
    node->bytes.resize(size);
    right = right && (below(3) != 0 || compare_bytes(file, *node));
    calls_.close(file);
    return right;
}

bool Owned::chmod() {
    const Spot spot = pick_taken();
    const auto node = spot.node();
    if (node != nullptr && S_ISLNK(node->mode)) return true;  // leads elsewhere
    const mode_t mode = below(2) == 0 ? 0711 : 0640;
    trace = fmt::format("chmod {} {:o}", spot.path, mode);
    if (!expect(calls_.chmod(spot.path, mode), node == nullptr ? -ENOENT : 0)) return false;
    if (node != nullptr) node->mode = (node->mode & S_IFMT) | mode;
    return true;
}

bool Owned::xattr() {
    const Spot spot = pick_taken();
    const auto node = spot.node();
    // Few keys and values, so that blocks of attributes are equal, too.
    const std::string key = fmt::format("trusted.k{}", below(3));
    const bool there = node != nullptr && node->xattrs.contains(key);
    trace = fmt::format("attribute {} of {}", key, spot.path);
    if (below(4) == 0) {
        if (!expect(calls_.remove_xattr(spot.path, key), node == nullptr ? -ENOENT : there ? 0 : -ENODATA))
            return false;
        if (node != nullptr) node->xattrs.erase(key);
        return true;
    }
    const int flags = below(3) == 0 ? XATTR_CREATE : below(3) == 0 ? XATTR_REPLACE : 0;
    const std::string value(below(4) == 0 ? 220 : below(2) * 20, static_cast<char>('a' + below(2)));
    const int wanted = node == nullptr                    ? -ENOENT
                       : flags == XATTR_CREATE && there   ? -EEXIST
                       : flags == XATTR_REPLACE && !there ? -ENODATA
                                                          : 0;
    const int got = calls_.set_xattr(spot.path, key, value, flags);
    if (!expect(got, wanted)) return false;
    if (got == 0) node->xattrs[key] = value;
    return true;
}

bool Owned::look() {
    const Spot spot = pick();
    trace = "look at " + spot.path;
    const auto node = spot.node();
    if (node != nullptr) return compare(spot.path, *node);
    struct stat status;
    return expect(calls_.stat(spot.path, status), -ENOENT);
}

bool Owned::hold() {
    if (held_.size() == 3 || (!held_.empty() && below(2) == 0)) {
        const std::size_t which = below(static_cast<unsigned>(held_.size()));
        Held& held = held_[which];
        trace = fmt::format("use a file held open with {} links", held.node->links);
        struct stat status;
        if (!expect(calls_.stat(held.file, status), 0) || !compare_status(status, *held.node) ||
            !compare_bytes(held.file, *held.node) || !change_bytes(held.file, *held.node))
            return false;
        if (below(2) == 0) {
            calls_.close(held.file);
            held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(which));
        }
        return true;
    }
    const Spot spot = pick_taken();
    const auto node = spot.node();
    if (node == nullptr || !is_file(*node)) return true;
    trace = "hold open " + spot.path;
    File file = 0;
    if (!expect(calls_.open(spot.path, O_RDWR, 0, file), 0)) return false;
    held_.push_back({file, node});
    return true;
}

}  // namespace uext4::stress

#include "tests/stress/contest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sysmacros.h>
#include <time.h>

#include <linux/fs.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>

namespace uext4::stress {

namespace {

std::uint64_t now() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

dev_t device_of(std::uint32_t object) { return makedev(object >> 12, object & 0xfff); }
std::uint32_t object_of(dev_t device) { return major(device) << 12 | minor(device); }
std::string target_of(std::uint32_t object) { return fmt::format("to{}", object); }

Kind kind_of(mode_t mode) {
    return S_ISDIR(mode) ? Kind::directory : S_ISLNK(mode) ? Kind::link : S_ISREG(mode) ? Kind::file : Kind::device;
}

}  // namespace

std::string directory_of(const std::string& base, unsigned cluster, int root) {
    return fmt::format("{}/k{}{}", base, cluster, root == 0 ? 'a' : 'b');
}

std::string path_of(const std::string& base, unsigned cluster, Place place) {
    const std::string path = fmt::format("{}/c{}", directory_of(base, cluster, place.root), place.name);
    return place.below < 0 ? path : fmt::format("{}/x{}", path, place.below);
}

Contest::Contest(Calls& calls, std::string base, unsigned worker, std::uint64_t seed)
    : calls_(calls), base_(std::move(base)), worker_(worker), random_(seed * 2003 + worker) {}

Place Contest::place() {
    Place place;
    place.root = static_cast<std::int8_t>(random_() % roots);
    place.name = static_cast<std::int8_t>(random_() % names);
    if (random_() % 3 == 0) place.below = static_cast<std::int8_t>(random_() % names_below);
    return place;
}

// A file of the worker's own, told by its size.
bool Contest::prepare() {
    if (!prepared_.empty()) return true;
    prepared_object_ = (worker_ + 1) << 12 | ++next_;
    prepared_ = fmt::format("{}/t/w{}-{}", base_, worker_, next_);
    File file = 0;
    int result = calls_.open(prepared_, O_CREAT | O_EXCL | O_RDWR, 0644, file);
    if (result == 0) {
        result = calls_.truncate(file, prepared_object_);
        calls_.close(file);
    }
    if (result < 0) problem = fmt::format("{} cannot be made: {}", prepared_, std::strerror(-result));
    return result == 0;
}

void Contest::look(const std::string& path, Operation& operation) {
    if (operation.act == Act::read_link) {
        std::string target;
        operation.result = calls_.readlink(path, target);
        if (operation.result == 0)
            operation.found = static_cast<std::uint32_t>(std::strtoul(target.c_str() + 2, nullptr, 10));
        return;
    }
    struct stat status;
    operation.result = calls_.stat(path, status);
    if (operation.result < 0) return;
    operation.kind = kind_of(status.st_mode);
    if (operation.kind == Kind::device) operation.found = object_of(status.st_rdev);
    if (operation.kind == Kind::file) operation.found = static_cast<std::uint32_t>(status.st_size);
}

void Contest::call(const std::string& path, const std::string& to, Operation& operation) {
    switch (operation.act) {
        case Act::make_directory: operation.result = calls_.mkdir(path, 0755); break;
        case Act::make_link: operation.result = calls_.symlink(target_of(operation.object), path); break;
        case Act::make_device:
            operation.result = calls_.mknod(path, S_IFCHR | 0600, device_of(operation.object));
            break;
        case Act::place: operation.result = calls_.rename(prepared_, path, operation.flags); break;
        case Act::link: operation.result = calls_.link(path, to); break;
        case Act::unlink: operation.result = calls_.unlink(path); break;
        case Act::rmdir: operation.result = calls_.rmdir(path); break;
        case Act::rename: operation.result = calls_.rename(path, to, operation.flags); break;
        case Act::look:
        case Act::read_link: look(path, operation); break;
    }
}

bool Contest::step(unsigned& cluster, Operation& operation) {
    static constexpr Act acts[] = {Act::make_directory, Act::make_directory, Act::make_link, Act::make_device,
                                   Act::place,          Act::place,          Act::link,      Act::unlink,
                                   Act::unlink,         Act::rmdir,          Act::rename,    Act::rename,
                                   Act::rename,         Act::rename,         Act::look,      Act::read_link};
    cluster = static_cast<unsigned>(random_() % clusters);
    operation = {};
    operation.act = acts[random_() % std::size(acts)];
    operation.at = place();
    do operation.to = place();
    while (operation.to == operation.at);
    const unsigned choice = static_cast<unsigned>(random_() % 4);
    if (operation.act == Act::rename)
        operation.flags = choice < 2 ? 0u : choice == 2 ? RENAME_NOREPLACE : RENAME_EXCHANGE;
    if (operation.act == Act::place) {
        operation.flags = choice == 0 ? RENAME_NOREPLACE : 0u;
        if (!prepare()) return false;
        operation.object = prepared_object_;
    } else if (operation.act == Act::make_link || operation.act == Act::make_device) {
        operation.object = (worker_ + 1) << 12 | ++next_;
    }
    const std::string path = path_of(base_, cluster, operation.at), to = path_of(base_, cluster, operation.to);
    operation.began = now();
    call(path, to, operation);
    operation.returned = now();
    if (operation.act == Act::place && operation.result == 0) prepared_.clear();
    return true;
}

bool Contest::finish() {
    if (prepared_.empty()) return true;
    const int result = calls_.unlink(prepared_);
    if (result < 0) problem = fmt::format("{} cannot be removed: {}", prepared_, std::strerror(-result));
    return result == 0;
}

namespace {

void look_below(Calls& calls, const std::string& path, Seen& seen, Tree& tree) {
    const Listing found = calls.list(path, 0);
    if (found.result < 0) seen.problem = fmt::format("{} cannot be listed", path);
    for (const Entry& entry : found.entries) {
        const std::string inner = path + "/" + entry.name;
        struct stat status;
        if (calls.stat(inner, status) < 0) {
            seen.problem = inner + " is listed, but not there";
            continue;
        }
        Tree child;
        child.kind = kind_of(status.st_mode);
        if (child.kind == Kind::device) child.object = object_of(status.st_rdev);
        if (child.kind == Kind::file) child.object = static_cast<std::uint32_t>(status.st_size);
        if (child.kind == Kind::link) {
            std::string target;
            calls.readlink(inner, target);
            child.object = static_cast<std::uint32_t>(std::strtoul(target.c_str() + 2, nullptr, 10));
        }
        if (child.kind == Kind::directory) look_below(calls, inner, seen, child);
        const int number = std::atoi(entry.name.c_str() + 1);
        if (!tree.entries.emplace(number, std::move(child)).second) seen.problem = inner + " is there twice";
    }
}

using Visit = std::function<void(const std::string& path, const Tree& tree)>;

void visit_below(const Tree& tree, const std::string& path, char letter, const Visit& visit) {
    for (const auto& [number, child] : tree.entries) {
        const std::string inner = fmt::format("{}/{}{}", path, letter, number);
        visit(inner, child);
        visit_below(child, inner, 'x', visit);
    }
}

}  // namespace

Seen look_at_all(Calls& calls, const std::string& base, unsigned cluster) {
    Seen seen;
    for (int root = 0; root < roots; ++root)
        look_below(calls, directory_of(base, cluster, root), seen, seen.tree.entries[root]);
    return seen;
}

void write_down(const Tree& tree, const std::string& base, unsigned cluster, const std::string& folder) {
    std::ofstream lines(fmt::format("{}/k{}", folder, cluster));
    const auto each = [&](const Visit& visit) {
        for (const auto& [root, top] : tree.entries) visit_below(top, directory_of(base, cluster, root), 'c', visit);
    };
    std::map<std::uint32_t, unsigned> links;
    each([&](const std::string&, const Tree& one) { ++links[one.object]; });
    each([&](const std::string& path, const Tree& one) {
        static constexpr mode_t modes[] = {0, S_IFDIR | 0755, S_IFREG | 0644, S_IFLNK | 0777, S_IFCHR | 0600};
        unsigned count = 2;
        if (one.kind == Kind::directory)
            for (const auto& [number, child] : one.entries) count += child.kind == Kind::directory ? 1 : 0;
        else count = links[one.object];
        const std::string bytes = one.kind == Kind::link   ? target_of(one.object)
                                  : one.kind == Kind::file ? std::string(one.object, '\0')
                                                           : "";
        const std::string file = fmt::format("{}/k{}.{}", folder, cluster, one.object);
        std::ofstream(file, std::ios::binary) << bytes;
        lines << fmt::format("{}\t{:o}\t{}\t{}\t{}\n", path, modes[static_cast<int>(one.kind)], count,
                             one.kind == Kind::device ? device_of(one.object) : 0, file);
    });
}

}  // namespace uext4::stress

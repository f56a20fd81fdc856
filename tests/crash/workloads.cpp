// Workloads. The bounded ones follow CrashMonkey's ACE: a small tree, every operation that file systems were found
// wrong about, every sequence of a given length, and after each sequence every way to make something of it durable.
#include "tests/crash/operation.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <random>

namespace uext4::crash {

namespace {

using Kind = Operation::Kind;
namespace flag = format::inode_flag;

// /a and A/c have contents on disk, B/ is there, A/s is too small to need a block.
std::vector<Operation> small_tree() {
    return {{Kind::Mkdir, "/A"},
            {Kind::Mkdir, "/B"},
            {Kind::Write, "/a", {}, 0, 9000},
            {Kind::Write, "/A/c", {}, 0, 12288},
            {Kind::Write, "/A/s", {}, 0, 40},
            {Kind::Setxattr, "/a", "user.kept", 0, 20},
            {Kind::Sync}};
}

std::vector<Operation> vocabulary(bool large_values) {
    std::vector<Operation> words = {
        {Kind::Create, "/new"},
        {Kind::Write, "/A/new", {}, 0, 5000},
        {Kind::Write, "/a", {}, 9000, 6000},   // append
        {Kind::Write, "/a", {}, 1000, 4000},   // overwrite
        {Kind::Write, "/a", {}, 30000, 3000},  // past the end: a hole
        {Kind::Write, "/A/s", {}, 40, 50},     // small stays small
        {Kind::Write, "/A/s", {}, 40, 5000},   // small grows out of the inode
        {Kind::WriteSync, "/a", {}, 8000, 3000},
        {Kind::WriteSync, "/A/s", {}, 40, 30, Operation::data_alone},
        {Kind::WriteSync, "/A/c", {}, 4096, 4096, Operation::direct},
        {Kind::WriteSync, "/A/c", {}, 8192, 8192, Operation::direct | Operation::data_alone},  // in place and behind
        {Kind::Direct, "/A/c", {}, 4096, 4096},                                                // in place
        {Kind::Direct, "/A/c", {}, 12288, 8192},                                               // direct append
        {Kind::MapStore, "/a", {}, 3000, 5500},
        {Kind::MapStore, "/A/s", {}, 10, 20},  // stays in the inode
        {Kind::Truncate, "/a", {}, 0, 4500},
        {Kind::Truncate, "/a", {}, 0, 20000},
        {Kind::Truncate, "/A/c", {}, 0, 0},
        {Kind::Write, "/A/c", {}, 0, 6000},  // after that one: a replacement in place, in two steps
        {Kind::Reopen, "/A/c", {}, 0, 7000},
        {Kind::Fallocate, "/a", {}, 8192, 16384, 0},
        {Kind::Fallocate, "/a", {}, 8192, 16384, 1},    // KEEP_SIZE
        {Kind::Fallocate, "/a", {}, 2000, 5000, 3},     // PUNCH_HOLE
        {Kind::Fallocate, "/a", {}, 1000, 12000, 16},   // ZERO_RANGE
        {Kind::Fallocate, "/A/c", {}, 4096, 4096, 8},   // COLLAPSE_RANGE
        {Kind::Fallocate, "/A/c", {}, 4096, 4096, 32},  // INSERT_RANGE
        {Kind::Link, "/B/l", "/a"},
        {Kind::Unlink, "/a"},
        {Kind::Unlink, "/A/c"},
        {Kind::Rename, "/a", "/b"},
        {Kind::Rename, "/a", "/A/c"},  // replaces
        {Kind::Rename, "/A/new", "/A/c"},
        {Kind::Rename, "/A", "/B/A"},
        {Kind::Exchange, "/a", "/A/c"},
        {Kind::Mkdir, "/A/d"},
        {Kind::Rmdir, "/B"},
        {Kind::Symlink, "/sl", "a/short/target"},
        {Kind::Symlink, "/A/sl", std::string(300, 't')},
        {Kind::Setxattr, "/a", "user.small", 0, 30},
        {Kind::Setxattr, "/A/s", "user.large", 0, 900},  // leaves no room for the contents in the inode
        {Kind::Removexattr, "/a", "user.kept"},
        {Kind::Chmod, "/a", {}, 0, 0, 0600},
        {.kind = Kind::Chown, .path = "/a", .uid = 70001, .gid = 70002},  // more than 16 bits
        {.kind = Kind::Chown, .path = "/", .uid = 5, .gid = 80000},
        {.kind = Kind::Mknod, .path = "/A/n", .mode = S_IFCHR | 0640, .device = makedev(300, 70000)},
        {.kind = Kind::Utimens, .path = "/a", .mode = 3},
        {.kind = Kind::Chattr, .path = "/a", .mode = flag::noatime | flag::nodump},
        {.kind = Kind::Setfacl, .path = "/A/s", .other = "access", .mode = 5, .uid = 70001},
    };
    if (large_values) {
        words.push_back({Kind::Setxattr, "/a", "user.value", 0, 5000});  // in an inode of its own
        words.push_back({Kind::Setxattr, "/A/c", "user.value", 0, 9000});
        words.push_back({Kind::Setxattr, "/a", "user.value", 0, 70});  // and back
        words.push_back({Kind::Removexattr, "/a", "user.value"});
    }
    return words;
}

// What may be made durable after a sequence: what its operations touched, their parents, everything. What replaces may
// also be committed with nobody asking for its data.
std::vector<Operation> persistence_after(const std::vector<Operation>& steps) {
    std::vector<Operation> out{{Kind::Sync}};
    std::vector<std::string> seen;
    auto add = [&](const std::string& path) {
        if (path.empty() || path[0] != '/' || std::find(seen.begin(), seen.end(), path) != seen.end()) return;
        seen.push_back(path);
        out.push_back({Kind::Fsync, path});
    };
    for (const Operation& o : steps) {
        const bool moved = o.kind == Kind::Rename;
        const std::string& path = moved ? o.other : o.path;
        if (o.kind == Kind::Unlink || o.kind == Kind::Rmdir || o.kind == Kind::Mknod) {
            add(path.substr(0, std::max<std::size_t>(1, path.rfind('/'))));
            continue;
        }
        if (o.kind != Kind::Symlink) add(path);
        if (o.kind == Kind::Write || o.kind == Kind::Direct || o.kind == Kind::MapStore)
            out.push_back({Kind::Fdatasync, path});
        if (o.kind == Kind::MapStore) out.push_back({Kind::Msync, path});
        if (moved) add(o.other.substr(0, std::max<std::size_t>(1, o.other.rfind('/'))));
    }
    if (std::ranges::any_of(steps, [](const Operation& o) {
            return o.kind == Kind::Rename || o.kind == Kind::Reopen || (o.kind == Kind::Truncate && o.length == 0);
        }))
        out.push_back({Kind::Commit});
    return out;
}

std::string name_of(const std::vector<Operation>& steps) {
    std::string text;
    for (const Operation& o : steps) text += (text.empty() ? "" : "; ") + describe(o);
    return text;
}

void add(std::vector<Workload>& out, std::vector<Operation> steps, const Operation& last) {
    steps.push_back(last);
    out.push_back({name_of(steps), small_tree(), steps});
}

void add_with_persistence(std::vector<Workload>& out, const std::vector<Operation>& steps) {
    for (const Operation& last : persistence_after(steps)) add(out, steps, last);
}

// Between two operations there may be each point of persistence as well; those at the end take turns then.
void add_pair(std::vector<Workload>& out, const Operation& a, const Operation& b) {
    add_with_persistence(out, {a, b});
    for (const Operation& between : persistence_after({a})) {
        const auto last = persistence_after({a, b});
        add(out, {a, between, b}, last[out.size() % last.size()]);
    }
}

}  // namespace

std::vector<Workload> ace_workloads(unsigned length, std::uint64_t seed, std::size_t count, bool large_values) {
    const std::vector<Operation> words = vocabulary(large_values);
    std::vector<Workload> out;
    std::mt19937_64 random(seed);
    if (length == 1) {
        for (const Operation& a : words) add_with_persistence(out, {a});
    } else if (length == 2) {
        for (const Operation& a : words)
            for (const Operation& b : words) add_pair(out, a, b);
    } else {
        while (out.size() < count) {
            std::vector<Operation> steps;
            for (unsigned i = 0; i < length; ++i) {
                steps.push_back(words[random() % words.size()]);
                // A point of persistence between the operations, now and then.
                if (i + 1 < length && random() % 4 == 0) {
                    const auto points = persistence_after(steps);
                    steps.push_back(points[random() % points.size()]);
                }
            }
            const auto points = persistence_after(steps);
            steps.push_back(points[random() % points.size()]);
            out.push_back({name_of(steps), small_tree(), steps});
        }
        return out;
    }
    // Any number of them is a fair sample.
    std::shuffle(out.begin(), out.end(), random);
    return out;
}

namespace {

Operation synchronous_write(const std::string& path, std::uint64_t at, std::uint64_t n, int mode) {
    if (mode & Operation::direct) at = at / 4096 * 4096, n = round_up(n, std::uint64_t{4096});
    return {Kind::WriteSync, path, {}, at, n, mode};
}

}  // namespace

Workload exerciser(std::uint64_t seed, std::size_t steps) {
    Workload w{fmt::format("exerciser, seed {}", seed), {}, {}};
    std::mt19937_64 random(seed);
    auto below = [&](std::uint64_t n) { return random() % n; };
    for (std::size_t i = 0; i < steps; ++i) {
        const std::string path = fmt::format("/f{}", below(4));
        const std::uint64_t at = below(24000), n = below(3) ? below(9000) + 1 : below(90) + 1;
        switch (below(17)) {
            case 12:
            case 13: w.steps.push_back({Kind::MapStore, path, {}, at / 2, n}); break;
            case 0:
            case 1: w.steps.push_back({Kind::Write, path, {}, at, n}); break;
            case 2: w.steps.push_back({Kind::Write, path, {}, below(100), below(100) + 1}); break;
            case 3: w.steps.push_back({Kind::Direct, path, {}, at / 4096 * 4096, 4096 * (below(3) + 1)}); break;
            case 4: w.steps.push_back({Kind::Truncate, path, {}, 0, at}); break;
            case 5: w.steps.push_back({Kind::Fallocate, path, {}, at, n, static_cast<int>(below(2))}); break;
            case 6: w.steps.push_back({Kind::Fallocate, path, {}, at, n, below(2) ? 3 : 16}); break;
            case 7: w.steps.push_back({Kind::Fallocate, path, {}, at / 4096 * 4096, 4096, below(2) ? 8 : 32}); break;
            case 8: w.steps.push_back({Kind::Reopen, path, {}, 0, n}); break;
            case 9: w.steps.push_back({Kind::Fdatasync, path}); break;
            case 14: w.steps.push_back({Kind::Msync, path}); break;
            case 15: w.steps.push_back(synchronous_write(path, at, n, static_cast<int>(below(4)))); break;
            default: w.steps.push_back({Kind::Fsync, path}); break;
        }
    }
    w.steps.push_back({Kind::Sync});
    return w;
}

namespace {

// Of the root when `path` is empty.
Operation attribute_change(std::mt19937_64& random, const std::string& path) {
    auto below = [&](std::uint64_t n) { return static_cast<std::uint32_t>(random() % n); };
    constexpr std::uint32_t flags[] = {
        0, 0, flag::noatime, flag::noatime | flag::nodump, flag::append, flag::immutable};
    Operation o{.path = path.empty() ? "/" : path};
    const std::uint32_t kind = below(path.empty() ? 4 : 6);
    switch (kind) {
        case 0:
            o.kind = Kind::Chown;
            o.uid = below(200000);
            o.gid = below(200000);
            break;
        case 1:
            o.kind = Kind::Utimens;
            o.mode = static_cast<int>(1 + below(3));
            break;
        case 2:
            o.kind = Kind::Setfacl;
            o.other = below(2) ? "access" : "default";
            o.mode = static_cast<int>(below(8));
            o.uid = 1 + below(100000);
            break;
        case 3:
            o.kind = Kind::Chmod;
            o.mode = static_cast<int>(below(07777));
            break;
        case 4:
            o.kind = Kind::Chattr;
            o.mode = static_cast<int>(flags[below(std::size(flags))]);
            break;
        default:
            o.kind = Kind::Mknod;
            o.mode = static_cast<int>((below(3) ? below(2) ? S_IFCHR : S_IFBLK : S_IFIFO) | 0600);
            o.device = below(2) ? makedev(below(256), below(256)) : makedev(below(4096), below(1 << 20));
            break;
    }
    return o;
}

}  // namespace

Workload namespace_stress(std::uint64_t seed, std::size_t steps, bool large_values) {
    Workload w{fmt::format("namespace stress, seed {}", seed), {{Kind::Mkdir, "/d0"}, {Kind::Mkdir, "/d1"}}, {}};
    w.setup.push_back({Kind::Sync});
    std::mt19937_64 random(seed);
    auto below = [&](std::uint64_t n) { return random() % n; };
    auto directory = [&] { return below(3) ? fmt::format("/d{}", below(2)) : std::string(); };
    auto name = [&] {
        // Long ones, so that directories have more than a block.
        return directory() + fmt::format("/n{}", below(8)) + std::string(below(3) ? 0 : 180, 'x');
    };
    for (std::size_t i = 0; i < steps; ++i) {
        switch (below(17)) {
            case 0: w.steps.push_back({Kind::Mkdir, name()}); break;
            case 1: w.steps.push_back({Kind::Rmdir, name()}); break;
            case 2:
            case 3: w.steps.push_back({Kind::Rename, name(), name()}); break;
            case 4: w.steps.push_back({Kind::Exchange, name(), name()}); break;
            case 5: w.steps.push_back({Kind::Link, name(), name()}); break;
            case 6:
            case 7: w.steps.push_back({Kind::Unlink, name()}); break;
            case 8: w.steps.push_back({Kind::Symlink, name(), std::string(below(2) ? 20 : 200, 's')}); break;
            case 9:
                w.steps.push_back({Kind::Setxattr, name(), fmt::format("user.x{}", below(3)), 0,
                                   below(large_values ? 6000 : 600) + 1});
                break;
            case 10: w.steps.push_back({Kind::Removexattr, name(), fmt::format("user.x{}", below(3))}); break;
            case 11: w.steps.push_back({Kind::Fsync, below(2) ? name() : "/d0"}); break;
            case 12:
            case 13:
            case 14: w.steps.push_back(attribute_change(random, below(4) ? name() : directory())); break;
            default: w.steps.push_back({Kind::Create, name()}); break;
        }
    }
    w.steps.push_back({Kind::Sync});
    return w;
}

namespace {

Operation moved_to(const std::string& directory, Operation o) {
    if (!o.path.empty()) o.path = o.path == "/" ? directory : directory + o.path;
    if (o.kind == Kind::Link || o.kind == Kind::Rename || o.kind == Kind::Exchange) o.other = directory + o.other;
    return o;
}

}  // namespace

Workload stress(std::uint64_t seed, std::size_t steps) {
    Workload w{fmt::format("stress, seed {}", seed), {}, {}};
    std::mt19937_64 random(seed);
    for (int i = 0; i < 3; ++i) {
        const std::string directory = fmt::format("/t{}", i);
        const Workload names = namespace_stress(random(), steps / 2), bytes = exerciser(random(), steps / 2);
        w.setup.push_back({Kind::Mkdir, directory});
        for (const Operation& o : names.setup)
            if (o.kind == Kind::Mkdir) w.setup.push_back(moved_to(directory, o));
        std::vector<Operation> merged;
        for (std::size_t n = 0, b = 0; n < names.steps.size() || b < bytes.steps.size();) {
            const bool name = b == bytes.steps.size() || (n < names.steps.size() && random() % 2);
            merged.push_back(moved_to(directory, name ? names.steps[n++] : bytes.steps[b++]));
        }
        w.threads.push_back(std::move(merged));
    }
    w.setup.push_back({Kind::Sync});
    return w;
}

std::vector<Workload> replacements() {
    const std::vector<std::vector<Operation>> ways = {
        {{Kind::Write, "/A/new", {}, 0, 5000}, {Kind::Rename, "/A/new", "/A/c"}},
        {{Kind::Write, "/A/new", {}, 0, 90}, {Kind::Rename, "/A/new", "/a"}},
        {{Kind::Write, "/A/new", {}, 0, 30000}, {Kind::Rename, "/A/new", "/A/s"}},
        {{Kind::Write, "/a", {}, 2000, 12000}, {Kind::Rename, "/a", "/A/c"}},
        {{Kind::MapStore, "/a", {}, 100, 8000}, {Kind::Rename, "/a", "/A/c"}},
        {{Kind::Truncate, "/A/c", {}, 0, 0}, {Kind::Write, "/A/c", {}, 0, 6000}},
        {{Kind::Truncate, "/A/c", {}, 0, 0}, {Kind::Write, "/A/c", {}, 0, 90}},
        {{Kind::Truncate, "/A/s", {}, 0, 0}, {Kind::Write, "/A/s", {}, 0, 30000}},
        {{Kind::Reopen, "/A/c", {}, 0, 20000}},
        {{Kind::Reopen, "/A/s", {}, 0, 50}, {Kind::Reopen, "/A/s", {}, 0, 5000}},
    };
    std::vector<Workload> out;
    // First those that nobody's sync helps.
    for (const bool asked : {false, true})
        for (const auto& way : ways)
            for (const Operation& last : persistence_after(way)) {
                if ((last.kind != Kind::Commit) != asked) continue;
                Workload w{"", small_tree(), way};
                w.steps.push_back(last);
                w.name = name_of(w.steps);
                out.push_back(std::move(w));
            }
    return out;
}

}  // namespace uext4::crash

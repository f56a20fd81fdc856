// Workloads about the log: what it holds images of, how often it begins anew, and what takes several transactions.
#include "tests/crash/operation.h"

#include <linux/falloc.h>

#include <algorithm>
#include <random>

namespace uext4::crash {

namespace {

using Kind = Operation::Kind;

}  // namespace

// Each round makes blocks of one kind or several, changes them, frees them and gives three quarters of the space to
// data, which makes room for the next round's. Commits come in between, or do not.
Workload reuse(std::uint64_t seed, bool large_values) {
    constexpr std::uint64_t room = 160 << 10;
    const std::uint64_t value = large_values ? 20000 : 800;
    Workload w{
        fmt::format("reuse, seed {}", seed), {{Kind::Mkdir, "/m"}, {Kind::Create, "/j"}, {Kind::Create, "/x"}}, {}};
    w.setup.push_back({Kind::JournalData, "/j"});
    w.setup.push_back({Kind::Fill, "/ballast", {}, 0, room});
    w.setup.push_back({Kind::Sync});
    std::mt19937_64 random(seed);
    auto below = [&](std::uint64_t n) { return random() % n; };
    auto step = [&](Operation o) { w.steps.push_back(std::move(o)); };
    auto perhaps_commit = [&] {
        if (below(2)) step({below(4) ? Kind::Commit : Kind::Sync});
    };
    for (int round = 0; round < 2; ++round) {
        if (round > 0) {
            step({Kind::Unlink, fmt::format("/data{}", round - 1)});
            step({Kind::Commit});
        }
        const std::uint64_t directories = below(3) ? 4 + below(4) : 0;
        const bool nodes = below(2), attributes = below(2), journaled = below(2) || directories == 0;
        auto directory = [](std::uint64_t i) { return fmt::format("/m/d{}", i); };
        for (std::uint64_t i = 0; i < directories; ++i) step({Kind::Mkdir, directory(i)});
        if (nodes) {
            // More extents than the inode has room for, or more blocks.
            const bool written = below(2);
            step({Kind::Create, "/m/e"});
            for (std::uint64_t i = 0; i < 6; ++i)
                step({written ? Kind::Write : Kind::Fallocate, "/m/e", {}, i * 16384, 4096});
            if (written) step({Kind::Fsync, "/m/e"});
        }
        if (attributes) step({Kind::Setxattr, "/x", "user.large", 0, value});
        if (journaled) step({Kind::Write, "/j", {}, 0, 20000}), step({Kind::Fsync, "/j"});
        perhaps_commit();
        if (nodes && below(2)) step({.kind = Kind::Extents, .path = "/m/e", .mode = 0});
        for (std::uint64_t i = 0; i < directories; i += 2) step({Kind::Create, directory(i) + "/f"});
        if (nodes) step({Kind::Fallocate, "/m/e", {}, 7 * 16384, 4096});
        if (attributes) step({Kind::Setxattr, "/x", "user.large", 0, value + 100});
        if (journaled) step({Kind::Write, "/j", {}, 3000, 9000}), step({Kind::Fsync, "/j"});
        perhaps_commit();
        for (std::uint64_t i = 0; i < directories; ++i) {
            if (i % 2 == 0) step({Kind::Unlink, directory(i) + "/f"});
            step({Kind::Rmdir, directory(i)});
        }
        if (nodes) step({Kind::Unlink, "/m/e"});
        if (attributes) step({Kind::Removexattr, "/x", "user.large"});
        if (journaled) step({Kind::Truncate, "/j", {}, 0, 0});
        step({Kind::Commit});  // freed now
        perhaps_commit();
        const std::string data = fmt::format("/data{}", round);
        step({below(3) ? Kind::Write : Kind::Direct, data, {}, 0, 120 << 10});
        if (below(4)) step({below(2) ? Kind::Fsync : Kind::Sync, data});
        perhaps_commit();
    }
    step({Kind::Sync});
    return w;
}

// Contents that go through the log, several times as much as it holds, and names between them, so that what is
// committed goes home beside a transaction that changes the same blocks.
Workload wrap(std::uint64_t seed) {
    constexpr std::uint64_t large = 300 << 10;
    Workload w{
        fmt::format("wrap, seed {}", seed), {{Kind::Mkdir, "/d"}, {Kind::Create, "/j"}, {Kind::Create, "/k"}}, {}};
    for (const char* file : {"/j", "/k"}) {
        w.setup.push_back({Kind::JournalData, file});
        w.setup.push_back({Kind::Write, file, {}, 0, large});
    }
    w.setup.push_back({Kind::Sync});
    std::mt19937_64 random(seed);
    auto below = [&](std::uint64_t n) { return random() % n; };
    for (std::uint64_t round = 0; round < 16; ++round) {
        const std::string name = fmt::format("/d/n{}", round), file = below(2) ? "/j" : "/k";
        w.steps.push_back({Kind::Create, name});
        if (below(2)) w.steps.push_back({Kind::Setxattr, name, "user.small", 0, 40});
        w.steps.push_back({Kind::Write, file, {}, 4096 * below(4), large - 4096 * below(20) - 16384});
        if (round > 2 && below(2)) w.steps.push_back({Kind::Unlink, fmt::format("/d/n{}", round - 2 - round % 2)});
        if (below(4)) w.steps.push_back({below(3) ? Kind::Fsync : Kind::Commit, below(2) ? file : name});
        if (below(3) == 0) w.steps.push_back({Kind::Write, name, {}, 0, 100 + below(6000)});
    }
    w.steps.push_back({Kind::Sync});
    return w;
}

// What is on the list of orphans comes and goes in the middle, at both ends, and with others in one transaction.
Workload held(std::uint64_t seed) {
    constexpr std::uint64_t files = 7;
    Workload w{fmt::format("held, seed {}", seed), {{Kind::Mkdir, "/d"}}, {}};
    std::mt19937_64 random(seed);
    auto below = [&](std::uint64_t n) { return random() % n; };
    auto file = [](std::uint64_t i) { return fmt::format("{}/h{}", i % 2 ? "/d" : "", i); };
    auto any = [&] { return file(below(files)); };
    auto step = [&](Operation o) { w.steps.push_back(std::move(o)); };
    auto lose_name = [&](const std::string& path) {
        if (below(3)) return step({Kind::Unlink, path});
        step({Kind::Create, "/new"});
        step({Kind::Rename, "/new", path});
    };
    for (std::uint64_t i = 0; i < files; ++i) w.setup.push_back({Kind::Write, file(i), {}, 0, below(3) ? 9000u : 60u});
    w.setup.push_back({Kind::Sync});
    for (std::uint64_t i = 0; i < 3 + below(files - 2); ++i) {
        step({Kind::Hold, file(i)});
        lose_name(file(i));
    }
    for (int i = 0; i < 30; ++i) {
        switch (below(8)) {
            case 0: step({Kind::Hold, any()}); break;
            case 1: lose_name(any()); break;
            case 2:
            case 3: step({Kind::GiveUp, any()}); break;
            case 4: step({Kind::Write, any(), {}, below(9000), 1 + below(6000)}); break;
            case 5: step({Kind::Fsync, any()}); break;
            default: step({Kind::Commit}); break;
        }
    }
    step({Kind::Sync});
    return w;
}

// Every change of a file in pieces meets a transaction that has room for a part of it: contents that are journaled have
// most of it.
Workload fragments(std::uint64_t seed) {
    constexpr std::uint64_t block = 1024, pieces = 3900, few = pieces / 8;
    Workload w{.name = fmt::format("fragments, seed {}", seed), .in_several_transactions = true};
    w.setup.push_back({Kind::Scatter, "/f", {}, 9 * block, pieces * block});
    w.setup.push_back({Kind::Create, "/j"});
    w.setup.push_back({Kind::JournalData, "/j"});
    w.setup.push_back({Kind::Sync});
    std::mt19937_64 random(seed);
    auto below = [&](std::uint64_t n) { return random() % n; };
    const std::uint64_t at = below(pieces / 8) * block, length = (1 + below(pieces / 2)) * block;
    const std::uint64_t kept = below(few / 8) * block;
    std::vector<std::vector<Operation>> changes = {
        {{Kind::Fallocate, "/f", {}, at, length, FALLOC_FL_INSERT_RANGE}},
        {{Kind::Fallocate, "/f", {}, at, length, FALLOC_FL_COLLAPSE_RANGE}},
        {{Kind::Fallocate, "/f.1", {}, kept, few * block, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE}},
        {{Kind::Truncate, "/f.2", {}, 0, kept + below(block)}},
        {{Kind::Unlink, "/f.3"}, {Kind::Commit}},
    };
    std::shuffle(changes.begin(), changes.end(), random);
    for (const auto& change : changes) {
        if (below(4)) w.steps.push_back({Kind::Write, "/j", {}, 0, (1 + below(40)) * block});
        w.steps.insert(w.steps.end(), change.begin(), change.end());
        if (change.front().kind == Kind::Unlink) continue;
        const std::string& path = change.front().path;
        if (below(3) == 0) w.steps.push_back({Kind::Write, path, {}, at, 1 + below(3000)});
        if (below(3) == 0) w.steps.push_back({below(2) ? Kind::Fsync : Kind::Commit, path});
    }
    w.steps.push_back({Kind::Sync});
    return w;
}

}  // namespace uext4::crash

// A workload under every fault: whatever was acknowledged is there, the rest is an error, and the unmount ends.
#include "sync/thread.h"
#include "tests/faults/all_faults.h"
#include "tests/faults/faulty_mount.h"

#include <malloc.h>

#include <map>
#include <random>
#include <set>

namespace uext4::faults {
namespace {

using namespace std::chrono_literals;
struct Cell {
    const char *name, *format, *options;
};
const Cell all_cells[] = {
    {"ordered", "-b 4096", "data=ordered"},
    {"journal", "-b 4096", "data=journal"},
    {"inline", "-b 1024 -O inline_data", "data=ordered"},
    {"unjournaled", "-b 4096 -O ^has_journal", ""},
};
void PrintTo(const Cell& cell, std::ostream* out) { *out << cell.name; }

// What a file may hold after a cut: one of the versions since its last acknowledged sync.
using Versions = std::vector<std::string>;

class UnderFaults : public testing::TestWithParam<std::tuple<Fault, Cell>> {
protected:
    const Fault& fault() const { return std::get<0>(GetParam()); }
    const Cell& cell() const { return std::get<1>(GetParam()); }

    static void put(std::string& file, std::size_t at, const std::string& bytes) {
        if (file.size() < at + bytes.size()) file.resize(at + bytes.size());
        file.replace(at, bytes.size(), bytes);
    }

    // Files that exist already are written, truncated and synced; any step may fail.
    void workload(FileSystem& fs, std::mt19937& random) {
        for (int i = 0; i < 120; ++i) {
            const std::string path = fmt::format("/f{}", random() % 6);
            Versions& versions = may[path];
            std::string next = versions.back();
            auto file = fs.open_path(path, O_RDWR, 0, root);
            if (!file) continue;
            const unsigned what = random() % 10;
            if (what < 5) {
                const std::size_t at = random() % 3 ? random() % (next.size() + 1) : next.size();
                const std::string bytes(random() % 9000 + 1, static_cast<char>('A' + i % 60));
                put(next, at, bytes);
                const auto n = (*file)->write(at, std::as_bytes(std::span(bytes)));
                versions.push_back(next);
                // Done in part: then a later sync makes durable what no version here is.
                if (!n || *n != bytes.size()) cut_short.insert(path);
            } else if (what == 5) {
                next.resize(random() % (next.size() + 1));
                versions.push_back(next);
                if (!(*file)->truncate(next.size())) cut_short.insert(path);
            } else if (what == 6) {
                auto top = fs.root();
                if (top) (void)fs.create(**top, fmt::format("n{}", i), S_IFREG | 0644, 0, {}, root, true);
            } else if (what == 7) {
                std::vector<std::byte> bytes(next.size());
                (void)(*file)->read(0, bytes);
            } else if ((*file)->sync(what == 8)) {
                if (!cut_short.contains(path)) versions = {versions.back()};
            }
        }
    }
    void judge(const std::shared_ptr<MemoryDevice>& image, const std::string& when) {
        auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(image->clone()), {});
        ASSERT_TRUE(fs) << when << ": " << fs.error().what;
        for (const auto& [path, versions] : may) {
            auto file = (*fs)->open_path(path, O_RDONLY, 0, root);
            ASSERT_TRUE(file) << when << ": " << path << ": " << file.error().what;
            std::vector<std::byte> bytes(1 << 19);
            auto n = (*file)->read(0, bytes);
            ASSERT_TRUE(n) << when << ": " << path << ": " << n.error().what;
            std::size_t least = ~std::size_t{0};
            for (const std::string& v : versions) least = std::min(least, v.size());
            EXPECT_GE(*n, least) << when << ": " << path << " is shorter than when it was synced";
            for (std::size_t i = 0; i < *n; ++i) {
                const char c = static_cast<char>(bytes[i]);
                if (std::ranges::any_of(versions, [&](const std::string& v) { return i < v.size() && v[i] == c; }))
                    continue;
                ADD_FAILURE() << when << ": " << path << ": byte " << i << " of " << *n << " is " << static_cast<int>(c)
                              << ", in none of " << versions.size() << " versions";
                return;
            }
        }
    }

    void prepare(FileSystem& fs) {
        for (int i = 0; i < 6; ++i) {
            const std::string path = fmt::format("/f{}", i);
            const std::string bytes(i * 3000 + 30, static_cast<char>('0' + i));
            auto file = fs.open_path(path, O_CREAT | O_RDWR, 0644, root);
            ASSERT_TRUE(file && (*file)->write(0, std::as_bytes(std::span(bytes))));
            may[path] = {bytes};
        }
        ASSERT_TRUE(fs.sync());
    }

    std::map<std::string, Versions> may;
    std::set<std::string> cut_short;
};

TEST_P(UnderFaults, WhatWasAcknowledgedIsThere) {
    const bool journaled = cell().options[0] != '\0';
    std::uint64_t hits = 0;
    for (unsigned seed = 1; seed <= 4; ++seed) {
        std::mt19937 random(seed);
        may.clear();
        cut_short.clear();
        const std::string when = fmt::format("seed {}", seed);
        FaultyMount m(fresh_image(cell().format));
        ASSERT_TRUE(m.mount(cell().options));
        prepare(*m.fs);
        if (HasFailure()) return;
        // Mounted again, so that there is something to read.
        ASSERT_TRUE(m.fs->unmount());
        m.fs.reset();
        ASSERT_TRUE(m.mount(cell().options));
        const Unsticker unsticker(*m.faulty);
        const std::uint64_t armed_fault = m.faulty->add(armed(fault(), random));
        workload(*m.fs, random);
        const auto cut = m.durable();
        const auto closed = m.fs->unmount();
        m.fs.reset();
        hits += m.faulty->hits(armed_fault) + unsticker.releases();
        m.faulty->clear();
        if (!fault().honest) continue;  // only that it ends
        if (journaled) {
            judge(cut, when + ", cut");
            judge(m.memory, when + ", unmounted");
            if (HasFailure()) return;
            expect_sound(cut, when + ", cut");
            expect_sound(m.memory, when + ", unmounted");
        } else if (closed && (fault().effect == Effect::Slow || fault().effect == Effect::Stick)) {
            judge(m.memory, when);
        }
        if (HasFailure()) return;
    }
    // Without a log there are no commit records.
    if (journaled || fault().kinds != std::vector<Kind>{Kind::Fua}) {
        EXPECT_GT(hits, 0u) << "the device never failed";
    }
}

INSTANTIATE_TEST_SUITE_P(Faults, UnderFaults,
                         testing::Combine(testing::ValuesIn(all_faults), testing::ValuesIn(all_cells)),
                         [](const auto& p) {
                             return std::string(std::get<0>(p.param).name) + "_" + std::get<1>(p.param).name;
                         });

// A device that hangs holds up who needs it, nobody is told a lie meanwhile, and everything goes on when it answers.
TEST(StuckDevice, GoesOn) {
    FaultyMount m(fresh_image("-b 4096"));
    ASSERT_TRUE(m.mount());
    auto a = m.open("/a"), b = m.open("/b");
    const std::string bytes(9000, 'x');
    DeviceFault stick;
    stick.kinds = {Kind::Write};
    stick.effect = Effect::Stick;
    m.faulty->add(stick);
    std::atomic<bool> returned{false};
    Thread syncing("syncing", [&] {
        EXPECT_TRUE(a->write(0, std::as_bytes(std::span(bytes))));
        EXPECT_TRUE(a->sync(false));
        returned = true;
    });
    while (m.faulty->stuck() == 0) this_thread::sleep(1ms);
    // What needs no device is served.
    EXPECT_TRUE(b->write(0, std::as_bytes(std::span(bytes))));
    std::vector<std::byte> back(9000);
    EXPECT_TRUE(b->read(0, back));
    EXPECT_FALSE(returned.load());
    m.faulty->release_stuck();
    syncing.join();
    a.reset(), b.reset();
    EXPECT_TRUE(m.fs->unmount());
}

// What failed is kept while it is mounted, and given back then.
TEST(Memory, IsGivenBack) {
    auto round = [] {
        FaultyMount m(fresh_image("-b 4096"));
        ASSERT_TRUE(m.mount());
        {
            auto file = m.open("/f");
            const std::string bytes(3 << 20, 'x');
            m.faulty->fail_writes();
            (void)file->write(0, std::as_bytes(std::span(bytes)));
            EXPECT_FALSE(file->sync(false));
        }
        EXPECT_FALSE(m.fs->unmount());
    };
    round();
    const std::size_t before = ::mallinfo2().uordblks + ::mallinfo2().hblkhd;
    for (int i = 0; i < 5; ++i) round();
    const std::size_t after = ::mallinfo2().uordblks + ::mallinfo2().hblkhd;
    EXPECT_LT(after, before + (1u << 20));
}

}  // namespace
}  // namespace uext4::faults

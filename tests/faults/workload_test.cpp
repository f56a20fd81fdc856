// A workload under every fault: whatever was acknowledged is there, the rest is an error, and the unmount ends.
#include "sync/thread.h"
#include "tests/doubles/simulated_maps.h"
#include "tests/faults/all_faults.h"
#include "tests/faults/faulty_mount.h"

#include <linux/falloc.h>
#include <malloc.h>
#include <sys/mman.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>

namespace uext4::faults {
namespace {

using namespace std::chrono_literals;
struct Cell {
    const char *name, *format, *options;
    std::size_t block = 4096, unit = 4096;  // bytes; collapse and insert move whole units
    bool extents = true;
};
const Cell all_cells[] = {
    {"ordered", "-b 4096", "data=ordered"},
    {"journal", "-b 4096", "data=journal"},
    {"inline", "-b 1024 -O inline_data", "data=ordered", 1024, 1024},
    {"unjournaled", "-b 4096 -O ^has_journal", ""},
    {"indirect", "-b 1024 -O ^extents,^64bit", "data=ordered", 1024, 1024, false},
    {"bigalloc", "-b 4096 -O bigalloc -C 16384", "data=ordered", 4096, 16384},
};
void PrintTo(const Cell& cell, std::ostream* out) { *out << cell.name; }

// What a file may hold after a cut: one of the versions since its last acknowledged sync. So with its attribute.
using Versions = std::vector<std::string>;
constexpr const char* attribute = "user.version";

class UnderFaults : public testing::TestWithParam<std::tuple<Fault, Cell>> {
protected:
    const Fault& fault() const { return std::get<0>(GetParam()); }
    const Cell& cell() const { return std::get<1>(GetParam()); }

    static void put(std::string& file, std::size_t at, const std::string& bytes) {
        if (file.size() < at + bytes.size()) file.resize(at + bytes.size());
        file.replace(at, bytes.size(), bytes);
    }

    // Each byte is that of some version.
    void expect_mixture(const std::string& path, const std::string& shown, const std::string& when) {
        const Versions& versions = may[path];
        std::size_t least = ~std::size_t{0};
        for (const std::string& v : versions) least = std::min(least, v.size());
        EXPECT_GE(shown.size(), least) << when << ": " << path << " is shorter than when it was synced";
        for (std::size_t i = 0; i < shown.size(); ++i) {
            const char c = shown[i];
            if (std::ranges::any_of(versions, [&](const std::string& v) { return i < v.size() && v[i] == c; }))
                continue;
            ADD_FAILURE() << when << ": " << path << ": byte " << i << " of " << shown.size() << " is "
                          << static_cast<int>(c) << ", in none of " << versions.size() << " versions\n"
                          << did[path];
            return;
        }
    }
    // A flush that fails takes what was not flushed off the device, and of what a collapse or an insert has moved the
    // cache keeps nothing.
    bool may_be_lost(const std::string& path) const {
        const bool flushes_fail = fault().kinds.empty() || std::ranges::count(fault().kinds, Kind::Flush) != 0;
        return moved.contains(path) && flushes_fail && fault().effect == Effect::Fail;
    }
    // After a step that failed, or in part: what there is now is the newest version. False if it cannot be read.
    bool look_again(OpenFile& file, const std::string& path) {
        std::vector<std::byte> bytes(1 << 19);
        // Short at the end of the file, and before what cannot be read.
        std::size_t size = 0;
        for (;;) {
            const auto n = file.read(size, Bytes(bytes).subspan(size));
            if (!n) {
                unknown.insert(path);
                return false;
            }
            if (*n == 0) break;
            size += *n;
        }
        std::string shown(reinterpret_cast<const char*>(bytes.data()), size);
        if (fault().honest && !may_be_lost(path)) expect_mixture(path, shown, "while it fails");
        may[path].push_back(std::move(shown));
        unknown.erase(path);
        return true;
    }

    // What was done, for who reads of a failure.
    void note(const std::string& path, const std::string& what, std::size_t at, std::size_t size, bool done) {
        did[path] += fmt::format("{} {} at {}{}; ", what, size, at, done ? "" : " failed");
    }
    // Behind a step, which may have failed.
    void changed(OpenFile& file, const std::string& path, std::string next, bool done) {
        may[path].push_back(std::move(next));
        if (!done) look_again(file, path);
    }
    void write(OpenFile& file, const std::string& path, std::size_t at, const std::string& bytes) {
        std::string next = may[path].back();
        put(next, at, bytes);
        const auto n = file.write(at, std::as_bytes(std::span(bytes)));
        note(path, "write", at, bytes.size(), n.has_value());
        changed(file, path, std::move(next), n && *n == bytes.size());
    }
    // What is read is the newest version, or a part of it.
    void read(OpenFile& file, const std::string& path, std::size_t at, std::size_t size) {
        std::string shown(size, '\0');
        const auto n = file.read(at, std::as_writable_bytes(std::span(shown)));
        if (!n || !fault().honest || may_be_lost(path)) return;
        shown.resize(*n);
        const std::string& newest = may[path].back();
        EXPECT_TRUE(shown.empty() || (at < newest.size() && newest.compare(at, shown.size(), shown) == 0))
            << path << ": " << shown.size() << " bytes at " << at << "\n"
            << did[path];
    }
    void cut(OpenFile& file, const std::string& path, std::size_t size) {
        std::string next = may[path].back();
        const std::string before = next;
        next.resize(size);
        // Where no bitmap can be read there is no block to swap the last one with, and without a log its tail is zeroed
        // in place.
        if (std::string_view(fault().name).starts_with("ReadFails") && *cell().options == '\0') {
            may[path].push_back(before);
            const std::size_t end = std::min(before.size(), (next.size() + 4095) / 4096 * 4096);
            std::fill(may[path].back().begin() + static_cast<std::ptrdiff_t>(next.size()),
                      may[path].back().begin() + static_cast<std::ptrdiff_t>(end), '\0');
        }
        const auto done = file.truncate(size);
        note(path, "truncate", 0, size, done.has_value());
        changed(file, path, std::move(next), done.has_value());
    }
    void change_range(OpenFile& file, const std::string& path, std::mt19937& random) {
        constexpr int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
        const int mode = modes[random() % std::size(modes)];
        std::string next = may[path].back();
        const std::size_t at = random() % (next.size() + 1), size = random() % 9000 + 1;
        if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && at < next.size()) {
            const std::size_t inside = std::min(size, next.size() - at);
            next.replace(at, inside, inside, '\0');
        }
        if (!(mode & FALLOC_FL_KEEP_SIZE)) next.resize(std::max(next.size(), at + size));
        const auto done = file.fallocate(mode, at, size);
        note(path, fmt::format("fallocate {:#x}", mode), at, size, done.has_value());
        if (!cell().extents && !(mode & FALLOC_FL_PUNCH_HOLE)) {
            EXPECT_FALSE(done) << "indirect blocks have no unwritten ones";
            return;
        }
        changed(file, path, std::move(next), done.has_value());
    }
    void move_range(OpenFile& file, const std::string& path, std::mt19937& random) {
        const std::size_t unit = cell().unit, size = unit * (1 + random() % 2);
        std::string next = may[path].back();
        const bool inserted = next.size() < 100'000 && random() % 2;
        const std::size_t at = random() % (next.size() / unit + 1) * unit;
        const bool fits = inserted ? at < next.size() : at + size < next.size();
        if (fits && inserted) next.insert(at, size, '\0');
        else if (fits) next.erase(at, size);
        const auto done = file.fallocate(inserted ? FALLOC_FL_INSERT_RANGE : FALLOC_FL_COLLAPSE_RANGE, at, size);
        note(path, inserted ? "insert" : "collapse", at, size, done.has_value());
        if (!cell().extents || !fits) {
            EXPECT_FALSE(done) << size << " bytes at " << at << " of " << next.size();
            return;
        }
        moved.insert(path);
        changed(file, path, std::move(next), done.has_value());
    }
    // Through a map, as far as that lets it, and msync.
    void store(FileSystem& fs, SimulatedMaps& maps, OpenFile& file, const std::string& path, std::mt19937& random,
               char letter) {
        std::string next = may[path].back();
        if (next.empty()) return;
        MapRequest request;
        request.inode = file.inode_ref();
        request.length = (next.size() + 4095) / 4096 * 4096;
        request.protection = PROT_READ | PROT_WRITE;
        request.may_write = true;
        const auto map = maps.map(request);
        if (!map) return;
        const std::size_t at = random() % next.size();
        const std::string bytes(std::min<std::size_t>(next.size() - at, random() % 6000 + 1), letter);
        put(next, at, bytes);
        const auto stored = maps.store(**map, at, std::as_bytes(std::span(bytes)));
        note(path, "store", at, bytes.size(), stored.has_value());
        changed(file, path, std::move(next), stored.has_value());
        if (!unknown.contains(path) && random() % 2 && fs.maps().sync(file.inode())) synced(path, false);
        (void)maps.unmap(*map);  // of an aborted journal: it says so
    }
    void set_attribute(FileSystem& fs, OpenFile& file, const std::string& path, const std::string& value) {
        Versions& values = attributes[path];
        values.push_back(value);
        if (fs.set_xattr(file.inode(), attribute, std::as_bytes(std::span(value)), 0, root, false)) return;
        const auto now = fs.find_xattr(file.inode(), attribute, root, false);
        // Where it cannot be read, it is the one or the other.
        if (!now) values.push_back(values[values.size() - 2]);
        else values.push_back(*now ? std::string(reinterpret_cast<const char*>((*now)->data()), (*now)->size()) : "");
        if (fault().honest && now) {
            EXPECT_TRUE(std::ranges::count(values, values.back()) > 1) << path << ": " << values.back();
        }
    }
    // All there is of it is acknowledged; of data alone, its bytes.
    void synced(const std::string& path, bool data_only) {
        did[path] += "synced; ";
        moved.erase(path);
        may[path] = {may[path].back()};
        if (!data_only) attributes[path] = {attributes[path].back()};
    }

    // Files that exist already are changed, read and synced, by every way; any step may fail.
    void workload(FileSystem& fs, std::mt19937& random) {
        // What the device does not take stays in the memory of a file's maps.
        SimulatedMaps maps(fs.maps());
        for (int i = 0; i < 160; ++i) {
            const std::string path = fmt::format("/f{}", random() % 6);
            auto file = fs.open_path(path, O_RDWR, 0, root);
            if (!file || (unknown.contains(path) && !look_again(**file, path))) continue;
            step(fs, maps, **file, path, i, random);
        }
    }
    void step(FileSystem& fs, SimulatedMaps& maps, OpenFile& file, const std::string& path, int i,
              std::mt19937& random) {
        const std::size_t size = may[path].back().size(), block = cell().block;
        const char letter = static_cast<char>('A' + i % 60);
        const unsigned what = random() % 18;
        if (what < 5) {
            const std::size_t at = random() % 3 ? random() % (size + 1) : size;
            write(file, path, at, std::string(random() % 9000 + 1, letter));
        } else if (what == 5) {
            cut(file, path, random() % (size + 1));
        } else if (what == 6) {
            auto top = fs.root();
            if (top) (void)fs.create(**top, fmt::format("n{}", i), S_IFREG | 0644, 0, {}, root, true);
        } else if (what == 7) {
            read(file, path, 0, size);
        } else if (what < 10) {
            if (file.sync(what == 8)) synced(path, what == 8);
        } else if (what < 12) {
            auto direct = fs.open_path(path, O_RDWR | O_DIRECT, 0, root);
            if (!direct) return;
            const std::size_t at = random() % (size / block + 1) * block, bytes = block * (1 + random() % 3);
            if (what == 10) write(**direct, path, at, std::string(bytes, letter));
            else read(**direct, path, at, bytes);
        } else if (what == 12) {
            change_range(file, path, random);
        } else if (what == 13) {
            move_range(file, path, random);
        } else if (what < 16) {
            store(fs, maps, file, path, random, letter);
        } else {
            set_attribute(fs, file, path, std::string(random() % 200 + 1, letter));
            // Nothing else has changed since then.
            if (random() % 2 && file.sync(false)) synced(path, false);
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
            ASSERT_LT(*n, bytes.size()) << "it may be longer";
            expect_mixture(path, {reinterpret_cast<const char*>(bytes.data()), *n}, when);
            const auto value = (*fs)->find_xattr((*file)->inode(), attribute, root, false);
            ASSERT_TRUE(value) << when << ": " << path << ": " << value.error().what;
            const std::string shown =
                *value ? std::string(reinterpret_cast<const char*>((*value)->data()), (*value)->size()) : "";
            EXPECT_TRUE(std::ranges::count(attributes[path], shown) != 0) << when << ": " << path << ": " << shown;
            if (HasFailure()) return;
        }
    }

    void forget() {
        may.clear(), attributes.clear(), did.clear();
        unknown.clear(), moved.clear();
    }
    void prepare(FileSystem& fs) {
        for (int i = 0; i < 6; ++i) {
            const std::string path = fmt::format("/f{}", i);
            const std::string bytes(i * 3000 + 30, static_cast<char>('0' + i));
            auto file = fs.open_path(path, O_CREAT | O_RDWR, 0644, root);
            ASSERT_TRUE(file && (*file)->write(0, std::as_bytes(std::span(bytes))));
            may[path] = {bytes};
            attributes[path] = {""};
        }
        ASSERT_TRUE(fs.sync());
    }

    std::map<std::string, Versions> may, attributes;  // no attribute: no bytes
    std::map<std::string, std::string> did;
    std::set<std::string> unknown;  // a step failed, and then the reading of what it left
    std::set<std::string> moved;    // since its last sync
};

TEST_P(UnderFaults, WhatWasAcknowledgedIsThere) {
    const bool journaled = cell().options[0] != '\0';
    std::uint64_t hits = 0;
    const char* wanted = std::getenv("UEXT4_SEED");
    const unsigned first = wanted ? static_cast<unsigned>(std::atoi(wanted)) : 1;
    for (unsigned seed = first; seed < first + (std::getenv("UEXT4_LONG") ? 60u : 4u); ++seed) {
        std::mt19937 random(seed);
        forget();
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

// What failed is kept while it is mounted, and given back then: memory of every thread's arena and of mappings, shared
// memory of folios, descriptors.
struct Held {
    std::uint64_t bytes = 0, shared_kib = 0, descriptors = 0;
    std::uint64_t mappings = 0;  // of files
};
std::uint64_t number_behind(const std::string& text, std::string_view what, std::size_t from = 0) {
    const std::size_t at = text.find(what, from);
    return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + what.size(), nullptr, 10);
}
std::string text_of(const char* path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
}
// The sanitizers have another malloc, which looks for leaks itself.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UEXT4_HAS_A_MALLOC_OF_A_SANITIZER 1
#endif
#endif
#ifdef UEXT4_HAS_A_MALLOC_OF_A_SANITIZER
std::uint64_t allocated() { return 0; }
#else
std::uint64_t allocated() {
    char* text = nullptr;
    std::size_t size = 0;
    FILE* to = ::open_memstream(&text, &size);
    EXPECT_EQ(::malloc_info(0, to), 0);
    std::fclose(to);
    const std::string info(text, size);
    std::free(text);
    // The totals of all arenas stand behind the last one's end.
    const std::size_t totals = info.rfind("</heap>");
    auto total = [&](const char* type) {
        const std::size_t at = info.find(fmt::format("<total type=\"{}\"", type), totals);
        EXPECT_NE(at, std::string::npos) << info;
        return number_behind(info, "size=\"", at);
    };
    const std::uint64_t system = number_behind(info, "<system type=\"current\" size=\"", totals);
    EXPECT_GT(system, 0u) << info;
    return system - total("fast") - total("rest") + total("mmap");
}
#endif

Held held() {
    Held out{.bytes = allocated()};
    out.shared_kib = number_behind(text_of("/proc/self/status"), "RssShmem:");
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) out.mappings += line.find('/') != std::string::npos;
    out.descriptors =
        static_cast<std::uint64_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
    return out;
}

class Memory : public UnderFaults {};

TEST_P(Memory, IsGivenBack) {
    std::uint64_t hits = 0;
    auto round = [&](unsigned seed) {
        std::mt19937 random(seed);
        forget();
        FaultyMount m(fresh_image(cell().format));
        ASSERT_TRUE(m.mount(cell().options));
        prepare(*m.fs);
        ASSERT_TRUE(m.fs->unmount());
        m.fs.reset();
        ASSERT_TRUE(m.mount(cell().options));
        const Unsticker unsticker(*m.faulty);
        const std::uint64_t fault_id = m.faulty->add(armed(fault(), random));
        workload(*m.fs, random);
        // More than a little that may not reach the device any more.
        if (auto file = m.fs->open_path("/f0", O_RDWR, 0, root)) {
            const std::string bytes(2 << 20, 'x');
            (void)(*file)->write(0, std::as_bytes(std::span(bytes)));
            (void)(*file)->sync(false);
        }
        (void)m.fs->unmount();
        m.fs.reset();
        hits += m.faulty->hits(fault_id) + unsticker.releases();
        m.faulty->clear();
        forget();  // what is known of the files is memory, too
    };
    for (unsigned i = 0; i < 3; ++i) round(i);
    const Held before = held();
    for (unsigned i = 0; i < 8; ++i) round(i % 3);
    const Held after = held();
    EXPECT_GT(hits, 0u) << "the device never failed";
    EXPECT_EQ(after.descriptors, before.descriptors);
    EXPECT_EQ(after.mappings, before.mappings);
    EXPECT_LE(after.shared_kib, before.shared_kib + 512);
    EXPECT_LE(after.bytes, before.bytes + (1u << 20));
}

INSTANTIATE_TEST_SUITE_P(Faults, Memory,
                         testing::Combine(testing::ValuesIn(all_faults), testing::Values(all_cells[0], all_cells[1])),
                         [](const auto& p) {
                             return std::string(std::get<0>(p.param).name) + "_" + std::get<1>(p.param).name;
                         });

}  // namespace
}  // namespace uext4::faults

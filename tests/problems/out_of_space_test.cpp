// Problem I and more: 0 to 64 free blocks, and everything that may want one. What was acknowledged is there, what is
// refused is refused with ENOSPC (SIGBUS in a map, for that store alone), and what needs no space goes on.
#include "settled_image.h"

#include <algorithm>
#include <map>
#include <random>
#include <sstream>

namespace uext4::problems {
namespace {

struct Format {
    const char* name;
    const char* mke2fs;
    std::uint64_t block;
    bool extents, shifts;  // collapse and insert are possible
};

class Full : public SettledImage, public testing::WithParamInterface<std::tuple<Format, const char*, bool>> {
protected:
    Format format() const { return std::get<0>(GetParam()); }
    std::string mode() const { return std::get<1>(GetParam()); }
    bool journaled() const { return mode().ends_with("journal"); }
    bool privileged() const { return std::get<2>(GetParam()); }
    const Credentials& who() const { return privileged() ? root : user; }

    // What an fsync has acknowledged: -1 where anything may be.
    struct File {
        std::vector<int> bytes;
    };
    void unknown(const std::string& path, std::uint64_t at, std::uint64_t size) { note(path, at, size, nullptr); }
    void note(const std::string& path, std::uint64_t at, std::uint64_t size, const char* bytes) {
        auto& known = files[path].bytes;
        if (known.size() < at + size) known.resize(at + size, -1);
        for (std::uint64_t i = 0; i < size; ++i) known[at + i] = bytes ? static_cast<unsigned char>(bytes[i]) : -1;
    }

    static int code(const auto& result) { return result ? 0 : result.error().code; }
    void no_space_or_done(const auto& result, const char* what) {
        if (!result) {
            EXPECT_EQ(result.error().code, ENOSPC) << what << ": " << result.error().what;
        }
    }
    // A write, acknowledged by fsync. Bytes written.
    std::size_t write_and_sync(const std::string& path, std::uint64_t at, std::size_t size, int flags = 0) {
        auto file = open(path, O_RDWR | flags, who());
        if (!file) return 0;
        const std::string bytes = pattern(size, ++seed);
        Aligned memory(bytes);
        unknown(path, at, size);
        auto n = file->write(at, memory.bytes().first(size));
        no_space_or_done(n, "write");
        auto synced = file->sync(false);
        EXPECT_TRUE(synced) << path << " " << at << ": " << synced.error().what;
        if (n && synced) note(path, at, *n, bytes.data());
        return n ? *n : 0;
    }
    void check_contents(FileSystem& in, const char* when) {
        for (const auto& [path, file] : files) {
            auto opened = in.open_path(path, O_RDONLY, 0, root);
            ASSERT_TRUE(opened) << when << " " << path << ": " << opened.error().what;
            const std::string now = read(**opened, file.bytes.size());
            for (std::size_t i = 0; i < file.bytes.size(); ++i) {
                const int is = i < now.size() ? static_cast<unsigned char>(now[i]) : -2;
                if (file.bytes[i] >= 0) {
                    ASSERT_EQ(is, file.bytes[i]) << when << " " << path << " at " << i;
                }
            }
        }
    }

    std::uint64_t left() {
        const SpaceCounts counts = fs->volume().counts();
        return privileged() ? counts.free_blocks : counts.available_blocks;
    }
    void prepare() {
        const std::uint64_t bs = format().block;
        for (const char* path :
             {"/old", "/prealloc", "/sparse", "/mapped", "/append", "/punched", "/direct", "/fallocated"}) {
            auto file = open(path);
            ok(fs->set_attributes(file->inode(), {.mode = 0666}, root, false));
        }
        write_and_sync("/old", 0, 64 << 10);
        write_and_sync("/punched", 0, 96 * bs);
        auto prealloc = open("/prealloc");
        if (format().extents) ok(prealloc->fallocate(0, 0, 600 * bs));
        else write(*prealloc, pattern(600 * bs, 99));
        auto mapped = open("/mapped");
        ok(mapped->truncate(64 * page));
        ok(mapped->sync(false));
        // A directory of nearly full blocks, and a large one.
        ok(fs->create(**fs->root(), "dir", S_IFDIR | 0777, 0, "", root, false));
        ok(fs->set_attributes(**fs->resolve("/dir", root), {.mode = 0777}, root, false));
        ok(fs->sync());
    }
    void fill_until(std::uint64_t free) {
        const std::uint64_t bs = format().block;
        auto fill = open("/fill");
        std::uint64_t at = 0;
        for (int turn = 0; turn < 200 && left() > free; ++turn) {
            const std::uint64_t want = left() - free > 40 ? left() - free - 20 : 1;
            const bool done = format().extents ? fill->fallocate(FALLOC_FL_KEEP_SIZE, at, want * bs, &who()).has_value()
                                               : fill->write(at, bytes_of(pattern(want * bs, 5)), &who()).has_value();
            if (!done) break;
            at += (want + 2) * bs;
            ok(fs->sync());
        }
    }
    void doors(std::mt19937_64& random);
    void store_everywhere();
    void names(int turn);

    unsigned seed = 0;
    std::map<std::string, File> files;
};

void Full::store_everywhere() {
    auto file = open("/mapped", O_RDWR, who());
    char* memory = map(*file, 64 * page);
    if (!memory) return;
    std::vector<bool> stored(64);
    for (std::size_t p = 0; p < 64; p += 3) {
        stored[p] = !refused([&] { memory[p * page + 7] = static_cast<char>(p + 1); });
        // A load is never refused.
        EXPECT_FALSE(refused([&] { (void)*static_cast<volatile char*>(memory + (p + 1) % 64 * page); }));
    }
    for (std::size_t p = 0; p < 64; p += 3)
        if (stored[p]) {
            EXPECT_EQ(memory[p * page + 7], static_cast<char>(p + 1));
        }
    auto synced = file->sync(false);
    EXPECT_TRUE(synced) << synced.error().what;
    for (std::size_t p = 0; synced && p < 64; p += 3) {
        const char byte = static_cast<char>(p + 1);
        if (stored[p]) note("/mapped", p * page + 7, 1, &byte);
    }
    unmap(memory, 64 * page);
}

void Full::names(int turn) {
    InodeRef dir = *fs->resolve("/dir", root);
    const std::string n = fmt::format("{}-{}", turn, std::string(200, 'n'));
    no_space_or_done(fs->create(*dir, n, S_IFREG | 0666, 0, "", who(), true), "create");
    no_space_or_done(fs->create(*dir, n + "d", S_IFDIR | 0777, 0, "", who(), true), "mkdir");
    no_space_or_done(fs->create(*dir, n + "s", S_IFLNK | 0777, 0, std::string(900, 't'), who(), true), "symlink");
    no_space_or_done(fs->link(*(*fs->resolve("/old", root)), *dir, n + "l", root, true), "link");
    no_space_or_done(fs->set_xattr(*(*fs->resolve("/old", root)), fmt::format("user.a{}", turn % 3),
                                   bytes_of(std::string(700, static_cast<char>('a' + turn))), 0, who(), true),
                     "setxattr");
    auto moved = fs->rename(*dir, n, *dir, n + "r", 0, who(), true);
    if (!moved) {
        EXPECT_TRUE(moved.error().code == ENOSPC || moved.error().code == ENOENT) << moved.error().what;
    }
}

void Full::doors(std::mt19937_64& random) {
    const std::uint64_t bs = format().block;
    const char* wanted = std::getenv("UEXT4_DOORS");
    const std::string tried = wanted ? wanted : "0 1 2 3 4 5 6 7 8 9 10 11 12";
    std::vector<int> list;
    for (std::istringstream in(tried); !in.eof();) in >> list.emplace_back();
    for (int turn = 0; turn < 40; ++turn) {
        const std::uint64_t block = random() % 400;
        const int door = list[random() % list.size()];
        SCOPED_TRACE(fmt::format("turn {}, door {}, block {}", turn, door, block));
        switch (door) {
            case 0: {
                const auto at = files["/append"].bytes.size();
                write_and_sync("/append", at, 3 * bs - 100);
                break;
            }
            case 1: write_and_sync("/sparse", block * 3 * bs, bs); break;
            case 2: write_and_sync("/direct", block * page * 2, page, O_DIRECT); break;
            case 3: store_everywhere(); break;
            // What has its blocks is never refused.
            case 4: EXPECT_EQ(write_and_sync("/old", block % 15 * page, page), page); break;
            case 5: EXPECT_EQ(write_and_sync("/old", block % 15 * page, page, O_DIRECT), page); break;
            case 6: EXPECT_EQ(write_and_sync("/prealloc", block * bs, bs), bs); break;
            case 7: {
                EXPECT_EQ(write_and_sync("/prealloc", block / 4 * 4 * bs, 4 * bs, O_DIRECT), 4 * bs);
                break;
            }
            case 8: {
                auto file = open("/punched", O_RDWR, who());
                unknown("/punched", block % 95 * bs, bs);
                no_space_or_done(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, block % 95 * bs, bs),
                                 "punch");
                break;
            }
            case 9: {
                auto file = open("/fallocated", O_RDWR, who());
                if (!format().extents) break;
                no_space_or_done(file->fallocate(FALLOC_FL_KEEP_SIZE, block * 3 * bs, 2 * bs), "fallocate");
                no_space_or_done(file->fallocate(FALLOC_FL_ZERO_RANGE, block * 3 * bs, bs), "zero range");
                break;
            }
            case 10: names(turn); break;
            case 11: {
                auto file = open("/old", O_RDWR, who());
                const std::uint64_t size = 61'500 + random() % 4000;
                auto& known = files["/old"].bytes;
                auto cut = file->truncate(size);
                EXPECT_TRUE(cut) << "truncate: " << cut.error().what;
                ok(file->sync(false));
                known.resize(size);
                // Blocks of the tree are promised as well, so even what was cut off need not be enough.
                auto again = file->write(size, bytes_of(std::string((64 << 10) - size, 'z')));
                no_space_or_done(again, "write behind a truncate");
                ok(file->sync(false));
                if (again) note("/old", size, *again, std::string(*again, 'z').data());
                break;
            }
            default: {
                if (!format().shifts) break;
                auto file = open("/punched", O_RDWR, who());
                const auto size = file->inode().size_hint();
                files.erase("/punched");
                if (size > 64 * bs)
                    no_space_or_done(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, 32 * bs, 16 * bs), "collapse");
                no_space_or_done(file->fallocate(FALLOC_FL_INSERT_RANGE, 16 * bs, 16 * bs), "insert");
            }
        }
        if (HasFailure()) return;
    }
}

TEST_P(Full, ThroughEveryDoor) {
    const bool all = std::getenv("UEXT4_LONG") != nullptr;
    const char* wanted = std::getenv("UEXT4_SEED");
    const unsigned first = wanted ? static_cast<unsigned>(std::atoi(wanted)) : 1;
    const unsigned rounds = all ? 40 : 1;
    for (unsigned round = 0; round < rounds; ++round)
        for (const std::uint64_t free : {0, 1, 2, 3, 5, 8, 16, 33, 64}) {
            if (!all && (free + first) % 3 != 0 && free != 0) continue;
            SCOPED_TRACE(fmt::format("{} free blocks, UEXT4_SEED={}", free, first + round));
            files.clear();
            seed = 0;
            make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
            prepare();
            fill_until(free);
            std::mt19937_64 random(first + round);
            doors(random);
            // The power is cut: what was acknowledged is there.
            std::shared_ptr<MemoryDevice> cut = durable();
            {
                auto recovered = FileSystem::mount_device(cut, {});
                ASSERT_TRUE(recovered) << recovered.error().what;
                check_contents(**recovered, "after the cut");
                ok((*recovered)->unmount());
            }
            // Space can always be given back.
            auto freed = fs->unlink(**fs->root(), "fill", root, false);
            EXPECT_TRUE(freed) << freed.error().what;
            check_contents(*fs, "now");
            settle();
            if (HasFailure()) return;
        }
}

// A direct write over blocks that there are and a hole for which there are none: a short count, and the same bytes in
// the cache, in maps and on the device.
TEST_P(Full, ADirectWriteThatEndsInAHoleIsSeenAlike) {
    make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    const std::string old = pattern(2 * page, 1), fresh = pattern(8 * page, 2);
    {
        auto cached = open("/f");
        ok(fs->set_attributes(cached->inode(), {.mode = 0666}, root, false));
        write(*cached, old);
        ok(cached->truncate(16 * page));
        ok(cached->sync(false));
        fill_until(0);
        auto fill = open("/fill");
        for (std::uint64_t at = std::uint64_t{1} << 30; fill->write(at, bytes_of(pattern(page, 5)), &who());
             at += page) {
        }
        ok(fs->sync());
        char* memory = map(*cached, 16 * page);
        EXPECT_EQ(read(*cached, 2 * page), old);
        if (memory) {
            EXPECT_EQ(std::string(memory, 2 * page), old);
        }
        auto direct = open("/f", O_RDWR | O_DIRECT, who());
        Aligned from(fresh), into(16 * page);
        auto n = direct->write(0, from.bytes());
        no_space_or_done(n, "direct write");
        if (!journaled()) {
            EXPECT_TRUE(n && *n >= old.size() && *n < fresh.size());
        }
        const std::size_t count = n ? *n : 0;
        const std::string expected = fresh.substr(0, count) + old.substr(std::min(count, old.size())) +
                                     std::string(16 * page - std::max(count, old.size()), 0);
        EXPECT_EQ(read(*cached, 16 * page), expected);
        if (memory) {
            EXPECT_EQ(std::string(memory, 16 * page), expected);
        }
        auto got = direct->read(0, into.bytes());
        EXPECT_TRUE(got && *got == 16 * page);
        EXPECT_EQ(into.text(16 * page), expected);
        if (memory) unmap(memory, 16 * page);
        ok(cached->sync(false));
    }
    settle();
}

// A range over a hole, and newer bytes in the cache than on the device: done or refused, all views are alike.
TEST_P(Full, ARefusedRangeIsSeenAlike) {
    for (const int mode_bits :
         {FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE}) {
        if (!format().extents && (mode_bits & FALLOC_FL_ZERO_RANGE)) continue;
        make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
        const std::string old = pattern(8 * page, 1), fresh = pattern(8 * page, 2);
        const std::uint64_t end = 12 * page + 2048;
        std::string seen;
        {
            auto cached = open("/f");
            ok(fs->set_attributes(cached->inode(), {.mode = 0666}, root, false));
            write(*cached, old, 8 * page);
            ok(cached->sync(false));
            fill_until(0);
            auto fill = open("/fill");
            for (std::uint64_t at = 1u << 30; fill->write(at, bytes_of(pattern(page, 5)), &who()); at += page) {
            }
            ok(fs->sync());
            auto mine = open("/f", O_RDWR, who());
            auto direct = open("/f", O_RDWR | O_DIRECT, who());
            write(*mine, fresh, 8 * page);
            const auto done = mine->fallocate(mode_bits, 0, end, &who());
            no_space_or_done(done, "range");
            seen = read(*cached, 16 * page);
            EXPECT_EQ(seen.substr(0, 8 * page), std::string(8 * page, 0));
            EXPECT_EQ(seen.substr(end), fresh.substr(end - 8 * page));
            EXPECT_EQ(seen.substr(8 * page, end - 8 * page),
                      done ? std::string(end - 8 * page, 0) : fresh.substr(0, end - 8 * page));
            Aligned into(16 * page);
            auto got = direct->read(0, into.bytes());
            EXPECT_TRUE(got && *got == 16 * page);
            EXPECT_EQ(into.text(16 * page), seen);
        }
        ok(fs->sync());
        ok(fs->unmount());
        mount(mode());
        {
            auto again = open("/f", O_RDONLY);
            EXPECT_EQ(read(*again, 16 * page), seen);
        }
        settle();
    }
}

// Scattered writes into space that was allocated, within the file or behind its end, while there is none for the tree
// that they would split: all of it gets there, by one fsync or by many, and the image is sound.
TEST_P(Full, WritesIntoAllocatedSpace) {
    if (!format().extents) return;
    struct Case {
        const char* name;
        int mode;
        bool backwards, one_sync, in_pieces;
    };
    constexpr Case cases[] = {{"within", 0, false, true, false},
                              {"behind", FALLOC_FL_KEEP_SIZE, false, true, false},
                              {"behind, a sync each", FALLOC_FL_KEEP_SIZE, false, false, false},
                              {"behind, backwards, a sync each", FALLOC_FL_KEEP_SIZE, true, false, false},
                              {"behind, in pieces", FALLOC_FL_KEEP_SIZE, false, true, true},
                              {"behind, in pieces, a sync each", FALLOC_FL_KEEP_SIZE, false, false, true}};
    for (const Case& c : cases) {
        // What is cut off there is less than the clusters that a promise for a hole wants for the tree.
        if (c.in_pieces && !format().shifts) continue;
        SCOPED_TRACE(c.name);
        make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
        std::string expected = pattern(page, 1);
        {
            auto file = open("/f");
            ok(fs->set_attributes(file->inode(), {.mode = 0666}, root, false));
            write(*file, expected);
            // Pieces that are no neighbours on the device: one after the other, another file between them.
            for (std::uint64_t at = 1, between = 0; at < 200; ++between) {
                const std::uint64_t n = c.in_pieces ? 49 : 200;
                ok(file->fallocate(c.mode, at * page, n * page));
                if (c.in_pieces) ok(open("/between")->fallocate(0, between * 16 * page, 16 * page));
                at += n + (c.in_pieces ? 1 : 0);
            }
            ok(fs->sync());
            fill_until(0);
            auto fill = open("/fill");
            for (std::uint64_t at = std::uint64_t{1} << 30; fill->write(at, bytes_of(pattern(page, 5)), &who());
                 at += page) {
            }
            ok(fs->sync());
            auto mine = open("/f", O_RDWR, who());
            for (std::uint64_t step = 0; step < 99; ++step) {
                const std::uint64_t i = 1 + 2 * (c.backwards ? 98 - step : step);
                if (c.in_pieces && i % 50 == 0) continue;
                const std::string bytes = pattern(page, static_cast<unsigned>(i));
                const auto n = mine->write(i * page, bytes_of(bytes), &who());
                EXPECT_EQ(code(n), 0) << i;
                EXPECT_EQ(n.value_or(0), page) << i;
                expected.resize(std::max<std::size_t>(expected.size(), (i + 1) * page));
                expected.replace(i * page, page, bytes);
                if (!c.one_sync) ok(mine->sync(false));
            }
            ok(mine->sync(false));
            if (c.mode == 0) expected.resize(201 * page);
            EXPECT_TRUE(read(*mine, expected.size() + 1) == expected);
            const std::shared_ptr<MemoryDevice> cut = durable();
            {
                auto recovered = FileSystem::mount_device(cut, {});
                ASSERT_TRUE(recovered) << recovered.error().what;
                auto again = (*recovered)->open_path("/f", O_RDONLY, 0, root);
                ok(again);
                EXPECT_TRUE(read(**again, expected.size() + 1) == expected) << "after a cut";
                again->reset();
                ok((*recovered)->unmount());
            }
            const std::string copy = fmt::format("/dev/shm/uext4-problems-{}", ::getpid());
            ok(cut->save(copy));
            const Said judged = say("e2fsck -fn " + copy);
            ::unlink(copy.c_str());
            EXPECT_EQ(judged.status, 0) << judged.text;
        }
        ok(fs->unmount());
        mount(mode());
        {
            auto again = open("/f", O_RDONLY);
            EXPECT_TRUE(read(*again, expected.size() + 1) == expected) << "after a new mount";
            // The rest of what was allocated goes by a cut to the size that it has.
            const auto blocks = [&] { return fs->attributes(again->inode())->st_blocks; };
            auto cutter = open("/f", O_RDWR);
            ok(cutter->truncate(expected.size()));
            EXPECT_LE(static_cast<std::uint64_t>(blocks()) * 512, round_up(expected.size(), 8192) + 8 * page);
        }
        settle();
    }
}

// The same in a range that was zeroed just now: a power cut leaves what was there before or zeros, and in data=journal
// all of it as before until the zeroing is durable.
TEST_P(Full, WritesIntoARangeThatWasZeroedJustNow) {
    if (!format().extents) return;
    make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    constexpr std::uint64_t pages = 200;
    const std::string before = pattern(pages * page, 3), zeros(page, 0);
    std::size_t synced = 0;
    {
        auto file = open("/f");
        write(*file, before);
        ok(fs->sync());
        fill_until(0);
        auto fill = open("/fill");
        for (std::uint64_t at = std::uint64_t{1} << 30; fill->write(at, bytes_of(pattern(page, 5))); at += page) {
        }
        ok(fs->sync());
        synced = recorder->log_size();
        no_space_or_done(file->fallocate(FALLOC_FL_ZERO_RANGE, 0, pages * page), "zero range");
        for (std::uint64_t i = 1; i < pages; i += 2)
            no_space_or_done(file->write(i * page, bytes_of(pattern(page, static_cast<unsigned>(i)))), "write");
        no_space_or_done(file->sync(false), "fsync");
    }
    const std::vector<RecordedWrite> log = recorder->log();
    const std::shared_ptr<MemoryDevice> so_far = initial->clone();
    for (std::size_t count = 0; count < log.size(); ++count) {
        ok(RecordingDevice::apply(log[count], *so_far));
        if (count < synced || log[count].data.empty() || (!journaled() && count % 8 != 0)) continue;
        SCOPED_TRACE(fmt::format("{} of {} requests", count + 1, log.size()));
        auto recovered = FileSystem::mount_device(std::shared_ptr<BlockDevice>(so_far->clone()), {});
        ASSERT_TRUE(recovered) << recovered.error().what;
        auto again = (*recovered)->open_path("/f", O_RDONLY, 0, root);
        ok(again);
        const std::string now = read(**again, pages * page + 1);
        ASSERT_EQ(now.size(), before.size());
        // Pages that nobody has written to behind the zeroing.
        std::size_t old = 0, zero = 0;
        for (std::uint64_t i = 0; i < pages; i += 2) {
            const std::string_view is = std::string_view(now).substr(i * page, page);
            old += is == std::string_view(before).substr(i * page, page);
            zero += is == zeros;
        }
        EXPECT_EQ(old + zero, pages / 2);
        EXPECT_TRUE(!journaled() || old == 0 || zero == 0) << old << " as before, " << zero << " zeroed";
        again->reset();
        ok((*recovered)->unmount());
        if (HasFailure()) break;
    }
    settle();
}

// fallocate behind the end, and a cut to the size that the file has.
TEST_P(Full, ACutToTheSameSizeGivesBackWhatIsBehindIt) {
    if (!format().extents) return;
    make(fmt::format("-N 256 {}", format().mke2fs), mode(), "12M");
    for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{page}, std::uint64_t{page + 100}}) {
        auto file = open(fmt::format("/f{}", size));
        if (size) write(*file, pattern(size, 1));
        ok(file->sync(false));
        const auto blocks = [&] { return fs->attributes(file->inode())->st_blocks; };
        const auto before = blocks();
        ok(file->fallocate(FALLOC_FL_KEEP_SIZE, 0, 300 * page));
        EXPECT_GT(blocks(), before);
        ok(file->truncate(size));
        EXPECT_LE(static_cast<std::uint64_t>(blocks()) * 512, round_up(size, 8192));
        EXPECT_EQ(read(*file, size + 1), size ? pattern(size, 1) : "");
    }
    settle();
}

constexpr Format formats[] = {{"k4", "-b 4096 -J size=4", 4096, true, true},
                              {"k1", "-b 1024 -J size=1", 1024, true, true},
                              {"inlined", "-b 4096 -J size=4 -I 256 -O inline_data", 4096, true, true},
                              {"indirect", "-b 1024 -J size=1 -O ^extents,^64bit", 1024, false, false},
                              {"bigalloc", "-b 1024 -J size=1 -O bigalloc -C 8192", 1024, true, false}};

// The tree's root is full, so that the split of an extent wants a block: once there is none, and once there is after a
// commit. Nothing moves for the first try.
TEST_P(Full, AnInsertedRangeMovesTheFileOnceOrNotAtAll) {
    if (!format().shifts) return;
    make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    const std::uint64_t bs = format().block, pieces = 4, piece = 4 * bs, size = (8 * (pieces - 1) + 4) * bs;
    for (const char* path : {"/f", "/spare"}) {
        auto file = open(path);
        ok(fs->set_attributes(file->inode(), {.mode = 0666}, root, false));
    }
    std::string bytes(size, '\0');
    for (std::uint64_t k = 0; k < pieces; ++k) {
        write_and_sync("/f", 8 * k * bs, piece);
        for (std::uint64_t i = 8 * k * bs; i < 8 * k * bs + piece; ++i)
            bytes[i] = static_cast<char>(files["/f"].bytes[i]);
    }
    write_and_sync("/spare", 0, 64 * bs);
    fill_until(0);
    // What is promised to directories and trees is taken as well.
    for (int i = 0; i < 2000; ++i)
        if (!fs->create(**fs->root(), fmt::format("d{}", i), S_IFDIR | 0777, 0, "", who(), false)) break;
    ok(fs->sync());
    auto file = open("/f", O_RDWR, who());
    const auto refused = file->fallocate(FALLOC_FL_INSERT_RANGE, 2 * bs, bs, &who());
    struct stat now{};
    file->inode().fill_stat(now);
    if (refused) {
        bytes.insert(2 * bs, bs, '\0');
    } else {
        EXPECT_EQ(refused.error().code, ENOSPC);
    }
    EXPECT_EQ(static_cast<std::uint64_t>(now.st_size), bytes.size());
    EXPECT_TRUE(read(*file, bytes.size() + bs) == bytes);
    ok(fs->unlink(**fs->root(), "spare", root, false));
    ok(file->fallocate(FALLOC_FL_INSERT_RANGE, 2 * bs, bs, &who()));
    bytes.insert(2 * bs, bs, '\0');
    file->inode().fill_stat(now);
    EXPECT_EQ(static_cast<std::uint64_t>(now.st_size), bytes.size());
    EXPECT_TRUE(read(*file, bytes.size() + bs) == bytes);
    file.reset();
    settle();
}

// A cluster stays while one of its blocks is in the file. What is cut off next to it and allocated again gets zeros
// where there is no block to split an extent: neither an older copy in the log comes back over them, nor do they show
// where a power cut undoes the cut.
TEST_P(Full, BlocksCutOutOfAClusterThatStaysReadAsZerosWhenTheyAreBack) {
    if (format().shifts || !format().extents) return;
    const std::uint64_t bs = format().block;
    for (const bool syncs : {true, false}) {
        SCOPED_TRACE(syncs ? "a sync after each" : "one sync at the end");
        make(fmt::format("-N 64 -m 0 {}", format().mke2fs), mode(), "10M");
        const std::string old(8 * bs, 'R'), fresh(bs, 'W');
        auto file = open("/f");
        ok(fs->set_attributes(file->inode(), {.mode = 0666}, root, false));
        write(*file, old);
        ok(file->sync(false));
        // Extents, so that one in three pieces makes the root too small for all.
        for (std::uint64_t k = 1; k < 3; ++k) {
            write(*file, fresh, 2 * k * 8 * bs);
            ok(file->sync(false));
        }
        const std::uint64_t size = 4 * 8 * bs + bs;
        fill_until(0);
        for (int i = 0; i < 2000; ++i)
            if (!fs->create(**fs->root(), fmt::format("d{}", i), S_IFDIR | 0777, 0, "", who(), false)) break;
        ok(fs->sync());
        write(*file, old);  // journaled, and not home yet
        ok(file->sync(false));
        const std::size_t begun = recorder->log().size();
        ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, bs, 7 * bs));
        if (syncs) ok(file->sync(false));
        ok(file->fallocate(FALLOC_FL_KEEP_SIZE, 2 * bs, 6 * bs));
        if (syncs) ok(file->sync(false));
        auto written = file->write(4 * bs, bytes_of(fresh), &who());
        no_space_or_done(written, "write");
        std::string expected = std::string(bs, 'R') + std::string(7 * bs, '\0');
        if (written) expected.replace(4 * bs, bs, fresh);
        EXPECT_TRUE(read(*file, 8 * bs) == expected);
        ok(file->sync(false));
        EXPECT_TRUE(read(*file, 8 * bs) == expected) << "after a sync";
        if (journaled()) {
            // Whatever was written: the operations one by one, each whole.
            const std::string punched = std::string(bs, 'R') + std::string(7 * bs, '\0');
            const std::vector<RecordedWrite> log = recorder->log();
            for (std::size_t n = begun; n <= log.size(); ++n) {
                std::shared_ptr<MemoryDevice> cut = initial->clone();
                for (std::size_t i = 0; i < n; ++i) ok(RecordingDevice::apply(log[i], *cut));
                auto recovered = FileSystem::mount_device(cut, {});
                ASSERT_TRUE(recovered) << recovered.error().what;
                auto again = (*recovered)->open_path("/f", O_RDONLY, 0, root);
                ok(again);
                const std::string is = read(**again, 8 * bs);
                EXPECT_TRUE(is == old || is == punched || is == expected) << n << " of " << log.size();
                again->reset();
                ok((*recovered)->unmount());
            }
        }
        file.reset();
        ok(fs->unmount());
        mount(mode());
        EXPECT_TRUE(read(*open("/f", O_RDONLY), 8 * bs) == expected) << "after a new mount";
        EXPECT_EQ(read(*open("/f", O_RDONLY), size).size(), size);
        settle();
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, Full,
                         testing::Combine(testing::ValuesIn(formats), testing::Values("data=ordered", "data=journal"),
                                          testing::Bool()),
                         [](const auto& p) {
                             return fmt::format("{}_{}_{}", std::get<0>(p.param).name, std::get<1>(p.param) + 5,
                                                std::get<2>(p.param) ? "root" : "user");
                         });

}  // namespace
}  // namespace uext4::problems

// Problem I and more: 0 to 64 free blocks, and everything that may want one. What was acknowledged is there, what is
// refused is refused with ENOSPC (SIGBUS in a map, for that store alone), and what needs no space goes on.
#include "full_image.h"

#include <algorithm>
#include <map>
#include <random>
#include <sstream>

namespace uext4::problems {
namespace {

class Full : public FullImage {
protected:
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
    void doors(std::mt19937_64& random);
    void store_everywhere();
    void names(int turn);
    int taken_stores = 0, refused_stores = 0;
};

void Full::store_everywhere() {
    auto file = open("/mapped", O_RDWR, who());
    char* memory = map(*file, 64 * page);
    if (!memory) return;
    std::vector<bool> stored(64);
    for (std::size_t p = 0; p < 64; p += 3) {
        stored[p] = !refused([&] { memory[p * page + 7] = static_cast<char>(p + 1); });
        ++(stored[p] ? taken_stores : refused_stores);
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
    // Each of them, as often.
    std::vector<int> order;
    while (order.size() < 40) order.insert(order.end(), list.begin(), list.end());
    std::ranges::shuffle(order, random);
    int turn = 0;
    for (const int door : order) {
        ++turn;
        const std::uint64_t block = random() % 400;
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
            // None, a few, and enough for some: one of each by turns.
            if (!all && free != 0 &&
                free != (free < 4    ? 1 + first % 3
                         : free < 33 ? 5 + 3 * (first % 2)
                                     : 33 + 31 * (first % 2)))
                continue;
            SCOPED_TRACE(fmt::format("{} free blocks, UEXT4_SEED={}", free, first + round));
            files.clear();
            seed = 0;
            make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
            prepare();
            fill_until(free);
            std::mt19937_64 random((first + round) * 100 + free);
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
    EXPECT_GT(refused_stores, 0);
    EXPECT_GT(taken_stores, 0);
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
        fill_the_rest(who());
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

INSTANTIATE_TEST_SUITE_P(Formats, Full, every_full_image(), name_of);

}  // namespace
}  // namespace uext4::problems

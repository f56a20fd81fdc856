// Ranges on a full image: what fallocate made, zeroed, moved or cut out keeps its bytes where there is no block for the
// tree, at any cut, and shows nobody else's.
#include "full_image.h"

#include <algorithm>

namespace uext4::problems {
namespace {

class FullRanges : public FullImage {};
class FullShiftedRanges : public FullImage {};
class FullClusters : public FullImage {};
class FullByRoot : public FullImage {};

// Scattered writes into space that was allocated, within the file or behind its end, while there is none for the tree
// that they would split: all of it gets there, by one fsync or by many, and the image is sound.
TEST_P(FullRanges, WritesIntoAllocatedSpace) {
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
            fill_the_rest(who());
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
            EXPECT_TRUE(recovered_bytes(cut, expected.size() + 1) == expected) << "after a cut";
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

// The block in which such a file ends is kept aside, where there is another: that takes no space from those before it.
TEST_P(FullRanges, AnEndThatIsKeptAsideTakesNothingFromOthers) {
    // With the first block they are as many extents as the inode holds.
    constexpr std::uint64_t count = 3, piece = 40, apart = 48, taken = 10;
    const std::uint64_t bs = format().block, unit = format().shifts ? bs : 2 * page;  // a cluster, where there are some
    for (std::uint64_t free = 0; free <= 8; ++free) {
        SCOPED_TRACE(free);
        make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
        std::string expected = pattern(200, 1);
        {
            auto file = open("/f");
            ok(fs->set_attributes(file->inode(), {.mode = 0666}, root, false));
            // It has ended within a block and grown.
            write(*file, expected.substr(0, 100));
            ok(file->sync(false));
            write(*file, expected.substr(100), 100);
            ok(file->sync(false));
            // Pieces that are no neighbours, neither in the file nor on the device.
            for (std::uint64_t i = 0; i < count; ++i) {
                ok(file->fallocate(FALLOC_FL_KEEP_SIZE, (1 + i) * apart * bs, piece * bs));
                ok(open("/between")->fallocate(0, i * apart * bs, apart * bs));
            }
            write(*open("/spare"), pattern(8 * unit, 2));
            ok(fs->sync());
            fill_until(0);
            fill_the_rest(who());
            ok(open("/spare", O_RDWR)->truncate((8 - free) * unit));
            ok(fs->sync());
            ASSERT_GE(left(), free * unit / bs);
            auto mine = open("/f", O_RDWR, who());
            for (std::uint64_t i = 0; i < count; ++i) {
                const std::uint64_t at = (1 + i) * apart * bs;
                const std::string bytes = pattern(taken * bs - bs / 2, static_cast<unsigned>(i));
                const auto n = mine->write(at, bytes_of(bytes), &who());
                ASSERT_EQ(code(n), 0) << i << ": " << n.error().what;
                EXPECT_EQ(*n, bytes.size()) << i;
                expected.resize(at);
                expected += bytes;
                ok(mine->sync(false));
            }
            EXPECT_TRUE(read(*mine, expected.size() + 1) == expected);
            EXPECT_TRUE(recovered_bytes(durable(), expected.size() + 1) == expected) << "after a cut";
        }
        settle();
    }
}

// A direct write into space that was allocated, which goes on into a hole that there is no block for. Looking for one,
// it writes back what else is dirty there, and the extent is converted as a whole: with what the write has put into it.
TEST_P(FullRanges, ADirectWriteThatFindsNoSpaceKeepsWhatIsThere) {
    make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    constexpr std::uint64_t unit = 2 * page;  // a cluster, where there are some
    std::string expected(64 * unit, '\0');
    const auto put = [&](std::uint64_t at, const std::string& bytes) { expected.replace(at, bytes.size(), bytes); };
    {
        // The root of the tree is full: three extents, and what is allocated.
        auto file = open("/f");
        ok(fs->set_attributes(file->inode(), {.mode = 0666}, root, false));
        for (unsigned k = 0; k < 3; ++k) {
            put(4 * k * unit, pattern(unit, k));
            write(*file, pattern(unit, k), 4 * k * unit);
            ok(file->sync(false));
        }
        ok(file->fallocate(0, 16 * unit, 16 * unit));
        ok(file->truncate(expected.size()));
        ok(file->sync(false));
        fill_until(0);
        fill_the_rest(who());
        auto cached = open("/f", O_RDWR, who()), direct = open("/f", O_RDWR | O_DIRECT, who());
        const std::string other = pattern(page, 8), bytes = pattern(16 * unit, 9);
        write(*cached, other, 16 * unit);
        put(16 * unit, other);
        Aligned from(bytes);
        const auto n = direct->write(24 * unit, from.bytes());
        ok(n);
        if (!journaled()) {
            EXPECT_EQ(n.value_or(0), 8 * unit) << "there is space beyond what was allocated";
        }
        put(24 * unit, bytes.substr(0, n.value_or(0)));
        EXPECT_TRUE(read(*cached, expected.size() + 1) == expected);
        ok(cached->sync(false));
        EXPECT_TRUE(recovered_bytes(durable(), expected.size() + 1) == expected) << "after a cut";
    }
    settle();
}

// Scattered writes in a range that was zeroed just now: a power cut leaves what was there before or zeros, and in
// data=journal all of it as before until the zeroing is durable.
TEST_P(FullRanges, WritesIntoARangeThatWasZeroedJustNow) {
    make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    constexpr std::uint64_t pages = 200;
    const std::string before = pattern(pages * page, 3), zeros(page, 0);
    std::size_t synced = 0;
    {
        auto file = open("/f");
        write(*file, before);
        ok(fs->sync());
        fill_until(0);
        fill_the_rest(root);
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

// What the log has of a block that was zeroed since does not go home any more: where the extent around a write cannot
// be split, the zeros beside it are written in their place.
TEST_P(FullRanges, WhatWasZeroedDoesNotComeBackFromTheLog) {
    make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    constexpr std::uint64_t pages = 64;
    std::string wanted(pages * page, 0);
    {
        auto file = open("/f");
        write(*file, pattern(pages * page, 1));
        ok(fs->sync());
        fill_until(0);
        fill_the_rest(root);
        write(*file, pattern(pages * page, 3));
        ok(fs->sync());
        ok(file->fallocate(FALLOC_FL_ZERO_RANGE, 0, pages * page));
        ok(fs->sync());
        for (std::uint64_t i = 1; i < pages; i += 2) {
            const std::string bytes = pattern(page, static_cast<unsigned>(i));
            write(*file, bytes, i * page);
            wanted.replace(i * page, page, bytes);
        }
        ok(file->sync(false));
        EXPECT_TRUE(read(*file, pages * page + 1) == wanted);
        EXPECT_TRUE(recovered_bytes(durable(), pages * page + 1) == wanted) << "after a cut";
    }
    ok(fs->unmount());
    mount(mode());
    EXPECT_TRUE(read(*open("/f"), pages * page + 1) == wanted) << "after a new mount";
    settle();
}

// fallocate behind the end, and a cut to the size that the file has.
TEST_P(FullRanges, ACutToTheSameSizeGivesBackWhatIsBehindIt) {
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

// Each punch within an extent makes the tree larger by an entry. What the ones before it have freed can be had after a
// commit, and pays for the blocks of the tree.
TEST_P(FullByRoot, PunchesOfAFullImageFreeWhatTheyPunch) {
    make(fmt::format("-N 64 -m 0 {}", format().mke2fs), mode(), "12M");
    const std::uint64_t piece = std::max<std::uint64_t>(format().block, format().shifts ? 0 : 8192);
    auto file = open("/f");
    std::uint64_t size = 0;
    while (file->write(size, bytes_of(pattern(piece, 1)))) size += piece;
    ok(file->sync(false));
    fill_the_rest(root);
    const auto blocks = [&] { return static_cast<std::uint64_t>(fs->attributes(file->inode())->st_blocks); };
    std::string expected = read(*file, size);
    unsigned punches = 0, kept = 0;
    for (std::uint64_t at = piece; at + 2 * piece < size && punches < 600; at += 2 * piece, ++punches) {
        const std::uint64_t before = blocks();
        ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, piece));
        expected.replace(at, piece, piece, '\0');
        kept += blocks() >= before;
    }
    EXPECT_TRUE(read(*file, size) == expected);
    // One that needs a block for the tree as well frees no more than it takes.
    EXPECT_GT(punches, 300u);
    EXPECT_LT(kept, 20u);
    file.reset();
    ok(fs->unmount());
    mount(mode());
    EXPECT_TRUE(read(*open("/f", O_RDONLY), size) == expected) << "after a new mount";
    settle();
}

// The tree's root is full, so that the split of an extent wants a block, which may be one of those reserved for root,
// whoever asks: once there are only these, once there is none, and once there is one after a commit. Nothing moves for
// who is refused.
TEST_P(FullShiftedRanges, AnInsertedRangeMovesTheFileOnceOrNotAtAll) {
    make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    const std::uint64_t bs = format().block, pieces = 4, piece = 4 * bs, size = (8 * (pieces - 1) + 4) * bs;
    for (const char* path : {"/f", "/g", "/spare"}) {
        auto file = open(path);
        ok(fs->set_attributes(file->inode(), {.mode = 0666}, root, false));
    }
    std::map<std::string, std::string> holds;
    for (const char* path : {"/f", "/g"}) {
        std::string& bytes = holds[path] = std::string(size, '\0');
        for (std::uint64_t k = 0; k < pieces; ++k) {
            write_and_sync(path, 8 * k * bs, piece);
            for (std::uint64_t i = 8 * k * bs; i < 8 * k * bs + piece; ++i)
                bytes[i] = static_cast<char>(files[path].bytes[i]);
        }
    }
    write_and_sync("/spare", 0, 64 * bs);
    const auto insert = [&](OpenFile& file, const Credentials& by) {
        return file.fallocate(FALLOC_FL_INSERT_RANGE, 2 * bs, bs, &by);
    };
    const auto expect_bytes = [&](OpenFile& file, const std::string& bytes) {
        struct stat now{};
        file.inode().fill_stat(now);
        EXPECT_EQ(static_cast<std::uint64_t>(now.st_size), bytes.size());
        EXPECT_TRUE(read(file, bytes.size() + bs) == bytes);
    };
    fill_until(0);
    // What is promised to directories and trees is taken as well.
    const auto take_promised = [&](const Credentials& by, char letter) {
        const std::string target(900, 't');  // too long for an inode, as directories may not be
        for (int i = 0; i < 2000; ++i)
            if (!fs->create(**fs->root(), fmt::format("{}{}", letter, i), S_IFLNK | 0777, 0, target, by, false)) break;
        ok(fs->sync());
    };
    take_promised(who(), 'l');
    EXPECT_EQ(fs->volume().counts().available_blocks, 0u);
    if (!privileged()) {
        EXPECT_GT(fs->volume().counts().free_blocks, 0u);
        auto file = open("/g", O_RDWR, user);
        ok(insert(*file, user));
        expect_bytes(*file, holds["/g"].insert(2 * bs, bs, '\0'));
        fill_the_rest(root);
        take_promised(root, 'r');
    }
    EXPECT_EQ(fs->volume().counts().free_blocks, 0u);
    auto file = open("/f", O_RDWR, who());
    std::string& bytes = holds["/f"];
    for (const Credentials* by : {&root, &user}) {
        SCOPED_TRACE(by == &root ? "by root" : "by a user");
        const auto refused = insert(*file, *by);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ENOSPC) << refused.error().what;
        expect_bytes(*file, bytes);
    }
    ok(fs->unlink(**fs->root(), "spare", root, false));
    ok(insert(*file, who()));
    expect_bytes(*file, bytes.insert(2 * bs, bs, '\0'));
    file.reset();
    ok(fs->unmount());
    mount(mode());
    for (const auto& [path, contents] : holds) {
        SCOPED_TRACE(path + " after a new mount");
        auto again = open(path, O_RDONLY);
        expect_bytes(*again, contents);
    }
    settle();
}

// A cluster stays while one of its blocks is in the file. What is cut off next to it and allocated again gets zeros
// where there is no block to split an extent: neither an older copy in the log comes back over them, nor do they show
// where a power cut undoes the cut.
TEST_P(FullClusters, BlocksCutOutOfAClusterThatStaysReadAsZerosWhenTheyAreBack) {
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

constexpr auto has_extents = [](const Format& format, bool) { return format.extents; };
constexpr auto has_shifts = [](const Format& format, bool) { return format.shifts; };
constexpr auto has_clusters = [](const Format& format, bool) { return format.extents && !format.shifts; };
constexpr auto has_extents_and_is_root = [](const Format& format, bool root) { return format.extents && root; };
INSTANTIATE_TEST_SUITE_P(Formats, FullRanges, full_images(has_extents), name_of);
INSTANTIATE_TEST_SUITE_P(Formats, FullShiftedRanges, full_images(has_shifts), name_of);
INSTANTIATE_TEST_SUITE_P(Formats, FullClusters, full_images(has_clusters), name_of);
INSTANTIATE_TEST_SUITE_P(Formats, FullByRoot, full_images(has_extents_and_is_root), name_of);

}  // namespace
}  // namespace uext4::problems

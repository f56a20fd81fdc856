// Problem I and more: 0 to 64 free blocks, and everything that may want one. What was acknowledged is there, what is
// refused is refused with ENOSPC (SIGBUS in a map, for that store alone), and what needs no space goes on.
#include "doors.h"

#include <algorithm>
#include <thread>

namespace uext4::problems {
namespace {

class FullInodes : public FullImage {};

class Full : public FullImage {
protected:
    void make_small(std::uint64_t free, unsigned now) {
        tried_ = fmt::format("{} free blocks, UEXT4_SEED={}", free, now);
        make(fmt::format("-N 512 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    }

    // None: not for root either.
    void leave(std::uint64_t free) {
        fill_until(free);
        if (free == 0) fill_the_rest(root);
    }
    // The power is cut: what was acknowledged is there.
    void check_after_a_cut(std::vector<Doors>& all) {
        std::shared_ptr<MemoryDevice> cut = durable();
        auto recovered = FileSystem::mount_device(cut, {});
        ASSERT_TRUE(recovered) << recovered.error().what;
        for (Doors& doors : all) doors.check(**recovered, "after a cut");
        ok((*recovered)->unmount());
    }
    // Each by a thread of its own.
    void pass(std::vector<Doors>& all, unsigned turns) const {
        std::vector<std::thread> crowd;
        for (Doors& doors : all)
            crowd.emplace_back([this, &doors, turns] {
                SCOPED_TRACE(tried_);
                doors.pass(turns);
            });
        for (std::thread& thread : crowd) thread.join();
    }
    // Space can always be given back, and then nobody is refused any more.
    void end(std::vector<Doors>& all) {
        auto freed = fs->unlink(**fs->root(), "fill", root, false);
        EXPECT_TRUE(freed) << freed.error().what;
        for (Doors& doors : all) doors.space_is_back();
        pass(all, 20);
        // Whoever is refused has everything written back, and here nobody was: it is the doors themselves that did.
        check_after_a_cut(all);
        for (Doors& doors : all) {
            doors.check(*fs, "now");
            doors.leave_maps();
        }
        settle();
        if (HasFailure()) return;
        mount(mode());
        for (Doors& doors : all) doors.check(*fs, "after a new mount");
        ok(fs->unmount());
        fs.reset();
    }
    // None, a few, and enough for some: in the ways of the formats, and by turns, all of them.
    std::vector<std::uint64_t> free_blocks(unsigned turn) const {
        if (long_run()) return all_free_blocks;
        const unsigned at = format_index() + way_index() + turn;
        return {0, all_free_blocks[1 + at % 3], all_free_blocks[4 + at % 5]};
    }
    const std::vector<std::uint64_t> all_free_blocks = {0, 1, 2, 3, 5, 8, 16, 33, 64};
    std::string tried_;
};

TEST_P(Full, ThroughEveryDoor) {
    const unsigned first = first_seed(), rounds = long_run() ? 10 : 1;
    int taken = 0, refused = 0;
    for (unsigned round = 0; round < rounds; ++round)
        for (const std::uint64_t free : free_blocks(first)) {
            make_small(free, first + round);
            SCOPED_TRACE(tried_);
            std::vector<Doors> all;
            Doors& doors =
                all.emplace_back(*this, "/own", Doors::Sizes{}, static_cast<unsigned>((first + round) * 100 + free));
            doors.prepare();
            leave(free);
            // In the middle as well: a later commit may bring what an earlier fsync has left out.
            for (int half = 0; half < 2 && !HasFailure(); ++half) {
                pass(all, 20);
                check_after_a_cut(all);
            }
            end(all);
            taken += doors.taken_stores();
            refused += doors.refused_stores();
            if (HasFailure()) return;
        }
    EXPECT_GT(refused, 0);
    EXPECT_GT(taken, 0);
}

// Who comes at the same time gets what is there, and no one what another was promised.
TEST_P(Full, ThroughEveryDoorAtOnce) {
    const unsigned first = first_seed(), rounds = long_run() ? 4 : 1;
    constexpr unsigned threads = 4;
    constexpr Doors::Sizes sizes_of_each{.blocks = 40, .pages = 24, .in_pieces = 1};
    // One of them, and another in each way of a format.
    const std::vector<std::uint64_t> one = {all_free_blocks[(4 * format_index() + way_index() + first) % 9]};
    for (unsigned round = 0; round < rounds; ++round)
        for (const std::uint64_t free : long_run() ? all_free_blocks : one) {
            make_small(free, first + round);
            SCOPED_TRACE(tried_);
            std::vector<Doors> all;
            for (unsigned t = 0; t < threads; ++t) {
                const auto random = static_cast<unsigned>(((first + round) * 100 + free) * threads + t);
                all.emplace_back(*this, fmt::format("/{}", t), sizes_of_each, random, t);
                all.back().prepare();
            }
            leave(free);
            pass(all, 40);
            check_after_a_cut(all);
            end(all);
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

// What is written to an inode and not stored in it yet has its room there all the same: an attribute that comes then
// goes to a block, or is refused.
TEST_P(FullInodes, AnAttributeLeavesTheRoomOfWhatIsWritten) {
    constexpr std::size_t count = 20, size = 100;
    make(fmt::format("-N 256 -m {} {}", privileged() ? 0 : 3, format().mke2fs), mode(), "12M");
    const auto path = [](std::size_t i) { return fmt::format("/f{}", i); };
    const auto contents = [](std::size_t i) { return pattern(size, static_cast<unsigned>(i)); };
    const auto value = [](std::size_t i) { return pattern(4 * i + 1, static_cast<unsigned>(100 + i)); };
    std::vector<bool> done(count);
    for (std::size_t i = 0; i < count; ++i) ok(fs->set_attributes(open(path(i))->inode(), {.mode = 0666}, root, false));
    fill_until(0);
    fill_the_rest(root);
    for (std::size_t i = 0; i < count; ++i) {
        SCOPED_TRACE(fmt::format("a value of {} bytes", value(i).size()));
        auto file = open(path(i), O_RDWR, who());
        write(*file, contents(i));
        const auto set = fs->set_xattr(file->inode(), "user.a", bytes_of(value(i)), 0, who(), true);
        no_space_or_done(set, "setxattr");
        done[i] = set.has_value();
        EXPECT_TRUE(read(*file, size + 1) == contents(i));
        ok(file->sync(false));
    }
    EXPECT_TRUE(std::ranges::count(done, true) != 0);
    EXPECT_TRUE(std::ranges::count(done, false) != 0);
    std::shared_ptr<MemoryDevice> cut = durable();
    auto recovered = FileSystem::mount_device(cut, {});
    ASSERT_TRUE(recovered) << recovered.error().what;
    for (std::size_t i = 0; i < count; ++i) {
        SCOPED_TRACE(fmt::format("a value of {} bytes, after a cut", value(i).size()));
        auto file = (*recovered)->open_path(path(i), O_RDONLY, 0, root);
        ASSERT_TRUE(file) << file.error().what;
        EXPECT_TRUE(read(**file, size + 1) == contents(i));
        const auto found = (*recovered)->find_xattr((*file)->inode(), "user.a", root, false);
        ASSERT_TRUE(found) << found.error().what;
        EXPECT_EQ(found->has_value(), done[i]);
        EXPECT_TRUE(!*found || std::ranges::equal(**found, bytes_of(value(i))));
    }
    ok((*recovered)->unmount());
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, Full, every_full_image(), name_of);
INSTANTIATE_TEST_SUITE_P(Formats, FullInodes, full_images([](const Format& format, bool) { return format.inlined; }),
                         name_of);

}  // namespace
}  // namespace uext4::problems

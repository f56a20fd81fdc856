// Space that was given up is free: at once by statfs, and soon enough for whoever wants it. As long as what is alive
// fits, nobody is told ENOSPC because a deletion, a writeback or a commit is on its way.
#include "settled_image.h"

#include <atomic>

namespace uext4::problems {
namespace {

class SpaceComesBack : public SettledImage,
                       public testing::WithParamInterface<std::tuple<const char*, const char*, bool>> {
protected:
    std::string mode() const { return std::get<1>(GetParam()); }
    bool background() const { return std::get<2>(GetParam()); }
    void SetUp() override {
        make(std::get<0>(GetParam()), mode(), "12M");
        ok(fs->unmount());
        fs.reset();
        mount(mode(), background());
    }
    std::uint64_t block() const { return fs->volume().geometry().block_size; }
    std::uint64_t left() {
        auto told = fs->statistics();
        ok(told);
        return told->f_bfree;
    }
    void leave(std::uint64_t blocks) {
        auto fill = open("/fill");
        for (std::uint64_t at = 0; left() > blocks;) {
            const std::uint64_t want = left() - blocks > 64 ? left() - blocks - 32 : 1;
            write(*fill, pattern(want * block(), 5), at);
            at += want * block();
            ok(fs->sync());
        }
    }
    void remove(const std::string& name) { ok(fs->unlink(**fs->root(), name, root, false)); }
};

TEST_P(SpaceComesBack, StatfsCountsItAtOnce) {
    write(*open("/kept"), pattern(3 * block(), 1));
    ok(fs->sync());
    const std::uint64_t before = left();
    for (const bool synced : {true, false}) {
        write(*open("/f"), pattern(200 * block(), 2));
        if (synced) ok(fs->sync());
        EXPECT_LE(left(), before - 200);
        remove("f");
        EXPECT_EQ(left(), before) << (synced ? "named" : "promised");
        // Neither the deletion nor its commit shows.
        fs->volume().wait_for_deletions();
        EXPECT_EQ(left(), before);
        ok(fs->sync());
        EXPECT_EQ(left(), before);
    }
    auto shrunk = open("/kept");
    ok(shrunk->truncate(0));
    EXPECT_EQ(left(), before + 3);
    shrunk.reset();
    settle();
}

TEST_P(SpaceComesBack, AWriteTakesAllThatWasFreed) {
    leave(100);
    for (int turn = 0; turn < 10; ++turn) {
        const std::string name = fmt::format("f{}", turn % 2);
        auto file = open("/" + name);
        const std::string bytes = pattern(80 * block(), static_cast<unsigned>(turn));
        auto n = file->write(0, bytes_of(bytes));
        ASSERT_TRUE(n) << turn << ": " << n.error().what;
        EXPECT_EQ(*n, bytes.size()) << turn;
        EXPECT_EQ(read(*file, bytes.size()), bytes);
        if (turn % 3 == 0) ok(file->sync(false));
        file.reset();
        remove(name);
    }
    settle();
}

TEST_P(SpaceComesBack, FourThreadsThatFillAndEmptyMeetNoEnd) {
    leave(300);
    constexpr unsigned threads = 4, turns = 25;
    std::atomic<unsigned> refused{0}, cut_short{0};
    {
        std::vector<std::thread> all;
        for (unsigned t = 0; t < threads; ++t)
            all.emplace_back([&, t] {
                const InodeRef top = *fs->root();
                for (unsigned turn = 0; turn < turns; ++turn) {
                    const std::string name = fmt::format("t{}", t);
                    // 55 blocks each: with their trees they are far from 300.
                    const std::string bytes = pattern(11 * block(), turn);
                    auto file = fs->open_path("/" + name, O_CREAT | O_RDWR, 0644, root);
                    if (!file) {
                        refused += file.error().code == ENOSPC;
                        continue;
                    }
                    for (unsigned piece = 0; piece < 5; ++piece) {
                        auto n = (*file)->write(piece * bytes.size(), bytes_of(bytes));
                        if (!n) ++refused;
                        else if (*n != bytes.size()) ++cut_short;
                    }
                    if (turn % 4 == t) ok((*file)->sync(false));
                    file->reset();
                    ok(fs->unlink(*top, name, root, false));
                }
            });
        for (std::thread& thread : all) thread.join();
    }
    EXPECT_EQ(refused.load(), 0u);
    EXPECT_EQ(cut_short.load(), 0u);
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, SpaceComesBack,
                         testing::Combine(testing::Values("-b 4096 -m 0 -J size=4", "-b 1024 -m 0 -J size=1",
                                                          "-b 1024 -m 0 -J size=1 -O ^extents,^64bit"),
                                          testing::Values("data=ordered", "data=journal"), testing::Bool()));
INSTANTIATE_TEST_SUITE_P(WithoutJournal, SpaceComesBack,
                         testing::Combine(testing::Values("-b 1024 -m 0 -O ^has_journal"), testing::Values(""),
                                          testing::Bool()));

}  // namespace
}  // namespace uext4::problems

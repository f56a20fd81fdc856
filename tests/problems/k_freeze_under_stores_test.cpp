// Problem K: a freeze stops stores through maps as it stops writes and changes of names: nothing of the image and no
// byte of a file changes until the thaw, loads and reads go on, and the thaw lets everybody go on (P11).
#include "settled_image.h"

#include <atomic>
#include <thread>

namespace uext4::problems::k_freeze_under_stores_test {
namespace {

constexpr std::size_t pages = 32;

class Freeze : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    void SetUp() override { make(std::get<0>(GetParam()), std::string(std::get<1>(GetParam())) + ",noatime"); }
    // A host that copies the frozen device has a file system that needs no replay.
    void judge_frozen_copy() {
        const std::shared_ptr<MemoryDevice> copy = memory->clone();
        ASSERT_TRUE(copy->save(scratch_));
        // A file that lost its last name in the moment of the freeze waits on the orphan list.
        const Said orphans = say("e2fsck -p " + scratch_);
        EXPECT_LE(orphans.status, 1) << orphans.text;
        EXPECT_EQ(orphans.text.find("recovering journal"), std::string::npos) << orphans.text;
        const Said checked = say("e2fsck -fn " + scratch_);
        EXPECT_EQ(checked.status, 0) << checked.text;
        const Said features = say("dumpe2fs -h " + scratch_ + " | grep -c needs_recovery");
        EXPECT_NE(features.status, 0) << "a frozen image needs its journal replayed";
        ::unlink(scratch_.c_str());
    }
};

TEST_P(Freeze, StopsStoresAndLetsThemGo) {
    auto file = open("/f"), small = open("/small");
    write(*file, std::string(pages * page, 'a'));
    write(*small, "small");  // in the inode, where there is inline data
    char* view = map(*file, pages * page);
    NEED_MAP(view);
    char* inner = map(*small, page);
    ASSERT_TRUE(inner);
    std::atomic<bool> stop{false};
    // How often each has done what it does.
    std::atomic<std::uint64_t> stores[3] = {}, loads{0}, names{0}, writes{0};
    std::vector<std::thread> crowd;
    for (std::size_t t = 0; t < 2; ++t)
        crowd.emplace_back([&, t] {
            // One stores to the same page for ever, which has long been dirty; the other goes round.
            for (std::size_t n = 0; !stop; ++n) {
                view[(t == 0 ? 3 : n % pages) * page + 64 + t] = static_cast<char>(n);
                ++stores[t];
            }
        });
    crowd.emplace_back([&] {
        for (std::size_t n = 0; !stop; ++n, ++stores[2]) inner[1] = static_cast<char>(n);
    });
    crowd.emplace_back([&] {
        for (std::size_t n = 0; !stop; ++n, ++loads) (void)static_cast<volatile char*>(view)[n * 7 % pages * page];
    });
    crowd.emplace_back([&] {
        InodeRef top = *fs->root();
        for (; !stop; ++names) {
            ok(fs->create(*top, "n", S_IFREG | 0644, 0, "", root, false));
            ok(fs->rename(*top, "n", *top, "m", 0, root, false));
            ok(fs->unlink(*top, "m", root, false));
        }
    });
    crowd.emplace_back([&] {
        auto own = open("/written");
        for (std::size_t n = 0; !stop; ++n, ++writes) {
            write(*own, "some bytes", n % 1000 * 10);
            if (n % 16 == 0) ok(own->sync(false));
        }
    });
    auto moved_on = [&](const char* who, const std::atomic<std::uint64_t>& counter, std::uint64_t from) {
        const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (counter < from + 3 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
        EXPECT_GE(counter, from + 3) << who << " does not go on";
    };
    for (int i = 0; i < (long_run() ? 200 : 12) && !HasFailure(); ++i) {
        for (auto& counter : stores) moved_on("a store", counter, counter);
        moved_on("names", names, names);
        moved_on("writes", writes, writes);
        ok(fs->freeze());
        const std::uint64_t before[] = {stores[0], stores[1], stores[2], names, writes}, log = recorder->log_size();
        const std::string bytes = read(*file, pages * page), inside = read(*small, 5);
        moved_on("a load", loads, loads);
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        // Whoever was just done may have counted it since.
        const std::uint64_t after[] = {stores[0], stores[1], stores[2], names, writes};
        for (std::size_t k = 0; k < std::size(before); ++k) EXPECT_LE(after[k], before[k] + 1) << "door " << k;
        EXPECT_TRUE(read(*file, pages * page) == bytes) << "a frozen file changed";
        EXPECT_EQ(read(*small, 5), inside) << "a frozen small file changed";
        if (i % 4 == 0) judge_frozen_copy();
        EXPECT_EQ(recorder->log_size(), log) << "a frozen device was written";
        ok(fs->thaw());
        for (std::size_t k = 0; k < 3; ++k) moved_on("a store after the thaw", stores[k], after[k]);
        moved_on("names after the thaw", names, after[3]);
        moved_on("writes after the thaw", writes, after[4]);
    }
    stop = true;
    for (std::thread& thread : crowd) thread.join();
    EXPECT_TRUE(read(*file, pages * page) == std::string(view, pages * page));
    unmap(view, pages * page);
    unmap(inner, page);
    file.reset(), small.reset();
    settle();
}

// On a mount the thread that meets no space is the one that reads the thaw; and deletions wait for that.
TEST_P(Freeze, WhoMeetsNoSpaceDoesNotWaitForTheThaw) {
    auto file = open("/f");
    write(*file, std::string(pages * page, 'a'));
    ok(fs->unlink(**fs->root(), "f", root, true));
    ok(fs->freeze());
    file.reset();  // its deletion is queued, and cannot begin
    std::atomic<bool> back{false};
    std::thread short_of_space([&] {
        fs->volume().wait_for_space(fs->volume().free_count_generation());
        back = true;
    });
    for (int waited = 0; waited < 1000 && !back; ++waited) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(back) << "it waits for the thaw";
    ok(fs->thaw());
    short_of_space.join();
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, Freeze,
                         testing::Combine(testing::Values("-b 4096", "-b 1024", "-b 4096 -I 256 -O inline_data"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems::k_freeze_under_stores_test

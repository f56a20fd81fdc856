// Problem I: stores through maps by several threads while space comes and goes. A store that finds none is SIGBUS for
// that access alone; everybody else goes on, no page is lost, and what was stored is there. (out_of_space_test has all
// other ways to want a block.)
#include "settled_image.h"

#include <atomic>
#include <random>
#include <thread>

namespace uext4::problems::i_no_space_in_a_fault_test {
namespace {

constexpr std::size_t pages = 256, threads = 3;

class NoSpaceInAFault : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    void SetUp() override { make(std::get<0>(GetParam()), std::get<1>(GetParam()), "12M"); }
    std::uint64_t block() { return fs->volume().geometry().block_size; }
    // All but so many blocks are taken.
    void fill_until(std::uint64_t left) {
        ok(fs->sync());
        auto fill = open("/fill");
        for (std::uint64_t free; (free = fs->volume().counts().free_blocks) > left;) {
            const std::uint64_t n = std::min<std::uint64_t>((free - left) * block(), 1 << 20);
            write(*fill, std::string(n, 'x'), fill->inode().size_hint());
            ok(fill->sync(false));
        }
    }
};

TEST_P(NoSpaceInAFault, RefusesThatStoreAlone) {
    auto file = open("/f");
    ok(file->truncate(threads * pages * page));
    char* memory = map(*file, threads * pages * page);
    NEED_MAP(memory);
    fill_until(40 * page / block());
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> refusals{0};
    std::vector<std::vector<char>> stored(threads, std::vector<char>(pages));
    std::vector<std::thread> crowd;
    for (std::size_t t = 0; t < threads; ++t)
        crowd.emplace_back([&, t] {
            std::mt19937 random(first_seed() * 10 + static_cast<unsigned>(t));
            char* own = memory + t * pages * page;
            // Every page once; those that were refused stay as they were.
            for (std::size_t p = 0; p < pages; ++p) {
                const char byte = static_cast<char>(p % 100 + 1);
                const bool no = refused([&] { own[p * page + 9] = byte; });
                refusals += no;
                stored[t][p] = no ? 0 : byte;
                // A load is served whether or not there is space; here of a page that may never get a block.
                const std::size_t q = random() % pages;
                char seen = 0;
                EXPECT_FALSE(refused([&] { seen = static_cast<volatile char*>(own)[q * page + 9]; }));
                if (q <= p) {
                    EXPECT_EQ(seen, stored[t][q]) << "thread " << t << ", page " << q;
                }
                // What has its block is never refused.
                if (stored[t][p]) {
                    EXPECT_FALSE(refused([&] { own[p * page + 10] = byte; }));
                }
            }
        });
    crowd.emplace_back([&] {
        while (!stop) {
            auto synced = file->sync(false);
            EXPECT_TRUE(synced) << synced.error().what;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    });
    for (std::size_t t = 0; t < threads; ++t) crowd[t].join();
    EXPECT_GT(refusals.load(), 0u);
    EXPECT_LT(refusals.load(), threads * pages) << "nobody got the space there was";
    // Space comes back: the same stores succeed.
    ok(fs->unlink(**fs->root(), "fill", root, false));
    fs->volume().wait_for_deletions();
    ok(fs->sync());
    for (std::size_t t = 0; t < threads; ++t)
        for (std::size_t p = 0; p < pages; ++p) {
            if (stored[t][p]) continue;
            stored[t][p] = 'n';
            EXPECT_FALSE(refused([&] { memory[(t * pages + p) * page + 9] = 'n'; }))
                << "thread " << t << ", page " << p;
        }
    stop = true;
    crowd.back().join();
    ok(file->sync(false));
    auto judge_bytes = [&](const std::string& bytes, const char* where) {
        ASSERT_EQ(bytes.size(), threads * pages * page);
        for (std::size_t t = 0; t < threads; ++t)
            for (std::size_t p = 0; p < pages; ++p)
                ASSERT_EQ(bytes[(t * pages + p) * page + 9], stored[t][p])
                    << where << ": thread " << t << ", page " << p;
    };
    judge_bytes(std::string(memory, threads * pages * page), "the map");
    const std::shared_ptr<MemoryDevice> cut = durable();
    judge_bytes(recovered_bytes(cut, threads * pages * page), "after a cut");
    unmap(memory, threads * pages * page);
    file.reset();
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, NoSpaceInAFault,
                         testing::Combine(testing::Values("-b 4096 -J size=4 -m 0 -N 64",
                                                          "-b 1024 -J size=1 -m 0 -N 64",
                                                          "-b 1024 -J size=1 -m 0 -N 64 -O ^extents,^64bit"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems::i_no_space_in_a_fault_test

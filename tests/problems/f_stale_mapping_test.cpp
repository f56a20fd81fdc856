// Problem F: where a byte lives is looked up, and changes before it is used. Blocks go from one file to another all the
// time here, and whoever reads a file by a stale look-up is seen reading the other one's bytes.
#include "settled_image.h"

#include <atomic>
#include <random>
#include <thread>

namespace uext4::problems::f_stale_mapping_test {
namespace {

constexpr std::size_t pages = 160;  // of two files: more than the cache holds

// One thread stores through a map while others load: that is what is looked at here, so each byte is an access by
// itself.
void store(char* at, char byte) { std::atomic_ref(*at).store(byte, std::memory_order_relaxed); }

std::string load(char* at, std::size_t n) {
    std::string out(n, '\0');
    for (std::size_t i = 0; i < n; ++i) out[i] = std::atomic_ref(at[i]).load(std::memory_order_relaxed);
    return out;
}

class StaleMapping : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    // So small and so full that a block which one file gives up is the next one's.
    void SetUp() override { make(std::get<0>(GetParam()), std::string(std::get<1>(GetParam())) + ",cache=1M", "12M"); }
    struct File {
        std::unique_ptr<OpenFile> open;
        char* memory = nullptr;
        char own = 0;
    };
    // One turn of taking blocks away and getting others.
    void move_blocks(File& file, std::mt19937& random) {
        const std::size_t at = random() % pages * page,
                          n = std::min<std::size_t>(random() % 24 * page + page, pages * page - at);
        ok(file.open->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n));
        // What was freed can be given away once that is committed.
        if (random() % 2) ok(fs->volume().fs().journal.commit_all());
        const unsigned how = random() % 3;
        switch (how) {
            case 0: write(*file.open, std::string(n, file.own), at); break;
            case 1:
                for (std::size_t i = 0; i < n; i += page) store(file.memory + at + i, file.own);
                break;
            default: {
                Aligned bytes(std::string(n, file.own));
                auto direct = open(file.own == 'f' ? "/f" : "/g", O_RDWR | O_DIRECT);
                auto done = direct->write(at, bytes.bytes());
                EXPECT_TRUE(done && *done == n);
            }
        }
        // Nobody else writes here: what a reader had looked up before does not come over it.
        for (const std::string& now : {read(*file.open, n, at), load(file.memory + at, n)})
            for (std::size_t i = 0; i < n; ++i) {
                const char wanted = how != 1 || i % page == 0 ? file.own : '\0';
                ASSERT_EQ(now[i], wanted) << "/" << file.own << " " << at << " + " << i << ", written by " << how;
            }
        if (random() % 2) ok(file.open->sync(true));
    }
    void look(const File& file, const std::string& bytes, const char* how) const {
        const char both[] = {file.own, 0};
        const std::size_t wrong = bytes.find_first_not_of(std::string_view(both, 2));
        EXPECT_EQ(wrong, std::string::npos) << how << " of /" << file.own << " sees " << static_cast<int>(bytes[wrong]);
    }
};

TEST_P(StaleMapping, NobodyReadsAnothersBlocks) {
    // The rest of the space is taken.
    auto fill = open("/fill");
    const std::uint64_t free = fs->volume().counts().free_blocks, bs = fs->volume().geometry().block_size;
    const std::uint64_t wanted = 3 * pages * page / bs;
    ASSERT_GT(free, wanted);
    ok(fill->fallocate(FALLOC_FL_KEEP_SIZE, 0, (free - wanted) * bs));
    File files[2];
    for (File& file : files) {
        file.own = &file == files ? 'f' : 'g';
        file.open = open(fmt::format("/{}", file.own));
        ok(file.open->truncate(pages * page));
        file.memory = map(*file.open, pages * page);
        NEED_MAP(file.memory);
    }
    std::atomic<bool> stop{false};
    std::vector<std::thread> crowd;
    for (unsigned t = 0; t < 2; ++t)
        crowd.emplace_back([&, t] {
            std::mt19937 random(first_seed() * 10 + t);
            const File& file = files[t];
            auto cached = open(fmt::format("/{}", file.own), O_RDONLY);
            auto direct = open(fmt::format("/{}", file.own), O_RDONLY | O_DIRECT);
            Aligned memory(8 * page);
            while (!stop && !HasFailure()) {
                const std::size_t at = random() % (pages - 8) * page;
                look(file, read(*cached, 8 * page, at), "a read");
                look(file, load(file.memory + at, page), "a load");
                auto n = direct->read(at, memory.bytes());
                EXPECT_TRUE(n) << n.error().what;
                if (n) look(file, memory.text(*n), "a direct read");
            }
        });
    std::atomic<std::uint64_t> reclaimed{0};
    crowd.emplace_back([&] {
        while (!stop) reclaimed += fs->volume().fs().pages.reclaim();
    });
    std::vector<std::thread> movers;
    for (unsigned t = 0; t < 2; ++t)
        movers.emplace_back([&, t] {
            std::mt19937 random(first_seed() * 100 + t);
            const int enough = long_run() ? 5000 : 120, most = 100 * enough;
            for (int i = 0; (i < enough || (reclaimed == 0 && i < most)) && !HasFailure(); ++i)
                move_blocks(files[t], random);
        });
    for (std::thread& thread : movers) thread.join();
    stop = true;
    for (std::thread& thread : crowd) thread.join();
    EXPECT_GT(reclaimed, 0u);
    for (File& file : files) {
        look(file, read(*file.open, pages * page), "a read at the end");
        unmap(file.memory, pages * page);
        file.open.reset();
    }
    fill.reset();
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, StaleMapping,
                         testing::Combine(testing::Values("-b 4096 -J size=4 -m 0 -N 64",
                                                          "-b 1024 -J size=1 -m 0 -N 64"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems::f_stale_mapping_test

// Problem J: the mapping is never committed before the data is there, and the size on disk is never ahead of it:
// whenever the power goes, while files grow by writes and by stores through maps, no byte within a file's size is what
// nobody wrote.
#include "settled_image.h"

#include <atomic>
#include <random>
#include <thread>

namespace uext4::problems {
namespace {

class DataBeforeMapping : public SettledImage,
                          public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    static constexpr std::size_t mapped_pages = 64;
    void SetUp() override { make(std::get<0>(GetParam()), std::get<1>(GetParam()), "24M"); }
    static char byte_at(std::uint64_t at) { return static_cast<char>(at % 199 + 1); }
    // The image after the first `count` requests, or only what was flushed among them.
    std::shared_ptr<MemoryDevice> cut(std::vector<RecordedWrite> log, std::size_t count, bool flushed_only) {
        log.resize(count);
        if (flushed_only) return durable(log);
        std::shared_ptr<MemoryDevice> out = initial->clone();
        for (const RecordedWrite& entry : log) EXPECT_TRUE(RecordingDevice::apply(entry, *out));
        return out;
    }
    void judge_cut(const std::shared_ptr<MemoryDevice>& image) {
        auto recovered = FileSystem::mount_device(image, {});
        ASSERT_TRUE(recovered) << recovered.error().what;
        for (const char* path : {"/appended", "/direct"}) {
            auto file = (*recovered)->open_path(path, O_RDONLY, 0, root);
            if (!file) continue;  // not made yet
            const std::string bytes = read(**file, 8 << 20);
            ASSERT_EQ(bytes.size(), (*file)->inode().size_hint()) << path;
            for (std::size_t i = 0; i < bytes.size(); ++i)
                ASSERT_EQ(bytes[i], byte_at(i)) << path << ": byte " << i << " of " << bytes.size();
        }
        if (auto file = (*recovered)->open_path("/stored", O_RDONLY, 0, root)) {
            const std::string bytes = read(**file, mapped_pages * page);
            for (std::size_t i = 0; i < bytes.size(); ++i)
                ASSERT_TRUE(bytes[i] == 0 || bytes[i] == byte_at(i))
                    << "/stored: byte " << i << " is " << int{bytes[i]};
        }
        ok((*recovered)->unmount());
    }
};

TEST_P(DataBeforeMapping, WheneverThePowerGoes) {
    const std::uint64_t most = long_run() ? 6 << 20 : 2 << 20;
    auto appended = open("/appended"), stored = open("/stored"), direct = open("/direct", O_CREAT | O_RDWR | O_DIRECT);
    ok(stored->truncate(mapped_pages * page));
    char* memory = map(*stored, mapped_pages * page);
    NEED_MAP(memory);
    std::atomic<int> busy{3};
    std::vector<std::thread> crowd;
    crowd.emplace_back([&] {
        std::mt19937 random(first_seed());
        for (std::uint64_t at = 0; at < most;) {
            std::string bytes(random() % 30000 + 1, 0);
            for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte_at(at + i);
            write(*appended, bytes, at);
            at += bytes.size();
            if (random() % 8 == 0) ok(appended->sync(random() % 2));
        }
        --busy;
    });
    crowd.emplace_back([&] {
        for (std::uint64_t at = 0; at < most / 2; at += 4 * page) {
            Aligned bytes(4 * page);
            for (std::size_t i = 0; i < 4 * page; ++i) bytes.bytes()[i] = std::byte(byte_at(at + i));
            auto n = direct->write(at, bytes.bytes());
            EXPECT_TRUE(n && *n == 4 * page);
        }
        --busy;
    });
    crowd.emplace_back([&] {
        for (std::size_t p = 0; p < mapped_pages; ++p) {
            const std::size_t to = p * 37 % mapped_pages * page;
            for (std::size_t i = 0; i < page; ++i) memory[to + i] = byte_at(to + i);
            if (p % 8 == 7) ok(FileSystem::sync_maps(memory, mapped_pages * page, true));
        }
        --busy;
    });
    crowd.emplace_back([&] {
        while (busy > 0) ok(fs->volume().fs().journal.commit_all());
    });
    crowd.emplace_back([&] {
        while (busy > 0) {
            ok(write_back(appended->inode()));
            ok(write_back(stored->inode()));
        }
    });
    for (std::thread& thread : crowd) thread.join();
    unmap(memory, mapped_pages * page);
    const auto log = recorder->log();
    std::mt19937 random(first_seed());
    for (int i = 0; i < (long_run() ? 400 : 40) && !HasFatalFailure(); ++i) {
        const std::size_t count = random() % (log.size() + 1);
        SCOPED_TRACE(fmt::format("UEXT4_SEED={}, {} of {} requests{}", first_seed(), count, log.size(),
                                 i % 2 ? ", what was flushed" : ""));
        judge_cut(cut(log, count, i % 2 != 0));
    }
    appended.reset(), stored.reset(), direct.reset();
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, DataBeforeMapping,
                         testing::Combine(testing::Values("-b 4096 -J size=4 -N 64", "-b 1024 -J size=4 -N 64",
                                                          "-b 1024 -J size=4 -N 64 -O ^extents,^64bit"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems

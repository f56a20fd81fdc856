// Problem D: data=journal without stalls. While a commit, or the checkpoint that makes room for it, waits for the
// device, everything else goes on, also what changes the very pages and blocks that are being committed.
#include "settled_image.h"

#include "tests/doubles/faulty_device.h"

#include <chrono>
#include <functional>
#include <future>

namespace uext4::problems {
namespace {

class NoWaiting : public SettledImage, public testing::WithParamInterface<const char*> {
protected:
    void SetUp() override {
        make(GetParam());
        ok(fs->unmount());
        fs.reset();
        faulty = std::make_shared<FaultyDevice>(recorder);
        auto options = parse_all_options("data=journal,commit=1000");
        ASSERT_TRUE(options);
        auto mounted = FileSystem::mount_device(faulty, *options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }

    // `commit` meets a device whose flushes end only when `others` have ended.
    void beside_a_commit(const std::function<void()>& commit, const std::function<void()>& others, int round) {
        DeviceFault stick;
        stick.effect = DeviceFault::Effect::Stick;
        stick.kinds = {DeviceRequest::Kind::Flush, DeviceRequest::Kind::Fua};
        stick.skip = static_cast<std::uint64_t>(round % 3);  // of the log, of the commit record, of what went home
        faulty->add(stick);
        auto committed = std::async(std::launch::async, commit);
        while (faulty->stuck() == 0 && committed.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
        }
        met += faulty->stuck() != 0;
        auto done = std::async(std::launch::async, others);
        EXPECT_EQ(done.wait_for(std::chrono::seconds(20)), std::future_status::ready) << "round " << round;
        faulty->clear();
    }

    std::shared_ptr<FaultyDevice> faulty;
    int met = 0;  // commits that waited for the device
};

TEST_P(NoWaiting, OfWhoChangesSomethingElseOrTheSame) {
    constexpr std::size_t pages = 40;
    auto file = open("/file"), other = open("/other");
    write(*file, pattern(pages * page, 1));
    write(*other, pattern(pages * page, 2));
    char* memory = map(*file, pages * page);
    NEED_MAP(memory);
    ok(fs->sync());
    auto top = fs->root();
    ok(top);
    constexpr int rounds = 60;  // the log wraps several times
    for (int round = 0; round < rounds && !HasFailure(); ++round) {
        const unsigned seed = static_cast<unsigned>(round) + 3;
        write(*file, pattern(pages / 2 * page, seed));
        write(*other, pattern(pages / 2 * page, seed + 1));
        memory[7] = static_cast<char>(round);
        const std::string name = fmt::format("n{}", round);
        beside_a_commit([&] { ok(file->sync(false)); },
                        [&] {
                            // In the transaction that is being committed, and not.
                            write(*file, pattern(page, seed + 2), 2 * page);
                            write(*file, pattern(100, seed + 2), (pages - 2) * page);
                            write(*other, pattern(100, seed + 2), page + 30);
                            memory[0] = 's', memory[3 * page] = 's', memory[(pages - 1) * page] = 's';
                            EXPECT_EQ(read(*file, page, 4 * page),
                                      pattern(pages / 2 * page, seed).substr(4 * page, page));
                            ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * page, page));
                            ok(fs->truncate(other->inode(), 10 * page, root, true));
                            write(*other, pattern(page, seed), (pages - 1) * page);
                            write(*open("/" + name), pattern(300, seed));
                            if (round > 0) ok(fs->unlink(**top, fmt::format("n{}", round - 1), root, true));
                            ok(fs->set_xattr(other->inode(), "user.round", bytes_of(name), 0, root, true));
                        },
                        round);
        EXPECT_EQ(memory[0], 's');
        EXPECT_EQ(memory[5 * page], 0);
    }
    EXPECT_GT(met, rounds / 2);
    const std::string last = std::string(memory, pages * page);
    unmap(memory, pages * page);
    ok(fs->sync());
    EXPECT_EQ(read(*file, pages * page), last);
    file.reset(), other.reset(), *top = {};
    settle();
}

INSTANTIATE_TEST_SUITE_P(Blocks, NoWaiting, testing::Values("-b 4096", "-b 1024", "-b 4096 -O inline_data -I 256"));

}  // namespace
}  // namespace uext4::problems

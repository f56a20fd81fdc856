// When the background writes back, by a clock that goes on only while everybody waits: by age, by amount, by limit.
#include "tests/explore/picker.h"
#include "tests/explore/token_scheduler.h"
#include "tests/problems/settled_image.h"

#include "sync/thread.h"

namespace uext4::explore {
namespace {

using namespace std::chrono_literals;
using problems::pattern;

class WritebackClock : public problems::SettledImage, public testing::WithParamInterface<const char*> {
protected:
    static constexpr std::uint64_t mib = 1 << 20;

    WritebackClock() : shared_(std::make_unique<Shared>()), picker_(make_replay({})) {
        scheduler_ = std::make_unique<TokenScheduler>(*picker_, *shared_, false);
    }
    void SetUp() override { make("-b 4096 -J size=4", fmt::format("cache=8M,{}", GetParam()), "64M"); }
    void TearDown() override {
        SettledImage::TearDown();
        scheduler_.reset();
    }
    static bool journaled() { return GetParam() == std::string_view("data=journal"); }
    std::uint64_t dirty() const { return fs->volume().fs().pages.dirty_bytes(); }
    // Whether a power cut now leaves these bytes somewhere on the device.
    bool is_durable(const std::string& bytes) const {
        std::string image(durable()->size(), 0);
        EXPECT_TRUE(durable()->read(0, std::as_writable_bytes(std::span(image))));
        return image.find(bytes) != std::string::npos;
    }

private:
    std::unique_ptr<Shared> shared_;
    std::unique_ptr<Picker> picker_;
    std::unique_ptr<TokenScheduler> scheduler_;
};

TEST_P(WritebackClock, WhatIsFiveSecondsOldIsWrittenAndCommitted) {
    auto file = open("/f");
    for (unsigned turn = 0; turn < 3; ++turn) {
        std::string bytes;
        while (bytes.size() < 12288ull) bytes += fmt::format("what is written in turn {}, {:6}; ", turn, bytes.size());
        bytes.resize(12288);
        write(*file, bytes, turn * bytes.size());
        this_thread::sleep(4s);
        // What the log takes is the transaction's from the first moment, and durable with it.
        EXPECT_EQ(dirty(), journaled() ? 0 : bytes.size()) << "written before its time";
        EXPECT_TRUE(journaled() || !is_durable(bytes.substr(0, 4096)));
        this_thread::sleep(3s);
        EXPECT_EQ(dirty(), 0u) << "not written in its time";
        // A commit follows at the latest when its own interval has passed.
        this_thread::sleep(6s);
        EXPECT_TRUE(is_durable(bytes.substr(0, 4096)));
    }
    file.reset();
    settle();
}

TEST_P(WritebackClock, NewStoresDoNotKeepOldOnesWaiting) {
    auto file = open("/f");
    const std::string bytes = pattern(4096, 7);
    write(*file, bytes);
    bool written = false;
    for (int second = 0; second < 8; ++second) {
        this_thread::sleep(1s);
        written = written || dirty() == 0;
        write(*file, pattern(4096, 8), 8192);
    }
    EXPECT_TRUE(written) << "a file that is always written to never reaches the device";
    file.reset();
    settle();
}

TEST_P(WritebackClock, MoreThanAnEighthOfTheCacheIsNotKeptForLong) {
    const std::uint64_t some = mib - 4096, more = mib + 65536;
    if (journaled()) return settle();  // the transaction has it, whose size the log bounds
    auto file = open("/f");
    write(*file, pattern(some, 1));
    this_thread::sleep(100ms);
    EXPECT_EQ(dirty(), some) << "an eighth may wait for its age";
    write(*file, pattern(more - some, 2), some);
    this_thread::sleep(100ms);
    EXPECT_LE(dirty(), mib / 2) << "more than an eighth was kept";
    file.reset();
    settle();
}

TEST_P(WritebackClock, AWriterWritesBackItselfAboveAQuarter) {
    std::vector<std::unique_ptr<OpenFile>> files;
    for (unsigned i = 0; i < 4; ++i) files.push_back(open(fmt::format("/f{}", i)));
    // No time passes here: the flusher has no turn.
    const std::uint64_t quarter = fs->volume().fs().pages.dirty_limit();
    EXPECT_EQ(quarter, 2 * mib);
    for (std::uint64_t at = 0; at < 4 * mib; at += 65536)
        for (auto& file : files) {
            write(*file, pattern(65536, 3), at);
            EXPECT_LE(dirty(), quarter + 65536);
        }
    EXPECT_LE(fs->volume().fs().pages.used_bytes(), 8 * mib + 65536);
    files.clear();
    settle();
}

TEST_P(WritebackClock, FilesThatAreOpenAndCleanAreNotLookedAt) {
    constexpr unsigned many = 300;
    std::vector<std::unique_ptr<OpenFile>> files;
    for (unsigned i = 0; i < many; ++i) files.push_back(open(fmt::format("/f{}", i)));
    ok(fs->sync());
    const InodeTable& inodes = fs->volume().inodes();
    const auto looks = [&](std::chrono::seconds time) {
        const std::uint64_t before = inodes.visited_inodes();
        this_thread::sleep(time);
        return inodes.visited_inodes() - before;
    };
    this_thread::sleep(10s);
    EXPECT_EQ(looks(30s), 0u);
    // Of a file that is written to the cache knows; times alone are looked for once in five seconds.
    write(*files[7], pattern(4096, 1));
    EXPECT_LE(looks(30s), journaled() ? many + 10 : 0);
    EXPECT_EQ(dirty(), 0u);
    EXPECT_EQ(fs->volume().fs().times_pending.load(), 0);
    files.clear();
    settle();
}

INSTANTIATE_TEST_SUITE_P(Modes, WritebackClock, testing::Values("data=ordered", "data=journal"),
                         [](const auto& mode) { return std::string(mode.param).substr(5); });

}  // namespace
}  // namespace uext4::explore

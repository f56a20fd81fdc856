// Blocks that have been moved or emptied, and are written to where they lie before that is durable: what each cut
// leaves is the file as it was in some moment, byte by byte, with nothing of it in another place or behind the end.
#include "file/file_io.h"
#include "sync/thread.h"
#include "tests/crash/found.h"
#include "tests/doubles/faulty_device.h"

#include <linux/falloc.h>

#include <algorithm>

namespace uext4::crash {
namespace {

constexpr Format plain_and_clusters[] = {{"plain", "-b 4096 -J size=4", "10M"}, with_clusters};

class InPlace : public Found, public testing::WithParamInterface<Format> {
protected:
    static constexpr std::size_t bs = 4096;
    // /f has `size` bytes, all of them durable.
    void start(std::size_t size) {
        make(GetParam());
        mount();
        file = open("/f");
        write(0, size);
        begin();
    }
    // What the file has now is what cuts may leave from here on.
    void begin() {
        ASSERT_TRUE(fs->sync());
        shapes = {{contents}};
        from = device->log_size();
    }
    void write(std::size_t at, std::size_t count) {
        std::string bytes(count, '\0');
        for (char& byte : bytes) byte = static_cast<char>('a' + next++ % 26);
        ++next;  // neighbours differ, and so do the same bytes of two writes
        if (contents.size() < at + count) contents.resize(at + count);
        contents.replace(at, count, bytes);
        const auto n = file->write(at, bytes_of(bytes));
        ASSERT_TRUE(n && *n == count) << (n ? "" : n.error().what);
        shapes.back().push_back(contents);
    }
    void truncate(std::size_t size) {
        ASSERT_TRUE(file->truncate(size));
        contents.resize(size);
        shapes.back().push_back(contents);
    }
    void zeros(int mode, std::size_t first, std::size_t blocks) {
        ASSERT_TRUE(file->fallocate(mode | FALLOC_FL_KEEP_SIZE, first * bs, blocks * bs));
        if (first * bs < contents.size())
            std::fill_n(contents.begin() + static_cast<std::ptrdiff_t>(first * bs),
                        std::min(blocks * bs, contents.size() - first * bs), '\0');
        shapes.back().push_back(contents);
    }
    void zero(std::size_t first, std::size_t blocks) { zeros(FALLOC_FL_ZERO_RANGE, first, blocks); }
    void punch(std::size_t first, std::size_t blocks) { zeros(FALLOC_FL_PUNCH_HOLE, first, blocks); }
    void collapse(std::size_t first, std::size_t blocks) {
        ASSERT_TRUE(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, first * bs, blocks * bs));
        contents.erase(first * bs, blocks * bs);
        shapes.push_back({contents});
    }
    void insert(std::size_t first, std::size_t blocks) {
        ASSERT_TRUE(file->fallocate(FALLOC_FL_INSERT_RANGE, first * bs, blocks * bs));
        contents.insert(first * bs, blocks * bs, '\0');
        shapes.push_back({contents});
    }

    // Of states of one shape, byte by byte.
    static bool may_be(const std::vector<std::string>& states, const std::string& seen) {
        const auto sizes = std::ranges::minmax(states, {}, &std::string::size);
        if (seen.size() < sizes.min.size() || seen.size() > sizes.max.size()) return false;
        for (std::size_t at = 0; at < seen.size(); ++at)
            if (std::ranges::none_of(states, [&](const std::string& s) { return at < s.size() && s[at] == seen[at]; }))
                return false;
        return true;
    }
    static void expect_clear_tail(OpenFile& there, std::size_t cut) {
        Inode& inode = there.inode();
        if (inode.size_hint() % bs == 0) return;
        MutexLock guard(inode.map_lock);
        const auto last = inode.extent_status().lookup(inode.size() / bs * bs, bs);
        ASSERT_TRUE(last);
        if (last->state != BlockState::mapped) return;
        std::string raw(bs, '\0');
        ASSERT_TRUE(inode.fs().device.read(last->block.value * bs, std::as_writable_bytes(std::span(raw))));
        EXPECT_EQ(raw.find_first_not_of('\0', inode.size() % bs), std::string::npos) << "behind the end, cut " << cut;
    }
    // At the end of all tests: the sync, and what was on the way to it.
    void expect_cuts() {
        const auto synced = file->sync(false);
        ASSERT_TRUE(synced) << synced.error().what;
        const std::size_t acknowledged = device->log_size();
        file.reset();
        ASSERT_TRUE(fs->unmount());
        fs.reset();
        each_prefix([&](FileSystem& recovered, std::size_t cut) {
            if (cut < from) return;
            auto there = recovered.open_path("/f", O_RDONLY, 0, root);
            ASSERT_TRUE(there) << cut;
            std::string seen(1u << 20, '\0');
            const auto n = (*there)->read(0, std::as_writable_bytes(std::span(seen)));
            ASSERT_TRUE(n) << cut;
            seen.resize(*n);
            EXPECT_TRUE(std::ranges::any_of(shapes, [&](const auto& states) { return may_be(states, seen); }))
                << "cut " << cut << " of " << acknowledged << ": " << seen.size() << " bytes";
            if (cut >= acknowledged) {
                EXPECT_TRUE(seen == contents) << "lost: cut " << cut << ", acknowledged " << acknowledged;
            }
            expect_clear_tail(**there, cut);
        });
    }

    std::unique_ptr<OpenFile> file;
    std::string contents;
    std::vector<std::vector<std::string>> shapes{1};  // a shift begins another one
    std::size_t from = 0;
    unsigned next = 0;
};

TEST_P(InPlace, ZeroedAndWritten) {
    start(22 * bs + 1000);
    zero(14, 6);
    write(16 * bs + 100, 500);
    expect_cuts();
}

TEST_P(InPlace, ZeroedOverTheEndAndWrittenWithin) {
    start(22 * bs + 1000);
    zero(20, 4);
    write(22 * bs + 100, 700);
    expect_cuts();
}

TEST_P(InPlace, ZeroedOverTheEndAndWrittenBeyond) {
    start(22 * bs + 1000);
    zero(20, 4);
    write(22 * bs + 100, 2 * bs);
    expect_cuts();
}

TEST_P(InPlace, PunchedAndFilled) {
    start(22 * bs + 1000);
    punch(5, 2);
    write(5 * bs, 2 * bs);
    punch(9, 6);
    write(9 * bs + 300, 600);
    expect_cuts();
}

TEST_P(InPlace, PunchedOverTheEndAndFilledBeyond) {
    start(22 * bs + 1000);
    punch(21, 2);
    write(21 * bs + 500, bs + 2000);
    expect_cuts();
}

TEST_P(InPlace, CutAndWrittenAgain) {
    start(22 * bs + 1000);
    truncate(21 * bs);
    write(21 * bs, bs + 300);
    expect_cuts();
}

TEST_P(InPlace, CutWithinABlockAndWrittenBehind) {
    start(22 * bs + 1000);
    truncate(21 * bs + 100);
    write(22 * bs + 50, 3000);
    expect_cuts();
}

TEST_P(InPlace, CutAndWrittenShorter) {
    start(23 * bs);
    truncate(21 * bs);
    write(22 * bs + 50, 300);
    expect_cuts();
}

TEST_P(InPlace, WhatTheLogHasIsZeroedAndWritten) {
    start(18 * bs + 1000);
    for (int n = 0; n < 4; ++n) {
        write(contents.size(), bs);
        ASSERT_TRUE(file->sync(false));
    }
    begin();
    zero(18, 6);
    write(19 * bs, 3 * bs + 500);
    expect_cuts();
}

TEST_P(InPlace, WhatTheLogHasIsCutAndWritten) {
    start(20 * bs + 1000);
    for (int n = 0; n < 3; ++n) {
        write(contents.size(), bs);
        ASSERT_TRUE(file->sync(false));
    }
    begin();
    truncate(21 * bs + 10);
    write(22 * bs, bs + 500);
    expect_cuts();
}

TEST_P(InPlace, PunchedAndCollapsedAndFilled) {
    start(22 * bs + 1000);
    punch(5, 2);
    collapse(0, 4);
    write(bs, 2 * bs);
    expect_cuts();
}

TEST_P(InPlace, ZeroedAndCollapsedAndWritten) {
    start(22 * bs + 1000);
    zero(9, 3);
    collapse(0, 4);
    write(5 * bs, 3 * bs);
    expect_cuts();
}

TEST_P(InPlace, CollapsedAndPunchedAndFilled) {
    start(22 * bs + 1000);
    collapse(0, 4);
    punch(5, 2);
    write(5 * bs, 2 * bs);
    expect_cuts();
}

TEST_P(InPlace, CollapsedAndZeroedAndWritten) {
    start(22 * bs + 1000);
    collapse(0, 4);
    zero(9, 3);
    write(9 * bs, 3 * bs);
    expect_cuts();
}

TEST_P(InPlace, InsertedAndCutAndWritten) {
    start(22 * bs + 1000);
    insert(4, 4);
    truncate(25 * bs + 100);
    write(26 * bs, 3000);
    expect_cuts();
}

TEST_P(InPlace, CollapsedAndWrittenOverAndAppendedTo) {
    start(22 * bs + 1000);
    collapse(0, 4);
    write(3 * bs + 100, 6 * bs);
    write(contents.size() - 50, 2 * bs);
    expect_cuts();
}

TEST_P(InPlace, InsertedAndWrittenOverAndFilled) {
    start(22 * bs + 1000);
    zero(12, 2);
    begin();
    insert(4, 4);
    write(3 * bs + 100, 3 * bs);
    write(15 * bs + 100, 2 * bs);
    write(20 * bs, 100);
    expect_cuts();
}

// An image of the block that a checkpoint is writing home is there before what is written next.
TEST_F(Found, AnImageOnItsWayHomeIsNotWrittenOverWhatComesBehindIt) {
    constexpr std::size_t bs = 4096;
    using Emptying = std::function<Result<void>(OpenFile&)>;
    const Emptying emptyings[] = {
        [](OpenFile& f) { return f.fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, bs, bs); },
        [](OpenFile& f) { return f.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, bs, bs); },
        [](OpenFile& f) { return f.truncate(bs); },
    };
    for (unsigned round = 0; round < 2 * std::size(emptyings); ++round) {
        const Emptying& empty = emptyings[round / 2];
        const bool past_the_cache = round % 2 != 0;
        make(with_clusters);
        const auto faulty = std::make_shared<FaultyDevice>(image);
        auto mounted = FileSystem::mount_device(faulty, mount_options("ordered"));
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
        auto file = open("/f");
        const std::string first(bs + 100, 'a'), more(bs - 100, 'b'), last(bs, 'c');
        alignas(bs) static std::byte bytes[bs];
        std::ranges::fill(bytes, std::byte{'c'});
        ASSERT_TRUE(file->write(0, bytes_of(first)));
        ASSERT_TRUE(file->sync(false));
        ASSERT_TRUE(file->write(bs + 100, bytes_of(more)));  // through the log
        ASSERT_TRUE(file->sync(false));
        std::uint64_t home = 0;
        {
            MutexLock guard(file->inode().map_lock);
            const auto place = file->inode().extent_status().lookup(bs, bs);
            ASSERT_TRUE(place && place->state == BlockState::mapped);
            home = place->block.value * bs;
        }
        ASSERT_TRUE(fs->volume().fs().logged_data_blocks.has_any());
        DeviceFault stuck;
        stuck.effect = DeviceFault::Effect::Stick;
        stuck.kinds = {DeviceRequest::Kind::Write};
        stuck.offset = home;
        stuck.length = bs;
        stuck.times = 1;
        faulty->add(stuck);
        Journal& journal = fs->volume().fs().journal;
        Thread checkpoint("checkpoint", [&] { EXPECT_TRUE(journal.checkpoint(journal.durable_tid())); });
        for (int i = 0; i < 500 && faulty->stuck() == 0; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        EXPECT_EQ(faulty->stuck(), 1u);
        Thread writer("writer", [&] {
            EXPECT_TRUE(empty(*file));
            const auto into = past_the_cache ? open("/f", O_RDWR | O_DIRECT) : nullptr;
            EXPECT_TRUE(into ? into->write(bs, bytes) : file->write(bs, bytes_of(last)));
            EXPECT_TRUE(write_back(file->inode()));
        });
        std::this_thread::sleep_for(std::chrono::milliseconds(200));  // or it shows nothing
        faulty->clear();
        checkpoint.join();
        writer.join();
        file.reset();
        ASSERT_TRUE(fs->unmount());
        mount();
        std::string seen(2 * bs, '\0');
        auto n = open("/f")->read(0, std::as_writable_bytes(std::span(seen)));
        ASSERT_TRUE(n && *n == seen.size());
        EXPECT_TRUE(seen == first.substr(0, bs) + last);
        ASSERT_TRUE(fs->unmount());
        fs.reset();
    }
}

// What waits for an image that is to go home is written, whatever else the device refuses.
TEST_F(Found, WhatWaitsIsWrittenBesideABlockThatTheDeviceRefuses) {
    constexpr std::size_t bs = 4096;
    make(with_clusters);
    const auto faulty = std::make_shared<FaultyDevice>(image);
    auto mounted = FileSystem::mount_device(faulty, mount_options("ordered"));
    ASSERT_TRUE(mounted) << mounted.error().what;
    fs = std::move(*mounted);
    auto file = open("/f");
    ASSERT_TRUE(file->write(0, bytes_of(std::string(100, 'a'))));
    ASSERT_TRUE(file->sync(false));
    ASSERT_TRUE(file->write(100, bytes_of(std::string(8 * bs - 100, 'b'))));  // the first block through the log
    ASSERT_TRUE(file->sync(false));
    DeviceFault refused;
    refused.kinds = {DeviceRequest::Kind::Write};
    {
        MutexLock guard(file->inode().map_lock);
        const auto place = file->inode().extent_status().lookup(5 * bs, bs);
        ASSERT_TRUE(place && place->state == BlockState::mapped);
        refused.offset = place->block.value * bs;
        refused.length = bs;
    }
    const auto fault = faulty->add(refused);
    const std::string fresh(bs, 'c');
    ASSERT_TRUE(file->write(0, bytes_of(fresh)));
    ASSERT_TRUE(file->write(5 * bs, bytes_of(fresh)));
    EXPECT_FALSE(file->sync(true));
    EXPECT_NE(faulty->hits(fault), 0u);
    file.reset();
    (void)fs->unmount();
    fs.reset();
    faulty->clear();
    mount();
    std::string seen(bs, '\0');
    auto n = open("/f")->read(0, std::as_writable_bytes(std::span(seen)));
    ASSERT_TRUE(n && *n == bs);
    EXPECT_TRUE(seen == fresh);
    ASSERT_TRUE(fs->unmount());
    fs.reset();
}

INSTANTIATE_TEST_SUITE_P(Kinds, InPlace, testing::ValuesIn(plain_and_clusters),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace uext4::crash

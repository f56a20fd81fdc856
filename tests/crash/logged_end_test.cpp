// The block in which a file ends, where no other is to be had: with clusters, and on a full file system. What the file
// grows by there, or loses, goes through the log (docs/adr/0010), and nothing that comes later is lost by that.
#include "inode/inode.h"
#include "tests/crash/found.h"
#include "volume/flusher.h"

#include <linux/falloc.h>

#include <algorithm>
#include <cstddef>

namespace uext4::crash {
namespace {

constexpr Format kinds[] = {with_clusters, {"full", "-b 4096 -J size=4", "10M"}};

constexpr std::size_t bs = 4096;

class LoggedEnd : public Found, public testing::WithParamInterface<Format> {
protected:
    // /f has `size` bytes, and blocks up to `reach`; nobody else gets one.
    void start(std::size_t size, std::size_t reach = 4 * bs) {
        make(GetParam());
        mount();
        contents = std::string(size, 'a');
        file = open("/f");
        ASSERT_TRUE(file->write(0, bytes_of(contents)));
        ASSERT_TRUE(file->fallocate(FALLOC_FL_KEEP_SIZE, 0, reach));
        auto fill = open("/fill");
        std::uint64_t at = 0;
        for (std::uint64_t piece = 1u << 20; piece >= bs; piece /= 2)
            while (fill->fallocate(FALLOC_FL_KEEP_SIZE, at, piece)) at += piece;
        ASSERT_TRUE(fs->sync());
    }
    void put(OpenFile& into, std::size_t at, const std::string& bytes) {
        if (contents.size() < at + bytes.size()) contents.resize(at + bytes.size());
        contents.replace(at, bytes.size(), bytes);
        const auto n = into.write(at, bytes_of(bytes));
        ASSERT_TRUE(n) << n.error().what;
        ASSERT_EQ(*n, bytes.size());
    }
    void append(std::size_t count, char what) {
        put(*file, contents.size(), std::string(count, what));
        sync();
    }
    void sync() {
        const auto synced = file->sync(false);
        ASSERT_TRUE(synced) << synced.error().what;
    }
    std::uint64_t block_at(std::size_t offset) {
        MutexLock guard(file->inode().map_lock);
        const auto m = file->inode().extent_status().lookup(offset / bs * bs, bs);
        EXPECT_TRUE(m && m->state == BlockState::mapped);
        return m ? m->block.value : 0;
    }
    // All that is free goes to /g, `block` among it.
    void take_all_there_is(std::uint64_t block) {
        file = open("/g");
        contents.clear();
        // More than a write leaves for the map, which needs none.
        std::size_t reach = 0;
        while (file->fallocate(FALLOC_FL_KEEP_SIZE, reach, bs)) reach += bs;
        put(*file, 0, std::string(reach, 'g'));
        sync();
        bool is_in_it = false;
        for (std::size_t at = 0; at < contents.size(); at += bs) is_in_it |= block_at(at) == block;
        EXPECT_TRUE(is_in_it);
    }
    bool is_logged(std::size_t offset) {
        return fs->volume().fs().logged_data_blocks.has(BlockNr(block_at(offset)), 1);
    }
    static std::string read_all(OpenFile& from) {
        std::string got(1u << 20, '\0');
        const auto n = from.read(0, std::as_writable_bytes(std::span(got)));
        EXPECT_TRUE(n);
        got.resize(n ? *n : 0);
        return got;
    }
    // From here on every cut, also of the unmount, leaves the file as it is now.
    void expect_kept(const std::string& path = "/f") {
        const std::size_t acknowledged = device->log_size();
        file.reset();
        ASSERT_TRUE(fs->unmount());
        each_prefix([&](FileSystem& recovered, std::size_t cut) {
            if (cut < acknowledged) return;
            auto there = recovered.open_path(path, O_RDONLY, 0, root);
            ASSERT_TRUE(there) << cut;
            EXPECT_TRUE(read_all(**there) == contents) << "cut " << cut << ", acknowledged " << acknowledged;
        });
    }
    void forget_cached() {
        FileCache& pages = file->inode().pages();
        for (auto index = pages.next_cached(0); index; index = pages.next_cached(*index + 1)) {
            auto folio = pages.lock(*index, false);
            ASSERT_TRUE(folio && *folio && !(*folio)->dirty);
            pages.remove(std::move(*folio));
        }
    }

    std::string contents;
    std::unique_ptr<OpenFile> file;
};

struct Aligned {
    explicit Aligned(char what) { std::ranges::fill(bytes, what); }
    std::string text() const { return {bytes, sizeof bytes}; }
    alignas(bs) char bytes[bs];
};

TEST_P(LoggedEnd, IsKeptByEachCut) {
    start(bs + 1000);
    const std::uint64_t before = block_at(bs);
    append(100, 'b');
    EXPECT_EQ(block_at(bs), before);
    EXPECT_TRUE(is_logged(bs));
    expect_kept();
}

TEST_P(LoggedEnd, IsWrittenOver) {
    start(bs + 1000);
    append(4000, 'b');
    put(*file, bs + 10, std::string(50, 'c'));
    sync();
    expect_kept();
}

TEST_P(LoggedEnd, IsWrittenOverOnceItIsOutOfTheLog) {
    start(bs + 1000);
    append(4000, 'b');
    ASSERT_TRUE(fs->volume().fs().journal.checkpoint_all());
    EXPECT_FALSE(is_logged(bs));
    const std::uint64_t logged = fs->volume().fs().journal.counters().blocks_logged;
    put(*file, bs + 10, std::string(50, 'c'));
    ASSERT_TRUE(Flusher::flush_all(fs->volume().inodes()));
    EXPECT_EQ(fs->volume().fs().journal.counters().blocks_logged, logged);
    EXPECT_FALSE(is_logged(bs));
    sync();
    expect_kept();
}

TEST_P(LoggedEnd, IsWrittenOverPastTheCache) {
    start(bs + 1000);
    append(4000, 'b');
    ASSERT_TRUE(is_logged(bs));
    auto direct = fs->open_path("/f", O_RDWR | O_DIRECT, 0, root);
    ASSERT_TRUE(direct);
    const Aligned block('c');
    contents.replace(bs, bs, block.text());
    ASSERT_TRUE((*direct)->write(bs, std::as_bytes(std::span(block.bytes))));
    direct->reset();
    sync();
    expect_kept();
}

TEST_P(LoggedEnd, IsMadeUnwrittenAndWrittenAgain) {
    start(bs + 1000);
    append(4000, 'b');
    ASSERT_TRUE(is_logged(bs));
    const BlockNr block(block_at(bs));
    ASSERT_TRUE(file->fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, bs, bs));
    EXPECT_FALSE(fs->volume().fs().logged_data_blocks.has(block, 1));
    put(*file, bs, std::string(bs, 'c'));
    sync();
    expect_kept();
}

// More of them at once than go through the log again.
TEST_P(LoggedEnd, ManyAreWrittenOver) {
    constexpr std::size_t many = 20;
    start(1000, (many + 1) * bs);
    for (std::size_t i = 0; i < many; ++i) append(bs, static_cast<char>('A' + i));
    for (std::size_t i = 0; i < many; ++i) EXPECT_TRUE(is_logged(i * bs)) << i;
    put(*file, 0, std::string(many * bs, 'c'));
    sync();
    expect_kept();
}

// A recovery writes nothing of it over whoever has its block next.
TEST_P(LoggedEnd, IsRemoved) {
    start(bs + 1000, 64 * bs);
    append(100, 'b');
    const std::uint64_t block = block_at(bs);
    file.reset();
    auto top = fs->resolve("/", root);
    ASSERT_TRUE(top);
    ASSERT_TRUE(fs->unlink(**top, "f", root, true));
    fs->volume().inodes().shrink_to_limit();
    ASSERT_TRUE(fs->sync());
    take_all_there_is(block);
    expect_kept("/g");
}

// It moves, and leaves nothing that a recovery writes over whoever has its place next.
class LoggedEndOnceThereIsSpace : public LoggedEnd {};
TEST_P(LoggedEndOnceThereIsSpace, Moves) {
    start(bs + 1000);
    append(100, 'b');
    const std::uint64_t block = block_at(bs);
    ASSERT_TRUE(open("/fill", O_RDWR)->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 64 * bs));
    ASSERT_TRUE(fs->sync());
    append(100, 'c');
    EXPECT_NE(block_at(bs), block);
    EXPECT_FALSE(is_logged(bs));
    take_all_there_is(block);
    expect_kept("/g");
}

// Whoever reads it finds it wherever it is: on its way to the log, in it, and at home.
TEST_P(LoggedEnd, IsReadFromWhereItIs) {
    start(bs + 1000);
    put(*file, contents.size(), std::string(100, 'b'));
    Journal& journal = fs->volume().fs().journal;
    ASSERT_TRUE(Flusher::flush_all(fs->volume().inodes()));
    for (const auto& step : {+[](Journal&) { return Result<void>(); }, +[](Journal& j) { return j.commit_all(); },
                             +[](Journal& j) { return j.checkpoint_all(); }}) {
        ASSERT_TRUE(step(journal));
        forget_cached();
        EXPECT_TRUE(read_all(*file) == contents);
        forget_cached();
        auto direct = fs->open_path("/f", O_RDONLY | O_DIRECT, 0, root);
        ASSERT_TRUE(direct);
        Aligned block(0);
        const auto n = (*direct)->read(bs + 512, std::as_writable_bytes(std::span(block.bytes)).first(512));
        ASSERT_TRUE(n);
        EXPECT_EQ(*n, 512U);
        EXPECT_EQ(std::string(block.bytes, 512), contents.substr(bs + 512, 512));
    }
    EXPECT_FALSE(is_logged(bs));
}

// Of what a truncation leaves, and of what was there before it, no cut shows a zero.
TEST_P(LoggedEnd, IsCutWithinIt) {
    start(bs + 1000);
    const std::string before = contents;
    contents.resize(bs + 500);
    ASSERT_TRUE(file->truncate(contents.size()));
    EXPECT_TRUE(is_logged(bs));
    sync();
    const std::size_t acknowledged = device->log_size();
    file.reset();
    ASSERT_TRUE(fs->unmount());
    std::size_t met = 0;
    each_prefix([&](FileSystem& recovered, std::size_t cut) {
        auto there = recovered.open_path("/f", O_RDONLY, 0, root);
        if (!there) return;
        const std::string got = read_all(**there);
        if (cut < acknowledged && got != contents) {
            EXPECT_TRUE(got == before || got.empty()) << cut;
            met += got == before;
        } else {
            EXPECT_TRUE(got == contents) << cut;
        }
    });
    EXPECT_GT(met, 0U);
}

// In one batch with a block that a transaction which is not durable has put there.
TEST_P(LoggedEnd, IsOverwrittenBesideWhatIsUnderWay) {
    start(1000);
    append(bs, 'b');
    EXPECT_TRUE(is_logged(0));
    ASSERT_TRUE(open("/fill")->truncate(0));
    ASSERT_TRUE(fs->sync());
    EXPECT_TRUE(is_logged(0));
    const std::size_t behind = contents.size() - bs;
    for (const int mode : {FALLOC_FL_ZERO_RANGE, FALLOC_FL_PUNCH_HOLE})
        ASSERT_TRUE(file->fallocate(mode | FALLOC_FL_KEEP_SIZE, bs, bs));
    put(*file, bs, std::string(behind, 'c'));
    EXPECT_EQ(read_all(*open("/f", O_RDONLY | O_DIRECT)), contents);
    put(*file, 0, std::string(bs, 'd'));
    put(*file, bs, std::string(behind, 'e'));
    ASSERT_TRUE(file->sync(true));
    expect_kept();
}

const auto name_of = [](const auto& kind) { return std::string(kind.param.name); };
INSTANTIATE_TEST_SUITE_P(Kinds, LoggedEnd, testing::ValuesIn(kinds), name_of);
INSTANTIATE_TEST_SUITE_P(Kinds, LoggedEndOnceThereIsSpace, testing::Values(kinds[1]), name_of);

}  // namespace
}  // namespace uext4::crash

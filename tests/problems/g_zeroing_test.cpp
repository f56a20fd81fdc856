// Problem G: zeroing a range sees what is dirty in the cache, and only that: a tebibyte of unwritten space with one
// dirty page costs one page.
#include "settled_image.h"

#include <atomic>
#include <thread>

namespace uext4::problems {
namespace {

constexpr std::uint64_t tebibyte = std::uint64_t{1} << 40;

class Zeroing : public SettledImage {
protected:
    // Bytes of data written to the device since `from` in the log, the metadata's apart: those of the file's blocks.
    std::uint64_t written_to(OpenFile& file, std::size_t from) {
        std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
        const std::uint64_t bs = fs->volume().geometry().block_size;
        ok(fs->extents(file.inode(), 0, tebibyte, [&](const Mapping& m) {
            if (m.has_block()) places.emplace_back(m.block.value * bs, m.length);
            return true;
        }));
        const auto log = recorder->log();
        std::uint64_t sum = 0;
        for (std::size_t i = from; i < log.size(); ++i)
            for (const auto& [at, length] : places)
                if (log[i].kind != RecordedWrite::Kind::Flush && log[i].offset < at + length &&
                    at < log[i].offset + log[i].data.size())
                    sum += log[i].data.size();
        return sum;
    }
};

TEST_F(Zeroing, ATebibyteWithOneDirtyPage) {
    make("-b 4096 -N 64 -J size=64 -O ^resize_inode", "cache=4M", "1100G");
    auto file = open("/f");
    ok(file->fallocate(0, 0, tebibyte));
    ok(fs->sync());
    char* memory = map(*file, page, tebibyte / 2);
    NEED_MAP(memory);
    FileCache& cache = file->inode().pages();
    for (const int mode : {FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE}) {
        memory[5] = 'd';
        EXPECT_EQ(cache.dirty_folios(), 1u);
        const std::size_t before = recorder->log().size();
        std::atomic<bool> stop{false};
        std::uint64_t most = 0;
        std::thread looking([&] {
            while (!stop) most = std::max(most, cache.cached_folios());
        });
        ok(file->fallocate(mode, 1, tebibyte - 2));
        stop = true;
        looking.join();
        EXPECT_LE(most, 1u) << "folios in the cache";
        EXPECT_EQ(cache.dirty_folios(), 0u);
        EXPECT_LE(written_to(*file, before), page) << "bytes of the file's blocks";
        EXPECT_EQ(memory[5], 0);
        memory[6] = 'e';
        EXPECT_EQ(read(*file, 8, tebibyte / 2), std::string("\0\0\0\0\0\0e\0", 8));
        ok(file->sync(false));
    }
    ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, tebibyte));
    EXPECT_EQ(memory[6], 0);
    unmap(memory, page);
    file.reset();
    settle();
}

// The ends of a range lie in the middle of blocks: clean unwritten ones are left alone, dirty ones keep what lies
// beside the range.
TEST_F(Zeroing, TheEndsOfARange) {
    for (const char* format : {"-b 4096", "-b 1024"}) {
        make(format, "");
        auto file = open("/f");
        ok(file->fallocate(0, 0, 64 * page));
        char* memory = map(*file, 64 * page);
        NEED_MAP(memory);
        const std::size_t before = recorder->log().size();
        ok(file->fallocate(FALLOC_FL_ZERO_RANGE, 10 * page + 100, 20 * page));
        ok(file->sync(false));
        EXPECT_EQ(written_to(*file, before), 0u) << "clean unwritten blocks were written";
        memory[10 * page + 99] = 'l';
        memory[10 * page + 100] = 'i';
        memory[30 * page + 99] = 'i';
        memory[30 * page + 100] = 'r';
        ok(file->fallocate(FALLOC_FL_ZERO_RANGE, 10 * page + 100, 20 * page));
        const std::string now = read(*file, 64 * page);
        ok(file->sync(false));
        for (const std::string& bytes : {now, read(*file, 64 * page), std::string(memory, 64 * page)}) {
            EXPECT_EQ(bytes.substr(10 * page + 99, 2), std::string("l\0", 2));
            EXPECT_EQ(bytes.substr(30 * page + 99, 2), std::string("\0r", 2));
        }
        unmap(memory, 64 * page);
        file.reset();
        settle();
    }
}

// Pages become dirty by other threads while the range is zeroed again and again.
TEST_F(Zeroing, WhileOthersStore) {
    constexpr std::size_t pages = 128;
    for (const char* mode : {"data=ordered", "data=journal"}) {
        make("-b 4096 -J size=4", std::string(mode) + ",cache=1M");
        auto file = open("/f");
        ok(file->fallocate(0, 0, pages * page));
        char* memory = map(*file, pages * page);
        NEED_MAP(memory);
        std::atomic<bool> stop{false};
        std::atomic<unsigned> storing{0};
        auto large = open("/large");
        write(*large, pattern(2 << 20, 1));
        const std::uint64_t looked_at = fs->volume().fs().pages.scanned_folios();
        std::vector<std::thread> crowd;
        // Page 0 and the last one are never in the range: their threads tell whether too much is zeroed.
        for (const std::size_t own : {std::size_t{0}, pages - 1})
            crowd.emplace_back([&, own] {
                memory[own * page + 7] = 1;
                ++storing;
                for (char n = 2; !stop; n = static_cast<char>(n % 100 + 1)) {
                    memory[own * page + 7] = n;
                    EXPECT_EQ(static_cast<volatile char*>(memory)[own * page + 7], n);
                }
            });
        crowd.emplace_back([&] {
            for (std::size_t n = 0; !stop; ++n) memory[(1 + n * 7 % (pages - 2)) * page + n % page] = 's';
        });
        crowd.emplace_back([&] {
            while (!stop) {
                ok(fs->sync());
                EXPECT_EQ(read(*large, 2 << 20).size(), 2u << 20);  // more than the cache: others' pages go
            }
        });
        while (storing < 2) std::this_thread::yield();
        for (int i = 0; i < (long_run() ? 2000 : 60); ++i)
            ok(file->fallocate(FALLOC_FL_ZERO_RANGE, page, (pages - 2) * page));
        stop = true;
        for (std::thread& thread : crowd) thread.join();
        ok(file->fallocate(FALLOC_FL_ZERO_RANGE, page, (pages - 2) * page));
        const std::string seen(memory, pages * page);
        EXPECT_EQ(seen.find_first_not_of('\0', page), (pages - 1) * page + 7);
        unmap(memory, pages * page);
        ok(file->sync(false));
        EXPECT_GT(fs->volume().fs().pages.scanned_folios(), looked_at);
        large.reset();
        file.reset();
        ok(fs->unmount());
        mount(std::string(mode) + ",cache=1M");
        EXPECT_TRUE(read(*open("/f"), pages * page) == seen);
        settle();
    }
}

// Each block that was journaled is revoked, and the log has to have room for that.
TEST_F(Zeroing, OfJournaledFilesAtOnceFitsTheLog) {
    constexpr int files = 4;
    constexpr std::uint64_t size = std::uint64_t{64} << 20;
    make("-b 1024 -J size=1 -G 64", "", "600M");
    std::vector<std::unique_ptr<OpenFile>> opened;
    for (int i = 0; i < files; ++i) {
        auto file = open(fmt::format("/{}", i));
        ok(file->fallocate(0, 0, size));
        for (std::uint64_t at = 0; at < size; at += 1 << 20) write(*file, std::string(1 << 20, 'z'), at);
        ok(file->sync(false));
        const std::uint32_t flags = file->inode().flags() | format::inode_flag::journal_data;
        ok(fs->set_flags(file->inode(), flags, root, false));
        opened.push_back(std::move(file));
    }
    std::vector<std::thread> threads;
    for (auto& file : opened) threads.emplace_back([&file] { ok(file->fallocate(FALLOC_FL_ZERO_RANGE, 0, size)); });
    for (std::thread& t : threads) t.join();
    for (auto& file : opened) EXPECT_EQ(read(*file, 3, size / 2), std::string(3, '\0'));
    opened.clear();
    settle();
}

}  // namespace
}  // namespace uext4::problems

#include "device/callback_device.h"
#include "journal/buffer.h"
#include "sync/thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

namespace uext4::test {
namespace {

constexpr std::uint32_t block_size = 1024;
constexpr std::uint64_t blocks = 1000;

// Each block is filled with the low byte of its number; requests are counted.
struct Counted {
    std::atomic<unsigned> reads{0};
    std::atomic<std::uint64_t> bytes{0};
    std::atomic<bool> broken{false};
    CallbackDevice device{blocks * block_size, {.read = [this](std::uint64_t offset, void* out, std::size_t length) {
                              ++reads;
                              bytes += length;
                              if (broken) return EIO;
                              this_thread::sleep(std::chrono::milliseconds(1));
                              for (std::size_t i = 0; i < length; i += block_size)
                                  std::memset(static_cast<char*>(out) + i, static_cast<int>((offset + i) / block_size),
                                              block_size);
                              return 0;
                          }}};
};

unsigned first_byte(const BufferRef& b) { return std::to_integer<unsigned>(b->data()[0]); }

TEST(BlockMemory, GoesBackWithTheLastBlock) {
    BlockPool memory(4096);
    for (int round = 0; round < 2; ++round) {
        std::vector<BlockPool::Block> blocks;
        for (int i = 0; i < 600; ++i) {
            auto block = memory.allocate();
            ASSERT_TRUE(block) << block.error().what;
            std::memset(block->get(), i, 4096);
            blocks.push_back(std::move(*block));
        }
        for (int i = 0; i < 600; ++i) EXPECT_EQ(blocks[i][4095], static_cast<std::byte>(i)) << i;
        EXPECT_EQ(memory.chunks(), 3u);
        blocks.resize(1);
        EXPECT_EQ(memory.chunks(), 3u);
        blocks.clear();
        EXPECT_EQ(memory.chunks(), 0u);
    }
}

TEST(BufferCache, OneReadServesAllReaders) {
    Counted d;
    BufferCache cache(d.device, block_size, blocks, 1u << 20);
    std::vector<Thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back("read", [&] {
            for (std::uint64_t b = 0; b < 20; ++b) {
                auto r = cache.read(BlockNr(b), "test");
                ASSERT_TRUE(r);
                EXPECT_EQ(first_byte(*r), b);
            }
        });
    }
    for (Thread& t : threads) t.join();
    EXPECT_EQ(d.reads, 20u);
}

TEST(BufferCache, ReadAheadIsOneRequestPerRun) {
    Counted d;
    BufferCache cache(d.device, block_size, blocks, 1u << 20);
    ASSERT_TRUE(cache.read(BlockNr(104), "test"));
    cache.read_ahead(BlockNr(100), 10);
    EXPECT_EQ(d.reads, 3u);
    for (std::uint64_t b = 100; b < 110; ++b) {
        auto r = cache.read(BlockNr(b), "test");
        ASSERT_TRUE(r);
        EXPECT_EQ(first_byte(*r), b & 255);
    }
    EXPECT_EQ(d.reads, 3u);
    cache.read_ahead(BlockNr(blocks - 3), 10);
    cache.read_ahead(BlockNr(blocks + 3), 10);
    EXPECT_EQ(d.reads, 4u);
}

TEST(BufferCache, CleanBuffersBeyondTheLimitGoReferencedOnesStay) {
    Counted d;
    BufferCache cache(d.device, block_size, blocks, 64 * block_size);
    const BufferRef kept = *cache.read(BlockNr(7), "test");
    for (std::uint64_t b = 100; b < 900; ++b) ASSERT_TRUE(cache.read(BlockNr(b), "test"));
    EXPECT_LE(cache.cached_bytes(), 96 * block_size);
    EXPECT_EQ(cache.find(BlockNr(7)).get(), kept.get());
    EXPECT_FALSE(cache.find(BlockNr(100)));
    cache.invalidate_all_clean();
    EXPECT_EQ(cache.cached_bytes(), block_size);
}

TEST(BufferCache, NumbersOutsideAndFailedReadsAreErrorsWithANameInThem) {
    Counted d;
    BufferCache cache(d.device, block_size, blocks, 1u << 20);
    auto outside = cache.read(BlockNr(blocks), "extent of inode 12");
    ASSERT_FALSE(outside);
    EXPECT_EQ(outside.error().code, EUCLEAN);
    EXPECT_NE(outside.error().what.find("extent of inode 12"), std::string::npos);
    d.broken = true;
    auto failed = cache.read(BlockNr(5), "bitmap");
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, EIO);
    EXPECT_FALSE(cache.find(BlockNr(5)));
    d.broken = false;
    ASSERT_TRUE(cache.read(BlockNr(5), "bitmap"));
}

TEST(BufferCache, WhatWasDroppedIsReadAgainAndUnchecked) {
    Counted d;
    BufferCache cache(d.device, block_size, blocks, 1u << 20);
    (*cache.read(BlockNr(5), "test"))->set_kind(BlockKind::xattr);
    EXPECT_EQ((*cache.read(BlockNr(5), "test"))->kind(), BlockKind::xattr);
    cache.invalidate(BlockNr(5));
    EXPECT_FALSE(cache.find(BlockNr(5)));
    EXPECT_EQ((*cache.read(BlockNr(5), "test"))->kind(), BlockKind::unchecked);
    EXPECT_EQ(d.reads, 2u);
    const BufferRef held = *cache.read(BlockNr(5), "test");
    cache.invalidate(BlockNr(5));
    EXPECT_EQ(held->kind(), BlockKind::unchecked);
    EXPECT_EQ(first_byte(*cache.read(BlockNr(5), "test")), 5u);
}

}  // namespace
}  // namespace uext4::test

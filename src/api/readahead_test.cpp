// What goes from one end of a file to the other is read ahead, several readers at once and maps too.
#include "api/file_system.h"
#include "tests/doubles/memory_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>

namespace uext4::readahead_test {
namespace {

const Credentials root = Credentials::root();
constexpr std::uint64_t page = 4096, pages = 2048;

class CountingDevice final : public BlockDevice {
public:
    explicit CountingDevice(std::unique_ptr<MemoryDevice> memory) : memory_(std::move(memory)) {}
    std::atomic<std::uint64_t> requests{0}, bytes{0};  // of reads; a map is read by threads of its own
    std::optional<std::byte> refused;                  // blocks that begin with it cannot be read

    std::uint64_t size() const override { return memory_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return readv(offset, std::span(&out, 1)); }
    Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts) override {
        ++requests;
        for (const Bytes& part : parts) bytes += part.size();
        TRY(memory_->readv(offset, parts));
        for (const Bytes& part : parts)
            for (std::size_t at = 0; at < part.size(); at += page)
                if (refused && part[at] == *refused) return fail(EIO, "refused");
        return {};
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override { return memory_->write(offset, in); }
    Result<void> flush() override { return memory_->flush(); }
    bool read_only() const override { return false; }
    std::string name() const override { return "counting"; }

private:
    std::unique_ptr<MemoryDevice> memory_;
};

class Readahead : public testing::Test {
protected:
    void SetUp() override {
        const std::string path = fmt::format("/dev/shm/uext4-readahead-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} 64M", path).c_str()), 0);
        auto memory = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(memory);
        device_ = std::make_shared<CountingDevice>(std::move(*memory));
        mount();
        auto file = open();
        const std::vector<std::byte> bytes(pages * page, std::byte{'r'});
        ASSERT_TRUE(file->write(0, bytes));
        file.reset();
        ASSERT_TRUE(fs_->unmount());
        mount();
    }
    void mount(std::uint64_t cache = VolumeOptions().cache_bytes) {
        VolumeOptions options;
        options.background = false;
        options.cache_bytes = cache;
        auto fs = FileSystem::mount_device(device_, options);
        ASSERT_TRUE(fs) << fs.error().what;
        fs_ = std::move(*fs);
    }
    std::unique_ptr<OpenFile> open() {
        auto file = fs_->open_path("/f", O_CREAT | O_RDWR, 0644, root);
        EXPECT_TRUE(file);
        return std::move(*file);
    }
    // How many requests of the device `work` takes.
    template <class Work>
    std::uint64_t reads(Work work) {
        const std::uint64_t before = device_->requests;
        work();
        return device_->requests - before;
    }
    static void read_page(OpenFile& file, std::uint64_t number) {
        std::byte bytes[page];
        const auto n = file.read(number * page, bytes);
        ASSERT_TRUE(n && *n == page);
        ASSERT_EQ(bytes[number % page], std::byte{'r'});
    }

    std::shared_ptr<CountingDevice> device_;
    std::unique_ptr<FileSystem> fs_;
};

constexpr std::uint64_t few = pages / 32;

TEST_F(Readahead, OfOneReader) {
    auto file = open();
    EXPECT_LT(reads([&] {
                  for (std::uint64_t i = 0; i < pages; ++i) read_page(*file, i);
              }),
              few);
}

TEST_F(Readahead, OfReadersByTurns) {
    for (const std::uint64_t readers : {3, 8}) {
        ASSERT_TRUE(fs_->unmount());
        mount();
        auto file = open();
        const std::uint64_t each = pages / readers;
        EXPECT_LT(reads([&] {
                      for (std::uint64_t i = 0; i < each; ++i)
                          for (std::uint64_t reader = 0; reader < readers; ++reader)
                              read_page(*file, reader * each + i);
                  }),
                  readers * 20);
    }
}

TEST_F(Readahead, OfAReaderBesideOneWhoReadsHereAndThere) {
    auto file = open();
    constexpr std::uint64_t half = pages / 2;
    const std::uint64_t n = reads([&] {
        for (std::uint64_t i = 0; i < half; ++i) {
            read_page(*file, i);
            if (i % 8 == 0) read_page(*file, half + i * 389 % half);
        }
    });
    EXPECT_LT(n, half / 8 + few);
}

TEST_F(Readahead, NotOfWhoReadsHereAndThere) {
    auto file = open();
    constexpr std::uint64_t step = 389, some = 100;
    const std::uint64_t before = device_->bytes;
    for (std::uint64_t i = 1; i <= some; ++i) read_page(*file, i * step % pages);
    EXPECT_LT(device_->bytes - before, 2 * some * page);
}

// Requests of a mebibyte each, for as many folios; what is read is cached.
TEST_F(Readahead, OfLargePieces) {
    auto file = open();
    constexpr std::uint64_t piece = 256, pieces = pages / piece;
    std::vector<std::byte> bytes(piece * page);
    const auto read_all = [&] {
        for (std::uint64_t i = 0; i < pieces; ++i) {
            const auto n = file->read(i * bytes.size(), bytes);
            ASSERT_TRUE(n && *n == bytes.size());
            ASSERT_EQ(std::ranges::count(bytes, std::byte{'r'}), bytes.size());
        }
    };
    EXPECT_LE(reads(read_all), pieces + 4);
    EXPECT_EQ(reads(read_all), 0U);
}

// Of a file that is larger than the cache, a part stays cached, and the rest is read past it: each time anew, but no
// part throws out another.
TEST_F(Readahead, OfLargePiecesOfAFileThatDoesNotFit) {
    ASSERT_TRUE(fs_->unmount());
    constexpr std::uint64_t cache = pages * page / 2;
    mount(cache);
    auto file = open();
    std::vector<std::byte> bytes(std::size_t{1} << 20);
    for (const bool again : {false, true}) {
        const std::uint64_t before = device_->bytes;
        for (std::uint64_t at = 0; at < pages * page; at += bytes.size()) {
            const auto n = file->read(at, bytes);
            ASSERT_TRUE(n && *n == bytes.size());
            ASSERT_EQ(std::ranges::count(bytes, std::byte{'r'}), bytes.size());
        }
        EXPECT_LE(device_->bytes - before, again ? pages * page - cache * 3 / 4 : pages * page + 16 * page);
        EXPECT_LE(fs_->volume().fs().pages.used_bytes(), cache + bytes.size());
    }
    // What is written to it is seen, wherever it is.
    const std::vector<std::byte> other(3 * page, std::byte{'w'});
    for (const std::uint64_t at : {page, pages * page - 5 * page}) ASSERT_TRUE(file->write(at, other));
    for (const std::uint64_t at : {std::uint64_t{0}, pages * page - bytes.size()}) {
        ASSERT_TRUE(file->read(at, bytes));
        EXPECT_EQ(std::ranges::count(bytes, std::byte{'w'}), other.size());
    }
}

TEST_F(Readahead, OfAMap) {
    auto file = open();
    const auto memory = file->map(0, pages * page, PROT_READ, MAP_SHARED);
    if (!memory) GTEST_SKIP() << memory.error().what;
    const auto* bytes = static_cast<const volatile char*>(*memory);
    EXPECT_LT(reads([&] {
                  for (std::uint64_t i = 0; i < pages; ++i) ASSERT_EQ(bytes[i * page], 'r');
              }),
              few);
    ASSERT_TRUE(ClientMaps::unmap(*memory, pages * page));
}

TEST_F(Readahead, OfStoresThroughAMap) {
    auto file = open();
    const auto memory = file->map(0, pages * page, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!memory) GTEST_SKIP() << memory.error().what;
    auto* bytes = static_cast<volatile char*>(*memory);
    EXPECT_LT(reads([&] {
                  for (std::uint64_t i = 0; i < pages; ++i) bytes[i * page] = 's';
              }),
              few);
    ASSERT_TRUE(ClientMaps::unmap(*memory, pages * page));
}

// More of them than the cache could read ahead for as far as it does for one: what is read ahead and goes before it is
// used was read in vain, so they get less.
class ReadaheadOfMany : public Readahead {
protected:
    static constexpr std::uint64_t readers = 64, each = 128, cache = 8 << 20;
    void SetUp() override {
        Readahead::SetUp();
        const std::vector<std::byte> bytes(each * page, std::byte{'r'});
        for (std::uint64_t i = 0; i < readers; ++i) ASSERT_TRUE(open_one(i)->write(0, bytes));
        ASSERT_TRUE(fs_->unmount());
        VolumeOptions options;
        options.background = false;
        options.cache_bytes = cache;
        auto fs = FileSystem::mount_device(device_, options);
        ASSERT_TRUE(fs) << fs.error().what;
        fs_ = std::move(*fs);
        for (std::uint64_t i = 0; i < readers; ++i) files_.push_back(open_one(i));
    }
    std::unique_ptr<OpenFile> open_one(std::uint64_t number) {
        auto file = fs_->open_path(fmt::format("/{}", number), O_CREAT | O_RDWR, 0644, root);
        EXPECT_TRUE(file);
        return std::move(*file);
    }
    std::vector<std::unique_ptr<OpenFile>> files_;
};

TEST_F(ReadaheadOfMany, ReadByTurns) {
    const std::uint64_t before = device_->bytes;
    const std::uint64_t n = reads([&] {
        for (std::uint64_t i = 0; i < each; ++i)
            for (const auto& file : files_) read_page(*file, i);
    });
    EXPECT_LT(device_->bytes - before, 2 * readers * each * page);
    EXPECT_LT(n, readers * each / 4);
}

TEST_F(ReadaheadOfMany, ThroughMapsByTurns) {
    std::vector<void*> maps;
    for (const auto& file : files_) {
        const auto memory = file->map(0, each * page, PROT_READ, MAP_SHARED);
        if (!memory) GTEST_SKIP() << memory.error().what;
        maps.push_back(*memory);
    }
    const std::uint64_t before = device_->bytes;
    const std::uint64_t n = reads([&] {
        for (std::uint64_t i = 0; i < each; ++i)
            for (const void* map : maps) ASSERT_EQ(static_cast<const volatile char*>(map)[i * page], 'r');
    });
    EXPECT_LT(device_->bytes - before, 2 * readers * each * page);
    EXPECT_LT(n, readers * each / 4);
    for (void* map : maps) ASSERT_TRUE(ClientMaps::unmap(map, each * page));
}

// A block that cannot be read is an error for who reads it, not for who comes near.
class ReadaheadOverABadBlock : public Readahead {
protected:
    void SetUp() override {
        Readahead::SetUp();
        const std::vector<std::byte> other(page, std::byte{'b'});
        ASSERT_TRUE(open()->write(bad * page, other));
        ASSERT_TRUE(fs_->unmount());
        device_->refused = std::byte{'b'};
        mount();
    }
    static constexpr std::uint64_t bad = 1000;
};

TEST_F(ReadaheadOverABadBlock, OfOneReader) {
    auto file = open();
    for (std::uint64_t i = 0; i < 1500; ++i) {
        std::byte bytes[page];
        const auto n = file->read(i * page, bytes);
        if (i == bad) {
            ASSERT_FALSE(n);
            EXPECT_EQ(n.error().code, EIO);
        } else {
            ASSERT_TRUE(n) << "page " << i << ": " << n.error().what;
            EXPECT_EQ(*n, page);
        }
    }
}

TEST_F(ReadaheadOverABadBlock, OfARequestThatReachesIt) {
    auto file = open();
    constexpr std::uint64_t before = 5;
    std::vector<std::byte> bytes(16 * page);
    const auto n = file->read((bad - before) * page, bytes);
    ASSERT_TRUE(n) << n.error().what;
    EXPECT_EQ(*n, before * page);
    for (std::uint64_t i = 0; i < before; ++i) EXPECT_EQ(bytes[i * page], std::byte{'r'});
    const auto none = file->read(bad * page, bytes);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, EIO);
    const auto behind = file->read((bad + 1) * page, bytes);
    ASSERT_TRUE(behind) << behind.error().what;
    EXPECT_EQ(*behind, bytes.size());
}

TEST_F(ReadaheadOverABadBlock, OfAMap) {
    auto file = open();
    for (const int protection : {PROT_READ, PROT_READ | PROT_WRITE}) {
        const auto memory = file->map(0, pages * page, protection, MAP_SHARED);
        if (!memory) GTEST_SKIP() << memory.error().what;
        int ends[2];
        ASSERT_EQ(::pipe(ends), 0);
        for (std::uint64_t i = 0; i < 1500; ++i) {
            char* at = static_cast<char*>(*memory) + i * page;
            // The kernel looks at the memory: EFAULT where the program would get SIGBUS.
            const bool can = protection == PROT_READ ? ::write(ends[1], at, 1) == 1
                                                     : ::write(ends[1], "s", 1) == 1 && ::read(ends[0], at, 1) == 1;
            EXPECT_EQ(can, i != bad) << "page " << i;
            if (can == (protection == PROT_READ)) {
                char byte = 0;
                ASSERT_EQ(::read(ends[0], &byte, 1), 1);
            }
        }
        ::close(ends[0]);
        ::close(ends[1]);
        ASSERT_TRUE(ClientMaps::unmap(*memory, pages * page));
        file.reset();
        ASSERT_TRUE(fs_->unmount());
        mount();
        file = open();
    }
}

}  // namespace
}  // namespace uext4::readahead_test

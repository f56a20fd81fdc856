// What a map shows and what read and write show is one thing, at once and after a new mount.
#include "mapped_image.h"

#include <sys/wait.h>

#include <atomic>
#include <iterator>
#include <map>
#include <thread>

namespace uext4::test::coherence_test {
namespace {

constexpr std::size_t page = 4096;

struct Format {
    const char* name;
    const char* mke2fs;
    const char* options;
};

class Coherence : public MappedImage, public testing::WithParamInterface<Format> {
protected:
    void SetUp() override { make(GetParam().mke2fs, GetParam().options); }
};

TEST_P(Coherence, StoresAreReadAndWritesAreSeen) {
    NEED_MAPS();
    uext4_file* file = open("/f");
    std::string model = pattern(10 * page + 100, 1);
    write(file, model);
    char* memory = map(file, 11 * page);
    EXPECT_EQ(std::string(memory, model.size()), model);
    for (const std::size_t at : {std::size_t{0}, page - 1, 3 * page + 5, 10 * page + 99}) {
        memory[at] = '#';
        model[at] = '#';
    }
    EXPECT_EQ(read(file, model.size()), model);
    const std::string more = pattern(3 * page, 2);
    write(file, more, 2 * page + 17);
    model.replace(2 * page + 17, more.size(), more);
    EXPECT_EQ(std::string(memory, model.size()), model);
    EXPECT_EQ(uext4_msync(memory, 11 * page, MS_SYNC), 0) << uext4_strerror();
    memory[5 * page] = '@';
    model[5 * page] = '@';
    EXPECT_EQ(uext4_unmap(memory, 11 * page), 0) << uext4_strerror();
    EXPECT_EQ(read(file, model.size()), model);
    uext4_close(file);
    unmount();
    mount(GetParam().options);
    file = open("/f", O_RDONLY);
    EXPECT_EQ(read(file, model.size() + 10), model);
    uext4_close(file);
}

TEST_P(Coherence, ManyMapsOfOneFile) {
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, pattern(64 * page, 3));
    char* whole = map(file, 64 * page);
    std::vector<char*> parts;
    for (int i = 0; i < 16; ++i) parts.push_back(map(file, 4 * page, static_cast<off_t>(i * 4 * page)));
    for (std::size_t i = 0; i < 16; ++i) {
        parts[i][page + i] = 'x';
        EXPECT_EQ(whole[i * 4 * page + page + i], 'x');
        whole[i * 4 * page + 2 * page] = 'y';
        EXPECT_EQ(parts[i][2 * page], 'y');
    }
    EXPECT_EQ(std::memcmp(read(file, 64 * page).data(), whole, 64 * page), 0);
    // Parts of a map, and a stretch across two maps' ends.
    EXPECT_EQ(uext4_unmap(whole + 8 * page, 8 * page), 0);
    whole[7 * page] = 'z';
    whole[16 * page] = 'z';
    EXPECT_EQ(read(file, 1, 7 * page), "z");
    EXPECT_EQ(read(file, 1, 16 * page), "z");
    EXPECT_EQ(uext4_unmap(whole, 64 * page), 0);
    for (char* part : parts) EXPECT_EQ(uext4_unmap(part, 4 * page), 0);
    EXPECT_EQ(uext4_unmap(whole, 64 * page), -EINVAL);
    uext4_close(file);
    unmount();
}

TEST_P(Coherence, TruncateAndPunchTakePagesAway) {
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, pattern(8 * page, 4));
    char* memory = map(file, 8 * page);
    std::memset(memory, 'a', 8 * page);
    ASSERT_EQ(uext4_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * page, 2 * page), 0)
        << uext4_strerror();
    EXPECT_EQ(std::string(memory + 2 * page, 2 * page), std::string(2 * page, 0));
    EXPECT_EQ(memory[2 * page - 1], 'a');
    memory[3 * page] = 'b';
    EXPECT_EQ(read(file, 2, 3 * page), std::string("b\0", 2));
    ASSERT_EQ(uext4_ftruncate(file, 5 * page + 10), 0);
    EXPECT_EQ(memory[5 * page + 9], 'a');
    EXPECT_EQ(memory[5 * page + 10], 0);
    EXPECT_TRUE(refused([&] { (void)*static_cast<volatile char*>(memory + 6 * page); }));
    EXPECT_TRUE(refused([&] { memory[7 * page] = 'x'; }));
    // Bytes past the end are nobody's: they do not come back when the file grows.
    memory[5 * page + 20] = 'q';
    ASSERT_EQ(uext4_ftruncate(file, 8 * page), 0);
    EXPECT_EQ(memory[5 * page + 20], 0);
    EXPECT_EQ(memory[7 * page + 3], 0);
    memory[7 * page + 3] = 'r';
    EXPECT_EQ(read(file, 1, 7 * page + 3), "r");
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    uext4_close(file);
    unmount();
}

TEST_P(Coherence, PrivateMapsKeepTheirStores) {
    NEED_MAPS();
    uext4_file* file = open("/f");
    const std::string bytes = pattern(4 * page, 5);
    write(file, bytes);
    char* own = map(file, 4 * page, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    EXPECT_EQ(own[10], bytes[10]);
    own[10] = '!';
    own[page] = '?';
    EXPECT_EQ(read(file, bytes.size()), bytes);
    write(file, "W", 2 * page);
    EXPECT_EQ(own[2 * page], 'W');
    EXPECT_EQ(own[10], '!');
    EXPECT_EQ(uext4_unmap(own, 4 * page), 0);
    uext4_close(file);
    unmount();
}

TEST_P(Coherence, FilesGrowUnderTheirMaps) {
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, "start");
    char* memory = map(file, 16 * page);
    EXPECT_EQ(std::string(memory, 5), "start");
    memory[5] = 'X';  // past the end, in the file's last page
    write(file, "!", 9);
    EXPECT_EQ(std::string(memory, 10), std::string("start\0\0\0\0!", 10));
    EXPECT_EQ(read(file, 20), std::string("start\0\0\0\0!", 10));
    memory[6] = 'Y';
    const std::string more = pattern(3 * page, 6);
    write(file, more, 4 * page - 10);
    EXPECT_EQ(memory[6], 'Y');
    EXPECT_EQ(std::string(memory + 4 * page - 10, more.size()), more);
    memory[2 * page] = 'H';  // a hole
    EXPECT_EQ(read(file, 2, 2 * page), std::string("H\0", 2));
    EXPECT_EQ(uext4_unmap(memory, 16 * page), 0);
    uext4_close(file);
    unmount();
}

TEST_P(Coherence, ThreadsStoreWhileTheFileIsSynced) {
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(32 * page, 0));
    char* memory = map(file, 32 * page);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (unsigned round = 0; round < 50; ++round)
                for (std::size_t p = 0; p < 32; ++p) memory[p * page + t * 64] = static_cast<char>(round + 1);
        });
    for (int i = 0; i < 20; ++i) EXPECT_EQ(uext4_fsync(file), 0) << uext4_strerror();
    for (auto& thread : threads) thread.join();
    for (std::size_t p = 0; p < 32; ++p)
        for (std::size_t t = 0; t < 4; ++t) ASSERT_EQ(memory[p * page + t * 64], 50) << p << " " << t;
    EXPECT_EQ(uext4_msync(memory, 32 * page, MS_SYNC), 0);
    EXPECT_EQ(uext4_unmap(memory, 32 * page), 0);
    uext4_close(file);
    unmount();
    mount(GetParam().options);
    file = open("/f", O_RDONLY);
    const std::string now = read(file, 32 * page);
    for (std::size_t p = 0; p < 32; ++p)
        for (std::size_t t = 0; t < 4; ++t) ASSERT_EQ(now[p * page + t * 64], 50) << p << " " << t;
    uext4_close(file);
}

TEST_P(Coherence, ASmallCacheGivesMappedPagesUp) {
    NEED_MAPS();
    unmount();
    mount(std::string(GetParam().options) + (*GetParam().options ? "," : "") + "cache=4M");
    uext4_file* file = open("/f");
    const std::size_t pages = 4096;  // 16 MiB
    ASSERT_EQ(uext4_ftruncate(file, pages * page), 0);
    char* memory = map(file, pages * page);
    for (std::size_t p = 0; p < pages; ++p) memory[p * page + p % page] = static_cast<char>(p % 120 + 1);
    for (std::size_t p = 0; p < pages; ++p) ASSERT_EQ(memory[p * page + p % page], static_cast<char>(p % 120 + 1)) << p;
    EXPECT_EQ(uext4_unmap(memory, pages * page), 0);
    uext4_close(file);
    unmount();
    mount(GetParam().options);
    file = open("/f", O_RDONLY);
    const std::string now = read(file, pages * page);
    for (std::size_t p = 0; p < pages; ++p) ASSERT_EQ(now[p * page + p % page], static_cast<char>(p % 120 + 1)) << p;
    uext4_close(file);
}

TEST_P(Coherence, AChildHasNoMap) {
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, pattern(page, 7));
    char* memory = map(file, page);
    memory[0] = 'p';
    const pid_t child = ::fork();
    if (child == 0) ::_exit(refused([&] { (void)*static_cast<volatile char*>(memory); }) ? 0 : 1);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    memory[1] = 'q';
    EXPECT_EQ(read(file, 2), "pq");
    EXPECT_EQ(uext4_unmap(memory, page), 0);
    uext4_close(file);
}

INSTANTIATE_TEST_SUITE_P(Formats, Coherence,
                         testing::Values(Format{"plain", "-t ext4 -b 4096", ""},
                                         Format{"block_1k", "-t ext4 -b 1024", ""},
                                         Format{"inline_data", "-t ext4 -b 4096 -I 256 -O inline_data", ""},
                                         Format{"indirect", "-t ext4 -b 4096 -O ^extents,^64bit", ""},
                                         Format{"bigalloc", "-t ext4 -b 4096 -O bigalloc -C 16384", ""},
                                         Format{"journaled", "-t ext4 -b 4096", "data=journal"},
                                         Format{"journaled_1k", "-t ext4 -b 1024", "data=journal"},
                                         Format{"journaled_inline", "-t ext4 -b 4096 -O inline_data", "data=journal"}),
                         [](const auto& format) { return std::string(format.param.name); });

// As the kernel's: what a private map has stored goes with the pages, also where a block is larger than a page.
class PrivateMaps : public MappedImage, public testing::WithParamInterface<const char*> {};

TEST_P(PrivateMaps, LoseTheirCopiesToATruncate) {
    make(std::string("-t ext4 ") + GetParam());
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, pattern(8 * page, 1));
    char* memory = map(file, 8 * page, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    const auto at = [&](std::size_t offset) -> volatile char& { return const_cast<volatile char*>(memory)[offset]; };
    volatile char seen = 0;
    for (const std::size_t offset : {std::size_t{0}, page, 2 * page + 7, 5 * page}) at(offset) = 'z';
    ASSERT_EQ(uext4_ftruncate(file, page + 100), 0);
    EXPECT_EQ(at(0), 'z');
    EXPECT_EQ(at(page), 'z');
    EXPECT_TRUE(refused([&] { seen = at(2 * page + 7); }));
    EXPECT_TRUE(refused([&] { seen = at(5 * page); }));
    ASSERT_EQ(uext4_ftruncate(file, 8 * page), 0);
    EXPECT_EQ(at(2 * page + 7), 0);
    EXPECT_EQ(at(5 * page), 0);
    EXPECT_EQ(at(page), 'z');
    EXPECT_EQ(seen, 0);
    EXPECT_EQ(read(file, 1, page), pattern(page + 1, 1).substr(page));
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    uext4_close(file);
    unmount();
}

// A commit copies the block in which the file ends while the file is cut inside of it. The map shows the file, but for
// the pages that it has stored to, for as long as the file reaches them.
TEST_P(PrivateMaps, AreCutBesideCommits) {
    make(std::string("-t ext4 -J size=64 ") + GetParam(), "data=journal", "256M");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, pattern(30 * page, 1));
    char* memory = map(file, 32 * page, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    const auto shown = [&](std::size_t p) { return std::string(memory + p * page, page); };
    std::map<std::size_t, std::string> own;  // by the number of the page
    std::size_t kept = 0, lost = 0;
    std::atomic<bool> over{false};
    std::thread syncing([&] {
        while (!over.load()) EXPECT_EQ(uext4_fsync(file), 0);
    });
    for (unsigned i = 0; i < 400 && !HasFailure(); ++i) {
        SCOPED_TRACE(i);
        const std::size_t size = (1 + i * 7 % 29) * page - i % 3 * 100, pages = (size + page - 1) / page;
        std::string bytes = pattern(30 * page, i);
        write(file, bytes);
        // Every other time also that in which the file will end.
        for (const std::size_t p : {std::size_t{i * 11 % 30}, i % 2 == 0 ? pages - 1 : std::size_t{i * 13 % 30}}) {
            std::string& copy = own.try_emplace(p, bytes.substr(p * page, page)).first->second;
            EXPECT_TRUE(shown(p) == copy) << "page " << p << ", before the store";
            memory[p * page + i % page] = copy[i % page] = static_cast<char>(~i);
        }
        EXPECT_EQ(uext4_ftruncate(file, static_cast<off_t>(size)), 0);
        EXPECT_TRUE(read(file, 32 * page) == bytes.substr(0, size));
        lost += static_cast<std::size_t>(std::distance(own.lower_bound(pages), own.end()));
        own.erase(own.lower_bound(pages), own.end());
        kept += own.size();
        bytes = bytes.substr(0, size) + std::string(pages * page - size, 0);
        for (std::size_t p = 0; p < pages; ++p) {
            const auto copy = own.find(p);
            EXPECT_TRUE(shown(p) == (copy != own.end() ? copy->second : bytes.substr(p * page, page))) << "page " << p;
        }
        EXPECT_TRUE(refused([&] { (void)*static_cast<volatile char*>(memory + pages * page); }));
    }
    over.store(true);
    syncing.join();
    EXPECT_GT(kept, 0U);
    EXPECT_GT(lost, 0U);
    EXPECT_EQ(uext4_unmap(memory, 32 * page), 0);
    uext4_close(file);
    unmount();
}

INSTANTIATE_TEST_SUITE_P(Blocks, PrivateMaps, testing::Values("-b 1024", "-b 4096", "-b 16384", "-b 65536"));

}  // namespace
}  // namespace uext4::test::coherence_test

// Small files stay in their inodes when they are written through maps; journaled contents keep their checksums.
#include "mapped_image.h"

#include <linux/fs.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

namespace uext4::test::journaled_test {
namespace {

constexpr std::size_t page = 4096;

class Stored : public MappedImage {};

std::string debugfs(const std::string& image, const std::string& command) {
    std::string out;
    std::FILE* pipe = ::popen(fmt::format("debugfs -R '{}' {} 2>/dev/null", command, image).c_str(), "r");
    char buffer[4096];
    std::size_t n = 0;
    while ((n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0) out.append(buffer, n);
    ::pclose(pipe);
    return out;
}

TEST_F(Stored, SmallFilesStayInline) {
    for (const char* options : {"", "data=journal"}) {
        make("-t ext4 -b 4096 -I 256 -O inline_data", options);
        NEED_MAPS();
        uext4_file* file = open("/small");
        write(file, "0123456789");
        char* memory = map(file, page);
        memory[3] = '#';
        ASSERT_EQ(uext4_msync(memory, page, MS_SYNC), 0) << uext4_strerror();
        memory[4] = '$';
        EXPECT_EQ(uext4_unmap(memory, page), 0);
        uext4_close(file);
        unmount();
        EXPECT_NE(debugfs(path_, "stat /small").find("Flags: 0x10000000"), std::string::npos)
            << debugfs(path_, "stat /small");
        // debugfs prints the whole area of inline contents.
        EXPECT_EQ(debugfs(path_, "cat /small").substr(0, 10), "012#$56789");
        EXPECT_NE(debugfs(path_, "stat /small").find("Size: 10\n"), std::string::npos);
    }
}

TEST_F(Stored, MappedContentsLeaveTheInodeWhenTheyGrow) {
    for (const char* options : {"", "data=journal"}) {
        make("-t ext4 -b 4096 -I 256 -O inline_data", options);
        NEED_MAPS();
        uext4_file* file = open("/f");
        write(file, "0123456789");
        char* memory = map(file, 2 * page);
        memory[3] = '#';
        write(file, pattern(page, 1), 10);
        memory[4] = '$';
        const std::string expected = "012#$56789" + pattern(page, 1);
        EXPECT_EQ(read(file, 2 * page), expected);
        // Attributes take the room of contents that a map has made dirty.
        uext4_file* other = open("/g");
        write(other, std::string(100, 'g'));
        char* small = map(other, page);
        small[0] = 'h';
        const std::string value(60, 'v');
        ASSERT_EQ(uext4_fsetxattr(other, "user.name", value.data(), value.size(), 0), 0) << uext4_strerror();
        small[1] = 'i';
        EXPECT_EQ(uext4_unmap(small, page), 0);
        EXPECT_EQ(uext4_unmap(memory, 2 * page), 0);
        EXPECT_EQ(read(other, 200), "hi" + std::string(98, 'g'));
        uext4_close(file);
        uext4_close(other);
        unmount();
        EXPECT_EQ(debugfs(path_, "cat /f"), expected);
        EXPECT_EQ(debugfs(path_, "cat /g"), "hi" + std::string(98, 'g'));
    }
}

// Stores go on while transactions commit; a copy of the image taken in the middle replays with good checksums, and what
// was synced before is there.
TEST_F(Stored, CommitsUnderStoresReplay) {
    for (const char* format : {"-t ext4 -b 4096", "-t ext4 -b 1024"}) {
        make(format, "data=journal");
        NEED_MAPS();
        uext4_file* file = open("/f");
        write(file, std::string(16 * page, 0));
        char* memory = map(file, 16 * page);
        for (std::size_t p = 0; p < 16; ++p) memory[p * page] = 'S';
        ASSERT_EQ(uext4_fsync(file), 0);
        std::atomic<bool> stop{false};
        std::thread stores([&] {
            for (unsigned n = 1; !stop; ++n)
                for (std::size_t p = 0; p < 16; ++p) memory[p * page + 8 + n % 500] = static_cast<char>(n);
        });
        for (int i = 0; i < 8; ++i) {
            EXPECT_EQ(uext4_fsync(file), 0) << uext4_strerror();
            EXPECT_EQ(std::system(fmt::format("cp --sparse=always {0} {0}.cut", path_).c_str()), 0);
            const int replayed =
                std::system(fmt::format("e2fsck -E journal_only -y {}.cut >/dev/null 2>&1", path_).c_str());
            EXPECT_LE(WEXITSTATUS(replayed), 1);
            judge(path_ + ".cut");
            const std::string contents = debugfs(path_ + ".cut", "cat /f");
            ASSERT_EQ(contents.size(), 16 * page);
            for (std::size_t p = 0; p < 16; ++p) EXPECT_EQ(contents[p * page], 'S');
            ::unlink((path_ + ".cut").c_str());
        }
        stop = true;
        stores.join();
        const std::string last(memory, 16 * page);
        EXPECT_EQ(uext4_unmap(memory, 16 * page), 0);
        uext4_close(file);
        unmount();
        EXPECT_EQ(debugfs(path_, "cat /f"), last);
    }
}

TEST_F(Stored, TheJournalFlagIsSwitchedUnderAMap) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(4 * page, 'a'));
    char* memory = map(file, 4 * page);
    unsigned int flags = 0;
    ASSERT_EQ(uext4_getflags(fs, "/f", &flags), 0);
    for (int round = 0; round < 6; ++round) {
        memory[page] = static_cast<char>('a' + round);
        ASSERT_EQ(uext4_setflags(fs, "/f", round % 2 ? flags : flags | FS_JOURNAL_DATA_FL), 0) << uext4_strerror();
        memory[2 * page] = static_cast<char>('A' + round);
        EXPECT_EQ(read(file, 1, page), std::string(1, static_cast<char>('a' + round)));
    }
    const std::string last(memory, 4 * page);
    EXPECT_EQ(uext4_unmap(memory, 4 * page), 0);
    uext4_close(file);
    unmount();
    EXPECT_EQ(debugfs(path_, "cat /f"), last);
}

}  // namespace
}  // namespace uext4::test::journaled_test

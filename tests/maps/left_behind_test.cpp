// mremap(2) that leaves a map where it was, or makes a second one of the same pages: both are the library's.
#include "remapped_image.h"

namespace uext4::test::left_behind_test {
namespace {

class LeftBehind : public RemappedImage {};

// mremap(2) of no bytes of a shared map makes another of the same pages; the kernel refuses that of a private one.
TEST_P(LeftBehind, AsASecondMap) {
    begin();
    NEED_MAPS();
    char* memory = grown(4, 8);
    void* twin = ::mremap(memory + 5 * page, 0, 2 * page, MREMAP_MAYMOVE);
    if (!is_shared()) {
        EXPECT_EQ(twin, MAP_FAILED);
        EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
        end();
        return;
    }
    ASSERT_NE(twin, MAP_FAILED) << strerror(errno);
    char* const second = static_cast<char*>(twin);
    {
        const Watchdog watchdog(std::chrono::seconds(30));
        EXPECT_EQ(uext4_pwrite(file, second + page, page, 6 * page), static_cast<ssize_t>(page));
    }
    expect_pages(second, 2, 5);
    EXPECT_EQ(load(memory + 5 * page + 1), 'S');
    ASSERT_EQ(uext4_fsync(file), 0);
    second[2] = 'T';
    EXPECT_EQ(read(file, 1, 5 * page + 2), "T");
    EXPECT_EQ(uext4_unmap(second, 2 * page), 0) << uext4_strerror();
    EXPECT_FALSE(is_mapped(second));
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    end();
}

// mremap(2) with MREMAP_DONTUNMAP leaves a map of the same pages in the old place.
TEST_P(LeftBehind, InTheOldPlace) {
    begin();
    NEED_MAPS();
    constexpr int dont_unmap = 4;
    char* memory = grown(4, 8);
    void* other = ::mremap(memory, 8 * page, 8 * page, MREMAP_MAYMOVE | dont_unmap, nullptr);
    if (other == MAP_FAILED) {
        EXPECT_EQ(errno, EINVAL);  // an older kernel, or a private map of one
        EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
        end();
        return;
    }
    char* const moved = static_cast<char*>(other);
    const Watchdog watchdog(std::chrono::seconds(30));
    expect_pages(moved, 8, 0);
    write(file, letters());
    EXPECT_EQ(uext4_pread(file, memory + page, page, page), static_cast<ssize_t>(page)) << uext4_strerror();
    expect_pages(memory, 8, 0);
    EXPECT_EQ(uext4_unmap(moved, 8 * page), 0);
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    for (const char* left : {moved, moved + 7 * page, memory, memory + 7 * page}) EXPECT_FALSE(is_mapped(left));
    end();
}

// With the rights of the map that has left it, whatever other maps of the file there are.
TEST_P(LeftBehind, InTheOldPlaceBesideOthers) {
    begin();
    NEED_MAPS();
    constexpr int dont_unmap = 4;
    uext4_file* read_only = open("/f", O_RDONLY);
    char* other = map(read_only, 4 * page, 0, PROT_READ, MAP_PRIVATE);
    char* shared = map(read_only, 4 * page, 0, PROT_READ, MAP_SHARED);
    char* memory = map(file, 4 * page, 0, PROT_READ | PROT_WRITE, GetParam().flags);
    void* moved = ::mremap(memory, 4 * page, 4 * page, MREMAP_MAYMOVE | dont_unmap, nullptr);
    if (moved != MAP_FAILED) {
        expect_pages(memory, 4, 0);
        EXPECT_EQ(uext4_unmap(moved, 4 * page), 0);
    }
    for (char* one : {memory, other, shared}) EXPECT_EQ(uext4_unmap(one, 4 * page), 0);
    uext4_close(read_only);
    end();
}

INSTANTIATE_TEST_SUITE_P(Modes, LeftBehind, all_modes(), name_of);

}  // namespace
}  // namespace uext4::test::left_behind_test

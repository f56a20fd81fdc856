#include "pagecache/page_cache.h"

#include "pagecache/file_cache.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace uext4 {
namespace {

constexpr std::uint32_t size = 4096;

std::uint64_t resident_bytes() {
    std::uint64_t all = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> all >> resident;
    return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

// Of the mapping that has this address: two letters each (proc_pid_smaps(5)).
std::string vm_flags(const void* address) {
    std::ifstream maps("/proc/self/smaps");
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    bool inside = false;
    for (std::string line; std::getline(maps, line);) {
        std::uintptr_t first = 0, end = 0;
        char dash = 0;
        std::istringstream words(line);
        if (words >> std::hex >> first >> dash >> end && dash == '-') inside = first <= at && at < end;
        else if (inside && line.starts_with("VmFlags:")) return line;
    }
    return {};
}

class Reclaim : public testing::Test {
protected:
    // A folio more, for which there is to be room, as who writes asks for it.
    void add(std::uint64_t index, bool dirty) {
        if (cache.needs_reclaim()) cache.reclaim();
        Result<LockedFolio> folio = file.lock(index, true);
        ASSERT_TRUE(folio && *folio);
        if (!dirty) return;
        (*folio)->uptodate = 1;
        file.mark_dirty(*folio, 1);
    }
    void clean(std::uint64_t index) {
        Result<LockedFolio> folio = file.lock(index, false);
        ASSERT_TRUE(folio && *folio);
        file.clear_dirty(*folio, 1);
    }

    static constexpr std::uint64_t most = 2048;
    PageCache cache{most * size, size, size};
    FileCache file{cache, 1};
};

TEST_F(Reclaim, WhereNothingCanBeTakenIsNotLookedAtAnewForEachFolio) {
    constexpr std::uint64_t more = 1024;
    for (std::uint64_t i = 0; i < most + more; ++i) ASSERT_NO_FATAL_FAILURE(add(i, true));
    EXPECT_EQ(file.cached_folios(), most + more);
    EXPECT_LE(cache.scanned_folios(), more * 256);
    for (std::uint64_t i = 0; i < most + more; ++i) ASSERT_NO_FATAL_FAILURE(clean(i));
    // Now all of it can.
    for (std::uint64_t i = 0; i < most; ++i) ASSERT_NO_FATAL_FAILURE(add(most + more + i, false));
    EXPECT_LE(cache.used_bytes(), cache.limit() + size);
}

TEST_F(Reclaim, KeepsNoMoreThanIsEnoughOfWhatIsWritten) {
    constexpr std::uint64_t enough = most / 2, dirty = most / 4 * 3;
    cache.set_clean_limit(enough * size);
    for (std::uint64_t i = 0; i < most; ++i) ASSERT_NO_FATAL_FAILURE(add(i, false));
    EXPECT_LE(cache.used_bytes(), (enough + 1) * size);
    // What is not written has all of the cache.
    for (std::uint64_t i = 0; i < dirty; ++i) ASSERT_NO_FATAL_FAILURE(add(most + i, true));
    EXPECT_EQ(cache.dirty_bytes(), dirty * size);
    for (std::uint64_t i = 0; i < dirty; ++i) ASSERT_NO_FATAL_FAILURE(clean(most + i));
    for (std::uint64_t i = 0; i < enough; ++i) ASSERT_NO_FATAL_FAILURE(add(2 * most + i, false));
    EXPECT_LE(cache.used_bytes(), (enough + 1) * size);
}

// What was looked at in vain when more was used is not what there is now.
TEST_F(Reclaim, GoesByWhatIsUsedNow) {
    for (std::uint64_t i = 0; i < 2 * most; ++i) ASSERT_NO_FATAL_FAILURE(add(i, true));
    file.remove(0, most + most / 2);
    for (std::uint64_t i = most + most / 2; i < 2 * most; ++i) ASSERT_NO_FATAL_FAILURE(clean(i));
    std::uint64_t most_used = 0;
    for (std::uint64_t i = 2 * most; i < 4 * most; ++i) {
        ASSERT_NO_FATAL_FAILURE(add(i, false));
        most_used = std::max(most_used, cache.used_bytes());
    }
    EXPECT_LE(most_used, cache.limit() + cache.limit() / 32);
}

// What others have taken of the cache's memory is not there for folios; a quarter of it is, always. What folios have
// left goes back to the system.
TEST_F(Reclaim, LeavesWhatOthersHaveTaken) {
    std::uint64_t others = 0;
    PageCache shared(most * size, size, size);
    shared.set_other_users([&others] { return others; });
    FileCache mine(shared, 7);
    const auto fill = [&](std::uint64_t from) {
        for (std::uint64_t i = from; i < from + 2 * most; ++i) {
            if (shared.needs_reclaim()) shared.reclaim();
            Result<LockedFolio> folio = mine.lock(i, true);
            ASSERT_TRUE(folio && *folio);
            (*folio)->data[0] = std::byte{1};
        }
    };
    ASSERT_NO_FATAL_FAILURE(fill(0));
    EXPECT_GE(shared.used_bytes(), most * size / 2);
    const std::uint64_t before = resident_bytes();
    others = most * size / 2;
    EXPECT_EQ(shared.limit(), most * size / 2);
    ASSERT_NO_FATAL_FAILURE(fill(2 * most));
    EXPECT_LE(shared.used_bytes(), most * size / 2 + size);
    EXPECT_LE(resident_bytes(), before - most * size / 4);
    others = 100 * most * size;
    EXPECT_EQ(shared.limit(), most * size / 4);
    EXPECT_EQ(shared.dirty_limit(), most * size / 4);  // what is dirty is never more than there is room for
    // What is idle goes back as well.
    others = 0;
    ASSERT_NO_FATAL_FAILURE(fill(4 * most));
    mine.remove(0, 6 * most);
    EXPECT_EQ(shared.used_bytes(), 0U);
    const std::uint64_t idle = resident_bytes();
    others = most * size;
    shared.release_idle_memory();
    EXPECT_LE(resident_bytes(), idle - most * size / 2);
}

// The system would fill the gaps of a huge page again.
TEST_F(Reclaim, GivesBackNothingOfWhatMayBeAHugePage) {
    if (::access("/sys/kernel/mm/transparent_hugepage", F_OK) != 0) GTEST_SKIP() << "the kernel has no huge pages";
    std::uint64_t others = 0;
    cache.set_other_users([&others] { return others; });
    std::vector<const std::byte*> some;
    for (std::uint64_t i = 0; i < most; ++i) {
        Result<LockedFolio> folio = file.lock(i, true);
        ASSERT_TRUE(folio && *folio);
        if (i % (most / 16) == 0) some.push_back((*folio)->data);
    }
    const auto count = [&some](const char* flag) {
        return std::ranges::count_if(some, [flag](const std::byte* at) { return vm_flags(at).contains(flag); });
    };
    EXPECT_EQ(count(" hg"), 12) << "the first chunk of four has none: it may be all that is needed";
    file.remove(0, most);
    cache.release_idle_memory();
    EXPECT_EQ(count(" nh"), 0) << "nobody has taken anything";
    others = most * size;  // a quarter stays
    cache.release_idle_memory();
    EXPECT_GE(count(" nh"), 8);
    EXPECT_EQ(count(" hg") + count(" nh"), 12);
}

}  // namespace
}  // namespace uext4

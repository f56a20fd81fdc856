#include "pagecache/page_cache.h"

#include "pagecache/file_cache.h"

#include <gtest/gtest.h>

namespace uext4 {
namespace {

constexpr std::uint32_t size = 4096;

class Reclaim : public testing::Test {
protected:
    // A folio more, for which there is to be room, as who writes asks for it.
    void add(std::uint64_t index, bool dirty) {
        if (cache.used() > cache.limit()) cache.reclaim();
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
    EXPECT_LE(cache.looked_at(), more * 256);
    for (std::uint64_t i = 0; i < most + more; ++i) ASSERT_NO_FATAL_FAILURE(clean(i));
    // Now all of it can.
    for (std::uint64_t i = 0; i < most; ++i) ASSERT_NO_FATAL_FAILURE(add(most + more + i, false));
    EXPECT_LE(cache.used(), cache.limit() + size);
}

// What was looked at in vain when more was used is not what there is now.
TEST_F(Reclaim, GoesByWhatIsUsedNow) {
    for (std::uint64_t i = 0; i < 2 * most; ++i) ASSERT_NO_FATAL_FAILURE(add(i, true));
    file.remove(0, most + most / 2);
    for (std::uint64_t i = most + most / 2; i < 2 * most; ++i) ASSERT_NO_FATAL_FAILURE(clean(i));
    std::uint64_t most_used = 0;
    for (std::uint64_t i = 2 * most; i < 4 * most; ++i) {
        ASSERT_NO_FATAL_FAILURE(add(i, false));
        most_used = std::max(most_used, cache.used());
    }
    EXPECT_LE(most_used, cache.limit() + cache.limit() / 32);
}

}  // namespace
}  // namespace uext4

// What is promised for data that has no blocks yet.
#include "inode/test_volume.h"

namespace uext4 {
namespace {

// However many of its blocks are written, one by one.
TEST(Promises, AClusterIsPromisedOnce) {
    TestVolume volume{"-b 4096 -O bigalloc -C 65536"};
    constexpr std::uint64_t ratio = 16;
    const InodeRef file = volume.make();
    const Allocator& space = volume.fs().allocator;
    MutexLock map(file->map_lock);
    Places& places = file->places();
    expect_ok(places.reserve(LogicalBlock(3), 1, false));
    const std::uint64_t one = space.claimed_clusters();
    EXPECT_GE(one, 1u);
    for (std::uint64_t block = 0; block < ratio; ++block) expect_ok(places.reserve(LogicalBlock(block), 1, false));
    EXPECT_LT(space.claimed_clusters(), one + 4);  // for a time there were two runs, which is more for the tree
    // All of them give it back.
    places.drop_pending(LogicalBlock(0), LogicalBlock(ratio));
    EXPECT_EQ(space.claimed_clusters(), 0u);
}

}  // namespace
}  // namespace uext4

// Reservations for data that has no blocks yet.
#include "tests/fixtures/inode_volume.h"

namespace uext4 {
namespace {

// However many of its blocks are written, one by one.
TEST(DelallocSpace, AClusterIsReservedOnce) {
    TestVolume volume{"-b 4096 -O bigalloc -C 65536"};
    constexpr std::uint64_t ratio = 16;
    const InodeRef file = volume.make();
    const Allocator& space = volume.fs().allocator;
    MutexLock map(file->map_lock);
    DelallocSpace& delalloc = file->delalloc();
    expect_ok(delalloc.reserve(LogicalBlock(3), 1, false));
    const std::uint64_t one = space.reserved_clusters();
    EXPECT_GE(one, 1u);
    for (std::uint64_t block = 0; block < ratio; ++block) expect_ok(delalloc.reserve(LogicalBlock(block), 1, false));
    EXPECT_LT(space.reserved_clusters(), one + 4);  // for a time there were two runs, which is more for the tree
    // All of them give it back.
    delalloc.release(LogicalBlock(0), LogicalBlock(ratio));
    EXPECT_EQ(space.reserved_clusters(), 0u);
}

}  // namespace
}  // namespace uext4

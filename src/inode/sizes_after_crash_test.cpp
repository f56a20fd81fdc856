// Which sizes a cut may leave on disk.
#include "tests/fixtures/inode_volume.h"

namespace uext4 {
namespace {

void store_size(TestVolume& volume, Inode& inode, std::uint64_t size) {
    Handle handle = volume.start();
    MutexLock map(inode.map_lock);
    inode.set_disk_size(size);
    expect_ok(inode.store(handle));
}

// All of them that lie within a block, in their order.
std::vector<std::uint64_t> within_blocks(Inode& inode) {
    std::vector<std::uint64_t> sizes;
    MutexLock map(inode.map_lock);
    for (auto next = inode.size_after_crash(0); next; next = inode.size_after_crash(*next)) sizes.push_back(*next);
    return sizes;
}

using Sizes = std::vector<std::uint64_t>;

TEST(SizesAfterCut, AreThoseOfTransactionsThatMayBeTheNewest) {
    TestVolume volume{"-b 4096 -J size=4"};
    const InodeRef file = volume.make();
    store_size(volume, *file, 100);
    EXPECT_EQ(within_blocks(*file), Sizes{100});
    expect_ok(volume.journal().commit_all());
    // What the end of a transaction has counts, and what is durable before it.
    store_size(volume, *file, 200);
    store_size(volume, *file, 50);
    store_size(volume, *file, 300);
    EXPECT_EQ(within_blocks(*file), (Sizes{100, 300}));
    expect_ok(volume.journal().commit_all());
    EXPECT_EQ(within_blocks(*file), Sizes{300});
    // Shorter, and at the end of a block.
    store_size(volume, *file, 8192);
    EXPECT_EQ(within_blocks(*file), Sizes{300});
    expect_ok(volume.journal().commit_all());
    EXPECT_EQ(within_blocks(*file), Sizes{});
    store_size(volume, *file, 8192);
    store_size(volume, *file, 10);
    EXPECT_EQ(within_blocks(*file), Sizes{10});
    expect_ok(volume.journal().commit_all());
    store_size(volume, *file, 5000);
    EXPECT_EQ(within_blocks(*file), (Sizes{10, 5000}));
    store_size(volume, *file, 10);
    EXPECT_EQ(within_blocks(*file), Sizes{10});
}

TEST(SizesAfterCut, AreNoneWithoutALog) {
    TestVolume volume{"-b 4096 -O ^has_journal"};
    const InodeRef file = volume.make();
    store_size(volume, *file, 100);
    EXPECT_EQ(within_blocks(*file), Sizes{});
}

}  // namespace
}  // namespace uext4

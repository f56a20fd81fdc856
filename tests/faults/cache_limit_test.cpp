// What the device does not take fills the cache up to its limit, and no further.
#include "file/fault.h"
#include "tests/faults/faulty_mount.h"

namespace uext4::faults {
namespace {

TEST(CacheLimit, StoresThroughMapsAreRefusedAboveIt) {
    constexpr std::uint64_t page = 4096, pages = 4096;
    FaultyMount m(fresh_image("-b 4096"));
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    ASSERT_TRUE(file->truncate(pages * page));
    ASSERT_TRUE(m.fs->sync());
    const std::uint64_t fault = m.faulty->fail_writes(EIO, DeviceFault::for_good, 0);
    PageCache& cache = file->inode().pages().cache();
    const FaultInstall install = [](std::uint64_t, std::uint64_t, bool) { return Result<void>(); };
    Result<void> stored;
    std::uint64_t at = 0;
    for (; at < pages && stored; ++at)
        stored = handle_fault({.inode = file->inode_ref(), .offset = at * page, .is_write = true}, install);
    EXPECT_EQ(code_of(stored), EIO);
    EXPECT_LE(cache.dirty_bytes(), cache.dirty_limit() + page);
    // What was let in is kept, told of, and written once the device takes it.
    EXPECT_EQ(code_of(file->sync(false)), EIO);
    m.faulty->remove(fault);
    EXPECT_EQ(code_of(file->sync(false)), 0);
    EXPECT_EQ(code_of(handle_fault({.inode = file->inode_ref(), .offset = at * page, .is_write = true}, install)), 0);
    file.reset();
    EXPECT_TRUE(m.fs->unmount());
    expect_sound(m.memory, "after the unmount");
}

}  // namespace
}  // namespace uext4::faults

// A direct write that has no room for its rest, and cannot write back what would give it some.
#include "tests/faults/faulty_mount.h"

#include <cstring>

namespace uext4::faults {
namespace {

TEST(ShortDirectWrite, CountsWhatIsOnTheDevice) {
    constexpr std::size_t page = 4096, small = 2 * page, length = 16 * page, dirty = 20 * page;
    FaultyMount m(fresh_image("-b 1024 -m 0 -J size=1"));
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f"), direct = m.open("/f", O_RDWR | O_DIRECT), fill = m.open("/fill");
    // A hole, a page that has blocks, a hole for which there is no room, and a page that is dirty.
    ASSERT_TRUE(file->write(page, filled(page, 'a')));
    ASSERT_TRUE(file->write(dirty, filled(page, 'a')));
    ASSERT_TRUE(m.fs->sync());
    const auto left = [&] { return m.fs->statistics()->f_bfree; };
    for (std::uint64_t at = 0; left() > 12;) {
        const std::uint64_t n = left() > 100 ? left() - 50 : 1;
        ASSERT_TRUE(fill->write(at, std::vector<std::byte>(n * 1024)));
        ASSERT_TRUE(m.fs->sync());
        at += n * 1024;
    }
    ASSERT_TRUE(file->write(dirty, filled(page, 'b')));

    alignas(4096) static std::byte bytes[length];
    std::memset(bytes, 'd', length);
    const auto fault = m.faulty->fail_writes(EIO, DeviceFault::for_good, 2);
    const auto written = direct->write(0, bytes);
    EXPECT_NE(m.faulty->hits(fault), 0u);
    m.faulty->clear();
    ASSERT_TRUE(written) << written.error().what;
    EXPECT_EQ(*written, small);
    const std::string now = read_all(*m.fs, "/f");
    EXPECT_EQ(now.substr(0, small), std::string(small, 'd'));
    EXPECT_EQ(now.substr(small, dirty - small), std::string(dirty - small, '\0'));
    EXPECT_EQ(now.substr(dirty), std::string(page, 'b'));
    EXPECT_EQ(code_of(file->sync(false)), EIO) << "that something could not be written back is told once";
    EXPECT_TRUE(file->sync(false));
    EXPECT_EQ(read_all(m.durable(), "/f"), now);
    file.reset(), direct.reset(), fill.reset();
    EXPECT_TRUE(m.fs->unmount());
    EXPECT_EQ(m.fs->volume().fs().allocator.allocated_clusters(), 0u);
    expect_clean(*m.memory, "at the end");
}

}  // namespace
}  // namespace uext4::faults

// What a deletion that failed leaves in the orphan file is found there by the next mount.
#include "format/superblock.h"
#include "tests/faults/faulty_mount.h"

namespace uext4::faults {
namespace {

TEST(OrphanFile, IsSaidToHaveEntriesAsLongAsItHas) {
    FaultyMount m(fresh_image("-b 1024 -O orphan_file"));
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    ASSERT_TRUE(file->write(0, filled(300000, 'b')));
    ASSERT_TRUE(m.fs->unlink(**m.fs->root(), "f", root, false));
    ASSERT_TRUE(m.fs->sync());
    ASSERT_TRUE(m.fs->volume().fs().journal.checkpoint_all());
    m.fs->volume().fs().buffers.invalidate_all_clean();
    const std::uint64_t fault = m.faulty->fail_reads(EIO, DeviceFault::for_good, 0);
    file.reset();
    m.fs->volume().wait_for_deletions();
    ASSERT_NE(m.faulty->hits(fault), 0u);
    m.faulty->remove(fault);
    (void)m.fs->unmount();
    m.fs.reset();
    format::SuperBlock super;
    ASSERT_TRUE(m.memory->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    EXPECT_TRUE(super.has_ro_compat(format::ro_compat::orphan_present));
    expect_sound(m.memory, "after the next mount");
}

}  // namespace
}  // namespace uext4::faults

// The block that says who uses the file system is written beside everything else.
#include "tests/faults/faulty_mount.h"

#include <chrono>
#include <thread>

namespace uext4::faults {
namespace {

// A device tells one caller that it has lost what was written before: if that is the thread that renews the block, an
// fsync would know nothing of it.
TEST(MultipleMount, ABlockThatIsNotDurableEndsTheJournal) {
    FaultyMount m(fresh_image("-b 4096 -O mmp -E mmp_update_interval=5"));
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    ASSERT_TRUE(file->write(0, filled(4096, 'a')));
    ASSERT_TRUE(file->sync(false));
    m.faulty->fail_range(DeviceRequest::Kind::Fua, 0, m.memory->size(), EIO);
    const Journal& journal = m.fs->volume().fs().journal;
    const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!journal.is_aborted() && std::chrono::steady_clock::now() < patience)
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(journal.is_aborted());
    EXPECT_NE(code_of(file->sync(false)), 0);
    file.reset();
    EXPECT_FALSE(m.fs->unmount());
    EXPECT_EQ(read_all(m.durable(), "/f"), std::string(4096, 'a'));
}

}  // namespace
}  // namespace uext4::faults

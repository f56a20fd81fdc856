// Blocks of a cluster that stays in use, which are free to be written to again at once.
#include "file/file_io.h"
#include "tests/faults/faulty_mount.h"

#include <string>

namespace uext4::faults {
namespace {

// What a cut frees of a cluster that stays is at once the file's again: nothing is written there before the cut is
// durable, or its old bytes would be gone while the file still has them.
TEST(UsedCluster, KeepsWhatWasCutUntilThatIsDurable) {
    for (const std::size_t end : {5916uz, 8192uz}) {
        FaultyMount m(fresh_image("-b 4096 -O bigalloc -C 16384"));
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        const std::string old(15000, 'o'), bytes(7000, 'n');
        ASSERT_TRUE(file->write(0, std::as_bytes(std::span(old))));
        ASSERT_TRUE(file->sync(false));
        ASSERT_TRUE(file->truncate(end));
        ASSERT_TRUE(file->write(2000, std::as_bytes(std::span(bytes))));
        // Written back by whoever, and the power is cut before a commit.
        ASSERT_TRUE(write_back(file->inode()));
        const std::string now = read_all(m.memory, "/f");
        if (now.size() == old.size()) {
            EXPECT_TRUE(now.substr(9000) == old.substr(9000)) << end;
        } else {
            EXPECT_TRUE(now.size() == end || now.size() == 9000) << end << ": " << now.size();
        }
        EXPECT_TRUE(file->sync(false));
        EXPECT_TRUE(read_all(m.memory, "/f") == old.substr(0, 2000) + bytes) << end;
        file.reset();
        EXPECT_TRUE(m.fs->unmount());
    }
}

}  // namespace
}  // namespace uext4::faults

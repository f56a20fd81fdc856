// Space that is given back or taken, on a device that cannot be read: the maps of files and the bitmaps agree.
#include "tests/faults/faulty_mount.h"

#include <linux/falloc.h>

#include <functional>

namespace uext4::faults {
namespace {

// The file has a block in every second place, and a tree of blocks; the bitmaps are of several groups.
constexpr std::uint64_t block = 1024, places = 600, first_far = 9000;

struct Change {
    const char* name;
    std::function<Result<void>(FaultyMount&)> make;
};
Result<void> on_file(FaultyMount& m, const std::function<Result<void>(OpenFile&)>& change) {
    auto file = TRY(m.fs->open_path("/f", O_RDWR, 0, root));
    return change(*file);
}
const Change changes[] = {
    {"Truncate", [](FaultyMount& m) { return on_file(m, [](OpenFile& f) { return f.truncate(100 * block + 7); }); }},
    {"Punch",
     [](FaultyMount& m) {
         return on_file(m, [](OpenFile& f) {
             return f.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 99 * block + 5, 401 * block);
         });
     }},
    {"Collapse",
     [](FaultyMount& m) {
         return on_file(m, [](OpenFile& f) { return f.fallocate(FALLOC_FL_COLLAPSE_RANGE, 96 * block, 400 * block); });
     }},
    {"Insert",
     [](FaultyMount& m) {
         return on_file(m, [](OpenFile& f) { return f.fallocate(FALLOC_FL_INSERT_RANGE, 96 * block, 64 * block); });
     }},
    {"Allocate",
     [](FaultyMount& m) { return on_file(m, [](OpenFile& f) { return f.fallocate(0, 50 * block, 700 * block); }); }},
    {"Write",
     [](FaultyMount& m) {
         return on_file(m, [](OpenFile& f) -> Result<void> {
             TRY(f.write(51 * block, std::vector<std::byte>(300 * block)));
             return f.sync(false);
         });
     }},
    {"Unlink",
     [](FaultyMount& m) -> Result<void> {
         auto top = TRY(m.fs->root());
         TRY(m.fs->unlink(*top, "f", root, false));
         return {};
     }},
};
void PrintTo(const Change& c, std::ostream* out) { *out << c.name; }

class Space : public testing::TestWithParam<std::tuple<const char*, Change>> {};

TEST_P(Space, IsOneFilesOrNobodysWhicheverReadFails) {
    const auto& [format, change] = GetParam();
    auto image = fresh_image(format);
    {
        FaultyMount m(image);
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        const std::vector<std::byte> bytes(block, std::byte{'x'});
        for (std::uint64_t i = 0; i < places; ++i) {
            ASSERT_TRUE(file->write(2 * i * block, bytes));
            if (i % 50 == 0) {
                ASSERT_TRUE(file->sync(false));
            }
        }
        ASSERT_TRUE(file->write(first_far * block, bytes));
        file.reset();
        ASSERT_TRUE(m.fs->unmount());
    }
    bool done = false;
    unsigned failed = 0;
    for (std::uint64_t skip = 0; !done; ++skip) {
        ASSERT_LT(skip, 200u);
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount());
        const std::string what = fmt::format("reads fail after {}", skip);
        m.open("/f", O_RDWR).reset();
        m.fs->volume().fs().buffers.drop_all_clean();
        const auto fault = m.faulty->fail_reads(EIO, DeviceFault::for_good, skip);
        auto result = change.make(m);
        m.fs->volume().finish_deletions();
        const bool hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        done = !hit;
        failed += hit;
        EXPECT_TRUE(result || hit) << result.error().what;
        if (!result) {
            EXPECT_EQ(result.error().code, EIO) << what << ": " << result.error().what;
            // It can be done when the device can be read again.
            auto again = change.make(m);
            EXPECT_TRUE(again) << what << ": " << again.error().what;
        }
        m.fs->volume().finish_deletions();
        auto closed = m.fs->unmount();
        EXPECT_TRUE(closed) << what << ": " << closed.error().what;
        expect_sound(m.memory, what);
        if (HasFailure()) return;
    }
    EXPECT_GE(failed, 3u);
}

const std::vector<Change> of_indirect{changes[0], changes[1], changes[5], changes[6]};
INSTANTIATE_TEST_SUITE_P(Extents, Space, testing::Combine(testing::Values("-b 1024"), testing::ValuesIn(changes)),
                         [](const auto& one) { return std::string(std::get<1>(one.param).name); });
INSTANTIATE_TEST_SUITE_P(Indirect, Space,
                         testing::Combine(testing::Values("-b 1024 -O ^extents,^64bit"),
                                          testing::ValuesIn(of_indirect)),
                         [](const auto& one) { return std::string(std::get<1>(one.param).name); });
INSTANTIATE_TEST_SUITE_P(Clusters, Space,
                         testing::Combine(testing::Values("-b 1024 -O bigalloc -C 4096"),
                                          testing::ValuesIn(of_indirect)),
                         [](const auto& one) { return std::string(std::get<1>(one.param).name); });

}  // namespace
}  // namespace uext4::faults

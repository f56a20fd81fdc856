// P8, measured on the image: whenever the power goes during writes, the space that is free afterwards is what was free
// before or after an operation, by the bitmaps, and no block is taken that no file has.
#include "settled_image.h"

#include <set>

namespace uext4::problems {
namespace {

class NothingLeaks : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    void SetUp() override { make(std::get<0>(GetParam()), std::get<1>(GetParam()), "24M"); }
    // By the bitmaps of an image that has been recovered.
    std::uint64_t free_after_recovery(const MemoryDevice& image, bool checked) {
        std::shared_ptr<MemoryDevice> copy = image.clone();
        auto recovered = FileSystem::mount_device(copy, {});
        EXPECT_TRUE(recovered) << recovered.error().what;
        if (!recovered) return 0;
        auto told = (*recovered)->statistics();
        ok(told);
        ok((*recovered)->unmount());
        if (checked && told) judge(*copy, told->f_bfree);
        return told ? told->f_bfree : 0;
    }
};

TEST_P(NothingLeaks, WheneverThePowerGoes) {
    ok(fs->unmount());
    fs.reset();
    mount(std::get<1>(GetParam()), false);
    std::set<std::uint64_t> possible{free_after_recovery(*memory, true)};
    auto file = open("/f");
    for (unsigned i = 0; i < 5; ++i) {
        write(*file, pattern(9 * page, i), i * 11 * page);
        // The data is on the device and has no name there yet: nothing is taken.
        ok(write_back(file->inode()));
        const std::uint64_t free = free_after_recovery(*memory, true);
        EXPECT_TRUE(possible.contains(free)) << free;
        ok(file->sync(false));
        possible.insert(free_after_recovery(*memory, true));
    }
    file.reset();
    const auto log = recorder->log();
    std::shared_ptr<MemoryDevice> image = initial->clone();
    for (std::size_t n = 0; n < log.size(); ++n) {
        ASSERT_TRUE(RecordingDevice::apply(log[n], *image));
        const std::uint64_t free = free_after_recovery(*image, n % 8 == 0);
        EXPECT_TRUE(possible.contains(free)) << "after " << n << " requests: " << free;
    }
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, NothingLeaks,
                         testing::Combine(testing::Values("-b 4096 -J size=4", "-b 1024 -J size=4",
                                                          "-b 1024 -J size=4 -O ^extents,^64bit"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems

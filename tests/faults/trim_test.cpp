// What is free is nobody's while the device forgets it. It is there for whoever wants it all the same, a little later.
#include "tests/faults/all_faults.h"
#include "tests/faults/faulty_mount.h"

namespace uext4::faults {
namespace {

TEST(Trim, KeepsNobodyOutOfFreeSpace) {
    FaultyMount m(fresh_image("-b 4096"));  // of one group
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    DeviceFault stick;
    stick.kinds = {Kind::Discard};
    stick.effect = Effect::Stick;
    m.faulty->add(stick);
    Thread trim("trim", [&] { EXPECT_TRUE(m.fs->trim(0)); });
    while (m.faulty->stuck() == 0) this_thread::sleep(std::chrono::milliseconds(1));
    {
        const Unsticker unsticker(*m.faulty);
        const auto written = file->write(0, filled(9000, 'x'));
        EXPECT_TRUE(written) << written.error().what;
        EXPECT_TRUE(file->sync(false));
    }
    trim.join();
    EXPECT_TRUE(read_all(m.durable(), "/f") == std::string(9000, 'x'));
    file.reset();
    EXPECT_TRUE(m.fs->unmount());
    expect_clean(*m.memory, "after a trim");
}

TEST(Trim, NoRunIsLongerThanAGroup) {
    FaultyMount m(fresh_image("-b 4096"));
    ASSERT_TRUE(m.mount());
    constexpr std::uint64_t group = std::uint64_t{32768} * 4096;
    EXPECT_TRUE(m.fs->trim(group));
    for (const std::uint64_t least : {group + 1, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
        const auto trimmed = m.fs->trim(least);
        EXPECT_EQ(trimmed ? 0 : trimmed.error().code, EINVAL);
    }
    EXPECT_TRUE(m.fs->unmount());
}

}  // namespace
}  // namespace uext4::faults

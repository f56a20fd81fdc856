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

}  // namespace
}  // namespace uext4::faults

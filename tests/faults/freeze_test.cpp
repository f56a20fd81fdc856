// A freeze on a device that fails at any one request: it is frozen with all that was written, or it is not frozen.
#include "format/superblock.h"
#include "tests/faults/faulty_mount.h"

#include <atomic>
#include <thread>

namespace uext4::faults {
namespace {

struct Failing {
    const char* name;
    std::uint64_t (*start)(FaultyDevice&, std::uint64_t times, std::uint64_t skip);
};
const Failing ways[] = {
    {"Write", [](FaultyDevice& d, std::uint64_t times, std::uint64_t skip) { return d.fail_writes(EIO, times, skip); }},
    {"Flush",
     [](FaultyDevice& d, std::uint64_t times, std::uint64_t skip) { return d.fail_flushes(EIO, times, skip); }},
};
void PrintTo(const Failing& f, std::ostream* out) { *out << f.name; }

bool needs_replay(MemoryDevice& image) {
    constexpr std::uint64_t at = 1024 + 0x60;  // s_feature_incompat
    std::byte feature{};
    EXPECT_TRUE(image.read(at, Bytes(&feature, 1)));
    constexpr std::byte recover{0x04};
    return (feature & recover) != std::byte{};
}

class FailingFreeze : public testing::TestWithParam<std::tuple<const char*, bool, Failing>> {};

TEST_P(FailingFreeze, HasEverythingOrIsNone) {
    const auto& [options, for_good, failing] = GetParam();
    const auto image = fresh_image("-b 1024");
    unsigned failed = 0;
    for (std::uint64_t skip = 0;; ++skip) {
        ASSERT_LT(skip, 200u);
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount(options));
        const std::string what = fmt::format("{} fails after {}", failing.name, skip);
        {
            auto file = m.open("/f");
            ASSERT_TRUE(file->write(0, std::vector<std::byte>(50000, std::byte{'x'})));
            ASSERT_TRUE(file->sync(false));
            ASSERT_TRUE(file->write(10000, std::vector<std::byte>(3000, std::byte{'y'})));
            m.open("/g");
        }
        const auto fault = failing.start(*m.faulty, for_good ? DeviceFault::for_good : 1, skip);
        const auto frozen = m.fs->freeze();
        const bool hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        failed += !frozen;
        if (frozen) {
            const auto copy = m.durable();
            EXPECT_FALSE(needs_replay(*copy)) << what;
            expect_sound(copy, what);
            FaultyMount other(copy);
            ASSERT_TRUE(other.mount());
            std::vector<std::byte> bytes(50000);
            auto got = other.open("/f", O_RDONLY)->read(0, bytes);
            ASSERT_TRUE(got) << what;
            EXPECT_EQ(*got, bytes.size()) << what;
            EXPECT_EQ(bytes[10500], std::byte{'y'}) << what;
            EXPECT_TRUE(other.fs->resolve("/g", root)) << what;
            ASSERT_TRUE(other.fs->unmount());
            EXPECT_TRUE(m.fs->thaw()) << what;
        } else {
            EXPECT_EQ(frozen.error().code, EIO) << what << ": " << frozen.error().what;
            EXPECT_FALSE(m.fs->thaw()) << what;
            expect_sound(m.durable(), what);
        }
        // It ends, whatever it says.
        const auto closed = m.fs->unmount();
        EXPECT_TRUE(closed || hit) << what;
        expect_sound(m.memory, what);
        if (HasFailure() || !hit) break;
    }
    EXPECT_GE(failed, 2u);
}

std::string name_of(const testing::TestParamInfo<FailingFreeze::ParamType>& one) {
    const auto& [options, for_good, failing] = one.param;
    return fmt::format("{}{}{}", failing.name, for_good ? "s" : "", *options ? "Journal" : "");
}
INSTANTIATE_TEST_SUITE_P(Faults, FailingFreeze,
                         testing::Combine(testing::Values("", "data=journal"), testing::Bool(),
                                          testing::ValuesIn(ways)),
                         name_of);

// Files that are closed and without a name when a freeze begins are gone when it has ended, as in the kernel.
TEST(Freeze, LeavesNothingToDelete) {
    for (const char* format : {"-b 1024", "-b 1024 -O orphan_file"}) {
        FaultyMount m(fresh_image(format));
        ASSERT_TRUE(m.mount("", true));
        std::atomic<bool> over{false};
        std::thread churn([&] {
            const auto top = m.fs->root();
            for (int i = 0; !over.load(); ++i) {
                const std::string name = fmt::format("n{}", i % 20);
                ASSERT_TRUE(m.open("/" + name)->write(0, std::vector<std::byte>(3000)));
                ASSERT_TRUE(m.fs->unlink(**top, name, root, false));
            }
        });
        for (int i = 0; i < 30 && !testing::Test::HasFailure(); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(3));
            auto frozen = m.fs->freeze();
            EXPECT_TRUE(frozen) << frozen.error().what;
            expect_clean(*m.memory->clone(), fmt::format("{}: freeze {}", format, i));
            EXPECT_TRUE(m.fs->thaw());
        }
        over.store(true);
        churn.join();
        EXPECT_TRUE(m.fs->unmount());
    }
}

}  // namespace
}  // namespace uext4::faults

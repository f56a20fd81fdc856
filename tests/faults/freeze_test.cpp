// A freeze on a device that fails at any one request: it is frozen with all that was written, or it is not frozen.
#include "format/superblock.h"
#include "tests/faults/faulty_mount.h"

#include <sys/mman.h>

#include <atomic>
#include <span>
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

// Files that are closed and without a name when a freeze begins are gone when it has ended, as in the kernel. With much
// data the flusher looks at them meanwhile.
TEST(Freeze, LeavesNothingToDelete) {
    for (const char* format : {"-b 1024", "-b 1024 -O orphan_file"})
        for (const std::size_t size : {3000, 200'000}) {
            FaultyMount m(fresh_image(format));
            ASSERT_TRUE(m.mount("", true));
            std::atomic<bool> over{false};
            std::vector<std::thread> churn;
            for (int t = 0; t < 2; ++t)
                churn.emplace_back([&, t] {
                    const auto top = m.fs->root();
                    for (int i = 0; !over.load(); ++i) {
                        const auto name = [t](int number) { return fmt::format("n{}-{}", t, number % 20); };
                        ASSERT_TRUE(m.open("/" + name(i))->write(0, std::vector<std::byte>(size)));
                        if (i >= 10) {
                            ASSERT_TRUE(m.fs->unlink(**top, name(i - 10), root, false));
                        }
                    }
                });
            for (int i = 0; i < 30 && !testing::Test::HasFailure(); ++i) {
                std::this_thread::sleep_for(std::chrono::milliseconds(3));
                auto frozen = m.fs->freeze();
                EXPECT_TRUE(frozen) << frozen.error().what;
                expect_clean(*m.memory->clone(), fmt::format("{}, {} bytes: freeze {}", format, size, i));
                EXPECT_TRUE(m.fs->thaw());
            }
            over.store(true);
            for (std::thread& thread : churn) thread.join();
            EXPECT_TRUE(m.fs->unmount());
        }
}

// What is deleted by the one who freezes.
TEST(Freeze, DeletesWithoutThreads) {
    FaultyMount m(fresh_image("-b 1024"));
    ASSERT_TRUE(m.mount());
    m.open("/f").reset();
    const auto top = m.fs->root();
    ASSERT_TRUE(m.fs->unlink(**top, "f", root, false));
    ASSERT_TRUE(m.fs->freeze());
    expect_clean(*m.memory->clone(), "frozen");
    ASSERT_TRUE(m.fs->thaw());
    ASSERT_TRUE(m.fs->unmount());
}

// What is on its way to be discarded is so before the file system is frozen: a frozen image does not change.
TEST(Freeze, WaitsForDiscards) {
    FaultyMount m(fresh_image("-b 1024"));
    ASSERT_TRUE(m.mount("discard", true));
    ASSERT_TRUE(m.open("/f")->write(0, std::vector<std::byte>(200'000, std::byte{'x'})));
    ASSERT_TRUE(m.fs->sync());
    DeviceFault stick;
    stick.effect = DeviceFault::Effect::Stick;
    stick.kinds = {DeviceRequest::Kind::Discard};
    m.faulty->add(stick);
    const auto top = m.fs->root();
    ASSERT_TRUE(m.fs->unlink(**top, "f", root, false));
    std::atomic<bool> frozen{false};
    std::thread freezer([&] {
        EXPECT_TRUE(m.fs->freeze());
        frozen.store(true);
    });
    while (m.faulty->stuck() == 0 && !frozen) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(frozen.load());
    m.faulty->clear();
    freezer.join();
    expect_clean(*m.memory->clone(), "frozen");
    EXPECT_TRUE(m.fs->thaw());
    EXPECT_TRUE(m.fs->unmount());
}

// Freezing and thawing change it in its place on the device. Who reads it meanwhile does not bring back what it said.
TEST(Freeze, KnowsItsSuperblock) {
    for (const char* format : {"-b 1024", "-b 4096", "-b 1024 -O orphan_file", "-b 1024 -O ^has_journal"}) {
        FaultyMount m(fresh_image(format));
        ASSERT_TRUE(m.mount());
        const bool has_journal = m.fs->volume().geometry().has_compat(format::compat::has_journal);
        for (int round = 0; round < 2; ++round) {
            m.open(fmt::format("/f{}", round)).reset();
            ASSERT_TRUE(m.fs->freeze());
            m.fs->volume().fs().buffers.invalidate_all_clean();
            ASSERT_TRUE(m.fs->label());
            ASSERT_TRUE(m.fs->thaw());
            ASSERT_TRUE(m.fs->set_label(fmt::format("round {}", round)));
            ASSERT_TRUE(m.fs->sync());
            ASSERT_TRUE(m.fs->volume().fs().journal.checkpoint_all());
            format::SuperBlock super;
            ASSERT_TRUE(m.memory->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
            if (has_journal) {
                EXPECT_TRUE(super.has_incompat(format::incompat::recover)) << format;
            } else {
                EXPECT_FALSE(super.state & format::super_state::valid) << format;
            }
            EXPECT_EQ(super.has_ro_compat(format::ro_compat::orphan_present), m.fs->volume().orphans().uses_file())
                << format;
        }
        ASSERT_TRUE(m.fs->unmount());
        expect_clean(*m.memory, format);
    }
}

// The flusher may have a pass under way, which the freeze keeps it from.
TEST(Freeze, EndsWithTheUnmount) {
    for (int round = 0; round < 3; ++round) {
        FaultyMount m(fresh_image("-b 1024"));
        ASSERT_TRUE(m.mount("", true));
        DeviceFault slow;
        slow.effect = DeviceFault::Effect::Slow;
        slow.kinds = {DeviceRequest::Kind::Write};
        slow.delay = std::chrono::microseconds(300);
        m.faulty->add(slow);
        for (int i = 0; i < 120; ++i)
            ASSERT_TRUE(m.open(fmt::format("/f{}", i))->write(0, std::vector<std::byte>(64 << 10)));
        ASSERT_TRUE(m.fs->freeze());
        ASSERT_TRUE(m.fs->unmount());
        expect_clean(*m.memory, "unmounted");
    }
}

// A thread that stores to each page of a map in turn, by a system call: it gets an error where a program gets SIGBUS.
class Storing {
public:
    explicit Storing(OpenFile& file) : file_(file) {}
    ~Storing() {
        stop_.store(true);
        if (thread_.joinable()) thread_.join();
        if (memory_) (void)ClientMaps::unmap(memory_, size);
        ::close(zeros_);
    }
    Result<void> start() {
        TRY(file_.truncate(size));
        memory_ = static_cast<char*>(TRY(file_.map(0, size, PROT_READ | PROT_WRITE, MAP_SHARED)));
        thread_ = std::thread([this] {
            for (std::size_t n = 0; !stop_.load(); ++n, ++done_) (void)!::read(zeros_, memory_ + n % pages * page, 1);
        });
        return {};
    }
    bool goes_on(int hundredths = 1000) const {
        const std::uint64_t from = done_.load();
        for (int waited = 0; waited < hundredths && done_.load() < from + 2 * pages; ++waited)
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        return done_.load() >= from + 2 * pages;
    }

private:
    static constexpr std::size_t page = 4096, pages = 8, size = page * pages;
    OpenFile& file_;
    int zeros_ = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
    char* memory_ = nullptr;
    std::atomic<bool> stop_{false};
    std::atomic<std::uint64_t> done_{0};
    std::thread thread_;
};

TEST(Freeze, LetsStoresGoWhenItFails) {
    bool met = false;
    for (std::uint64_t times = 1; times < 40 && !met; ++times) {
        FaultyMount m(fresh_image("-b 4096"));
        ASSERT_TRUE(m.mount("", true));
        auto file = m.open("/f"), mapped = m.open("/mapped");
        Storing storing(*mapped);
        auto started = storing.start();
        if (!started) GTEST_SKIP() << started.error().what;
        ASSERT_TRUE(storing.goes_on());
        ASSERT_TRUE(file->write(0, std::vector<std::byte>(4096, std::byte{'x'})));
        DeviceFault slow;
        slow.effect = DeviceFault::Effect::Slow;
        slow.delay = std::chrono::milliseconds(5);
        m.faulty->add(slow);
        m.faulty->fail_writes(EIO, times);
        const bool frozen = m.fs->freeze().has_value(), over = m.fs->read_only();
        m.faulty->clear();
        // Nothing but a file's contents could not be written.
        met = !frozen && !over;
        EXPECT_TRUE(frozen || storing.goes_on()) << "they wait";
        if (frozen || HasFailure()) {
            EXPECT_TRUE(frozen || m.fs->freeze());
            EXPECT_TRUE(m.fs->thaw());
        }
    }
    EXPECT_TRUE(met);
}

TEST(Freeze, LetsStoresGoWhenTheThawFails) {
    FaultyMount m(fresh_image("-b 4096"));
    ASSERT_TRUE(m.mount("", true));
    auto mapped = m.open("/mapped");
    Storing storing(*mapped);
    auto started = storing.start();
    if (!started) GTEST_SKIP() << started.error().what;
    ASSERT_TRUE(storing.goes_on());
    ASSERT_TRUE(m.fs->freeze());
    EXPECT_FALSE(storing.goes_on(30));
    const auto fault = m.faulty->fail_flushes(EIO, 1);
    EXPECT_FALSE(m.fs->thaw());
    EXPECT_EQ(m.faulty->hits(fault), 1u);
    EXPECT_TRUE(storing.goes_on()) << "they wait";
}

// A file that had maps is held a moment longer: neither the unmount waits for that, nor is it an orphan when it is
// gone.
TEST(Freeze, OfFilesThatHadMaps) {
    constexpr std::size_t page = 4096;
    for (const char* format : {"-b 4096", "-b 4096 -O orphan_file"})
        for (int round = 0; round < 10; ++round) {
            FaultyMount m(fresh_image(format));
            ASSERT_TRUE(m.mount("", true));
            for (const char* name : {"stays", "goes"}) {
                auto file = m.open(std::string("/") + name);
                ASSERT_TRUE(file->truncate(page));
                auto memory = file->map(0, page, PROT_READ | PROT_WRITE, MAP_SHARED);
                if (!memory) GTEST_SKIP() << memory.error().what;
                static_cast<volatile char*>(*memory)[0] = 'm';
                ASSERT_TRUE(ClientMaps::unmap(*memory, page));
            }
            const auto top = m.fs->root();
            ASSERT_TRUE(m.fs->unlink(**top, "goes", root, false));
            ASSERT_TRUE(m.fs->freeze());
            expect_clean(*m.memory->clone(), format);
            ASSERT_TRUE(m.fs->unmount());
            expect_clean(*m.memory, format);
        }
}

}  // namespace
}  // namespace uext4::faults

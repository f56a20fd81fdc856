// Who meets no space waits for what another thread is about to give back.
#include "tests/faults/all_faults.h"
#include "tests/faults/faulty_mount.h"

#include <atomic>

namespace uext4::faults::space_on_its_way_test {
namespace {

constexpr std::size_t block = 1024, blocks = 600;

class SpaceOnItsWay : public testing::TestWithParam<const char*> {
protected:
    // A file of `blocks` blocks with a tree of its own, and three are left.
    void SetUp() override {
        ASSERT_TRUE(m.mount(GetParam()));
        auto file = m.open("/f");
        for (std::size_t i = 0; i < blocks; ++i) {
            ASSERT_TRUE(file->write(2 * i * block, filled(block, 'f')));
            if (i % 50 == 0) {
                ASSERT_TRUE(file->sync(false));
            }
        }
        ASSERT_TRUE(file->sync(false));
        file.reset();
        auto fill = m.open("/fill");
        for (std::uint64_t at = 0; left() > 3;) {
            const std::uint64_t n = left() > 100 ? left() - 50 : 1;
            ASSERT_TRUE(fill->write(at, std::vector<std::byte>(n * block)));
            ASSERT_TRUE(m.fs->sync());
            at += n * block;
        }
        written = m.open("/g");
    }
    std::uint64_t left() { return m.fs->statistics()->f_bfree; }
    void stick(DeviceRequest::Kind kind) {
        DeviceFault fault;
        fault.kinds = {kind};
        fault.effect = Effect::Stick;
        m.faulty->add(fault);
    }
    void wait_until_stuck() {
        for (int i = 0; i < 10'000 && m.faulty->stuck() == 0; ++i) this_thread::sleep(std::chrono::milliseconds(1));
        EXPECT_NE(m.faulty->stuck(), 0u);
    }
    void remove() { ASSERT_TRUE(m.fs->unlink(**m.fs->root(), "f", root, false)); }
    // Nobody else frees anything: without what is stuck this is ENOSPC.
    void write_more_than_is_left() {
        const auto n = written->write(0, filled(4 * block, 'g'));
        EXPECT_TRUE(n) << n.error().what;
        if (n) {
            EXPECT_EQ(*n, 4 * block);
        }
    }
    void end() {
        EXPECT_TRUE(written->sync(false));
        written.reset();
        EXPECT_TRUE(m.fs->unmount());
        expect_clean(*m.memory, "at the end");
    }

    FaultyMount m{fresh_image("-b 1024 -m 0 -J size=1 -E lazy_itable_init=0")};
    std::unique_ptr<OpenFile> written;
};

TEST_P(SpaceOnItsWay, FromADeletionThatAnotherHasBegun) {
    using namespace std::chrono_literals;
    auto file = m.open("/f");
    Inode& inode = file->inode();
    remove();
    std::atomic<bool> held{false}, enough{false};
    // What deletes it comes so far and no further.
    Thread holds("holds", [&] {
        WriteLock guard(inode.rw);
        held.store(true);
        while (!enough.load()) this_thread::sleep(1ms);
    });
    while (!held.load()) this_thread::sleep(1ms);
    file.reset();
    ASSERT_TRUE(m.fs->volume().fs().journal.commit_all());
    Thread deletes("deletes", [&] { m.fs->volume().wait_for_deletions(); });
    this_thread::sleep(50ms);
    Thread lets_go("lets go", [&] {
        this_thread::sleep(100ms);
        enough.store(true);
    });
    write_more_than_is_left();
    lets_go.join();
    holds.join();
    deletes.join();
    end();
}

TEST_P(SpaceOnItsWay, FromAFileThatAnotherLooksAt) {
    ASSERT_TRUE(m.open("/f")->write(0, filled(block, 'n')));
    stick(Kind::Write);
    Thread syncs("syncs", [&] { EXPECT_TRUE(m.fs->sync()); });
    wait_until_stuck();
    remove();
    {
        const Unsticker unsticker(*m.faulty);
        write_more_than_is_left();
    }
    syncs.join();
    end();
}

INSTANTIATE_TEST_SUITE_P(Modes, SpaceOnItsWay, testing::Values("data=ordered", "data=journal"));

}  // namespace
}  // namespace uext4::faults::space_on_its_way_test

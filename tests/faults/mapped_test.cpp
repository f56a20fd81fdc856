// Memory maps on a device that fails.
#include "tests/doubles/simulated_maps.h"
#include "tests/faults/faulty_mount.h"

#include <sys/mman.h>

namespace uext4::faults {
namespace {

class Mapped : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        m = std::make_unique<FaultyMount>(fresh_image("-b 4096"));
        ASSERT_TRUE(m->mount(GetParam()));
        ASSERT_TRUE(m->open("/f")->write(0, filled(8192, 'a')));
        ASSERT_TRUE(m->fs->unmount());  // all of it is in its place
        ASSERT_TRUE(m->mount(GetParam()));
        file = m->open("/f"), other = m->open("/g");
        maps = std::make_unique<SimulatedMaps>(m->fs->maps());
    }
    Result<SimulatedMaps::MapRef> map() {
        MapRequest request;
        request.inode = file->inode_ref();
        request.length = 8192;
        request.protection = PROT_READ | PROT_WRITE;
        request.may_write = true;
        return maps->map(request);
    }
    std::string shown() {
        std::vector<std::byte> bytes(8192);
        const auto got = file->read(0, bytes);
        return got ? std::string(reinterpret_cast<const char*>(bytes.data()), *got) : got.error().what;
    }
    void end() {
        maps.reset();
        file.reset(), other.reset();
        (void)m->fs->unmount();  // of an aborted journal: it says so
        m->fs.reset();
        expect_sound(m->memory, "what is left");
    }

    std::unique_ptr<FaultyMount> m;
    std::unique_ptr<OpenFile> file, other;
    std::unique_ptr<SimulatedMaps> maps;
};

// What cannot become durable any more is what the file holds all the same, as long as it is mounted.
TEST_P(Mapped, ShowsWhatAnAbortedJournalHasNotTaken) {
    const std::string written(8192, 'b');
    ASSERT_TRUE(file->write(0, filled(8192, 'b')));
    ASSERT_TRUE(other->truncate(10000));  // no data: the first write is the log's
    m->faulty->fail_writes();
    EXPECT_NE(code_of(other->sync(false)), 0);
    m->faulty->clear();
    ASSERT_TRUE(m->fs->read_only());
    EXPECT_TRUE(shown() == written);
    auto made = map();
    EXPECT_TRUE(shown() == written);
    if (made) {
        std::vector<std::byte> loaded(8192);
        EXPECT_TRUE(maps->load(**made, 0, loaded));
        EXPECT_TRUE(loaded == filled(8192, 'b'));
        (void)maps->unmap(*made);  // it keeps its memory where nothing can be written
        EXPECT_TRUE(shown() == written);
        made->reset();
    } else {
        EXPECT_EQ(made.error().code, EROFS);
    }
    end();
}

// EAGAIN of a device is no freeze: nobody would thaw it.
TEST_P(Mapped, MeetsADeviceThatWantsToBeAskedAgain) {
    auto made = map();
    ASSERT_TRUE(made) << made.error().what;
    m->faulty->fail_reads(EAGAIN);
    std::vector<std::byte> loaded(8192);
    EXPECT_EQ(code_of(maps->load(**made, 0, loaded)), EIO);
    EXPECT_EQ(code_of(maps->store(**made, 0, filled(1, 's'))), EIO);
    EXPECT_EQ(maps->parked(), 0U);
    m->faulty->clear();
    EXPECT_TRUE(maps->load(**made, 0, loaded));
    EXPECT_TRUE(loaded == filled(8192, 'a'));
    EXPECT_TRUE(maps->store(**made, 0, filled(8192, 's')));
    EXPECT_TRUE(maps->unmap(*made));
    made->reset();
    EXPECT_TRUE(shown() == std::string(8192, 's'));
    end();
}

INSTANTIATE_TEST_SUITE_P(Modes, Mapped, testing::Values("data=ordered", "data=journal"),
                         [](const auto& info) { return std::string(info.param).substr(5); });

}  // namespace
}  // namespace uext4::faults

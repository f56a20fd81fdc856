// What the file system answers, keeps and says when its device fails in one place.
#include "format/journal.h"
#include "format/superblock.h"
#include "inode/inode.h"
#include "tests/faults/faulty_mount.h"
#include "volume/journal_location.h"

namespace uext4::faults {
namespace {

using Kind = DeviceRequest::Kind;

class Answers : public testing::Test {
protected:
    void SetUp() override { start("-b 4096", ""); }
    void start(const std::string& format, const std::string& options) {
        m = std::make_unique<FaultyMount>(fresh_image(format));
        auto mounted = m->mount(options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        auto file = m->open("/f");
        ASSERT_TRUE(file->write(0, filled(16384, 'a')));
        ASSERT_TRUE(m->fs->sync());
        auto runs = locate_journal(m->fs->volume().inodes(), m->fs->volume().geometry());
        ASSERT_TRUE(runs);
        log_runs = *runs;
    }
    bool in_log(std::uint64_t offset) const {
        for (const BlockRun& run : log_runs)
            if (offset / 4096 >= run.first.value && offset / 4096 < run.first.value + run.count) return true;
        return false;
    }
    // Writes of file contents fail: nothing else goes outside the log between two checkpoints.
    DeviceFault data_fault(std::uint64_t times) {
        DeviceFault fault;
        fault.kinds = {Kind::Write};
        fault.predicate = [this](const DeviceRequest& r) { return !in_log(r.offset); };
        fault.times = times;
        return fault;
    }
    std::unique_ptr<FaultyMount> m;
    std::vector<BlockRun> log_runs;
};

TEST_F(Answers, AFailedWriteOfNewDataIsTriedInOtherBlocks) {
    auto file = m->open("/f");
    ASSERT_TRUE(file->write(16384, filled(8192, 'b')));
    const auto fault = m->faulty->add(data_fault(1));
    auto synced = file->sync(false);
    EXPECT_TRUE(synced) << synced.error().what;
    EXPECT_EQ(m->faulty->hits(fault), 1u);
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(16384, 'a') + std::string(8192, 'b'));
    file.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

// What a truncate that is refused would have cut off is there as before: what was synced, and what was not yet.
TEST_F(Answers, ATruncateThatFailsLeavesTheContents) {
    for (const char* format : {"-b 4096", "-b 1024", "-b 1024 -O bigalloc -C 4096"}) {
        for (const char* options : {"data=ordered", "data=journal"}) {
            SCOPED_TRACE(fmt::format("{}, {}", format, options));
            start(format, options);
            auto file = m->open("/f");
            ASSERT_TRUE(file->write(8192, filled(8192, 'b')));  // not synced
            const std::string whole = std::string(8192, 'a') + std::string(8192, 'b');
            unsigned refused = 0;
            for (const std::uint64_t size : {8192u + 2500u, 4096u + 700u, 1u}) {
                const auto fault = m->faulty->add(data_fault(DeviceFault::for_good));
                const bool done = file->truncate(size).has_value();
                const bool hit = m->faulty->hits(fault) > 0;
                m->faulty->clear();
                EXPECT_EQ(done, !hit);
                if (done) break;  // nothing was to be written
                ++refused;
                EXPECT_EQ(read_all(*m->fs, "/f"), whole) << size;
            }
            // Journaled data is written to the log, and so is the last block of a file with clusters.
            const bool has_clusters = std::string_view(format).contains("bigalloc");
            EXPECT_EQ(refused > 0, std::string_view(options) == "data=ordered" && !has_clusters);
            const std::string seen = read_all(*m->fs, "/f");
            EXPECT_TRUE(file->sync(false));
            EXPECT_EQ(read_all(*m->fs, "/f"), seen);
            EXPECT_EQ(read_all(m->durable(), "/f"), seen);
            file.reset();
            EXPECT_TRUE(m->fs->unmount());
            expect_sound(m->memory, "after the unmount");
        }
    }
}

TEST_F(Answers, AFailedWriteOfATailIsTriedInAnotherBlock) {
    auto file = m->open("/f");
    const auto fault = m->faulty->add(data_fault(1));
    EXPECT_TRUE(file->truncate(5000));
    EXPECT_EQ(m->faulty->hits(fault), 1u);
    EXPECT_TRUE(file->sync(false));
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(5000, 'a'));
    file.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

TEST_F(Answers, AFailedOverwriteIsTriedInOtherBlocks) {
    auto file = m->open("/f");
    ASSERT_TRUE(file->write(4096, filled(8192, 'b')));
    const auto fault = m->faulty->add(data_fault(1));
    auto synced = file->sync(true);
    EXPECT_TRUE(synced) << synced.error().what;
    EXPECT_EQ(m->faulty->hits(fault), 1u);
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(4096, 'a') + std::string(8192, 'b') + std::string(4096, 'a'));
    file.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

// Nothing of the file has changed but where its blocks are: a sync of the data alone has to make that durable.
TEST_F(Answers, WhereAFailedOverwriteWentIsData) {
    for (const char* format : {"-b 4096", "-b 4096 -O ^extents,^64bit"}) {
        for (const bool times_are_stored : {false, true}) {
            SCOPED_TRACE(fmt::format("{}, {}", format, times_are_stored));
            start(format, "");
            auto file = m->open("/f");
            ASSERT_TRUE(file->write(4096, filled(4096, 'b')));
            if (times_are_stored) {
                ASSERT_TRUE(m->fs->sync());
                file->set_kernel_cached(true);  // who caches the file has its times
                ASSERT_TRUE(file->write(4096, filled(1000, 'c')));
            }
            const auto fault = m->faulty->add(data_fault(1));
            const auto synced = file->sync(true);
            EXPECT_TRUE(synced) << synced.error().what;
            EXPECT_EQ(m->faulty->hits(fault), 1u);
            const std::string middle =
                times_are_stored ? std::string(1000, 'c') + std::string(3096, 'b') : std::string(4096, 'b');
            EXPECT_EQ(read_all(m->durable(), "/f"), std::string(4096, 'a') + middle + std::string(8192, 'a'));
            file.reset();
            EXPECT_TRUE(m->fs->unmount());
            expect_sound(m->memory, "after the unmount");
        }
    }
}

TEST_F(Answers, EveryFsyncReportsDataThatCannotBeWritten) {
    auto file = m->open("/f"), other = m->open("/f", O_RDWR), innocent = m->open("/g");
    ASSERT_TRUE(file->write(0, filled(4096, 'b')));
    ASSERT_TRUE(file->write(16384, filled(4096, 'c')));
    const auto fault = m->faulty->add(data_fault(DeviceFault::for_good));
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(code_of(file->sync(false)), EIO);
        EXPECT_EQ(code_of(other->sync(true)), EIO);
    }
    // The data is still there for readers, and the file system goes on for others.
    EXPECT_EQ(read_all(*m->fs, "/f"), std::string(4096, 'b') + std::string(12288, 'a') + std::string(4096, 'c'));
    EXPECT_FALSE(m->fs->read_only());
    EXPECT_EQ(code_of(innocent->sync(false)), 0);
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(16384, 'a'));
    // The device is well again.
    m->faulty->remove(fault);
    while (code_of(file->sync(false)) != 0)
        if (HasFailure()) return;
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(4096, 'b') + std::string(12288, 'a') + std::string(4096, 'c'));
    file.reset(), other.reset(), innocent.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

// An error that background writeback has met is told to each who had the file open, once, though all is durable by
// then.
TEST_F(Answers, EachOpenerHearsOfAnErrorInTheBackground) {
    auto one = m->open("/f"), two = m->open("/f", O_RDWR);
    ASSERT_TRUE(one->write(0, filled(4096, 'b')));
    const auto fault = m->faulty->add(data_fault(DeviceFault::for_good));
    EXPECT_FALSE(m->fs->sync());
    m->faulty->remove(fault);
    while (!m->fs->sync())
        if (HasFailure()) return;
    auto late = m->open("/f", O_RDWR);
    for (OpenFile* file : {one.get(), two.get()}) {
        EXPECT_EQ(code_of(file->sync(false)), EIO);
        EXPECT_EQ(code_of(file->sync(false)), 0);
    }
    EXPECT_EQ(code_of(late->sync(false)), 0);
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(4096, 'b') + std::string(12288, 'a'));
    one.reset(), two.reset(), late.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

TEST_F(Answers, TheUnmountEndsAndNamesTheFile) {
    std::vector<std::uint64_t> numbers;
    for (const char* path : {"/f", "/g", "/h"}) {
        auto file = m->open(path);
        numbers.push_back(file->inode().number().value);
        ASSERT_TRUE(file->write(0, filled(4096, 'b')));
    }
    m->faulty->add(data_fault(DeviceFault::for_good));
    ASSERT_FALSE(m->fs->unmount());
    for (const std::uint64_t number : numbers)
        EXPECT_GE(m->said(fmt::format("writeback: inode {}: ", number)), 1u) << m->log;
    m->fs.reset();
    m->faulty->clear();
    EXPECT_EQ(read_all(m->memory, "/f"), std::string(16384, 'a'));
}

TEST_F(Answers, ALogThatCannotBeWrittenMakesItReadOnlyAndIsRemembered) {
    DeviceFault fault;
    fault.kinds = {Kind::Write};
    fault.predicate = [this](const DeviceRequest& r) {
        return in_log(r.offset) && r.offset / 4096 != log_runs.front().first.value;
    };
    fault.times = 1;
    m->faulty->add(fault);
    {
        auto file = m->open("/f"), other = m->open("/g", O_CREAT | O_RDWR);
        ASSERT_TRUE(file->write(16384, filled(4096, 'b')));
        ASSERT_TRUE(other->write(0, filled(4096, 'b')));
        EXPECT_EQ(code_of(file->sync(false)), EIO);
        EXPECT_NE(code_of(file->sync(false)), 0);
        EXPECT_NE(code_of(other->sync(false)), 0);
        for (int i = 0; i < 2; ++i) EXPECT_FALSE(m->fs->sync());
        EXPECT_TRUE(m->fs->read_only());
        auto refused = file->write(0, filled(10, 'x'));
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, EROFS);
        EXPECT_EQ(m->said("aborted"), 1u) << m->log;
    }
    EXPECT_FALSE(m->fs->unmount());
    m->fs.reset();
    expect_sound(m->memory, "what the abort left");
    EXPECT_EQ(read_all(m->memory, "/f"), std::string(16384, 'a'));

    // The next mount takes over what the log says, once.
    ASSERT_TRUE(m->mount());
    EXPECT_EQ(m->said("aborted by an earlier mount"), 1u) << m->log;
    EXPECT_FALSE(m->fs->read_only());
    {
        ASSERT_TRUE(m->open("/h")->sync(false));
    }
    EXPECT_TRUE(m->fs->unmount());
    format::SuperBlock super;
    ASSERT_TRUE(m->memory->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    EXPECT_TRUE(super.state & format::super_state::errors);
    m->fs.reset();
    m->log.clear();
    ASSERT_TRUE(m->mount());
    EXPECT_EQ(m->said("aborted"), 0u) << m->log;
    EXPECT_TRUE(m->fs->unmount());
}

// A device that refuses the word of the abort as well, and is well again before the unmount.
TEST_F(Answers, AnAbortIsRememberedByADeviceThatIsWellAgain) {
    DeviceFault fault;
    fault.kinds = {Kind::Write, Kind::Fua};
    fault.predicate = [this](const DeviceRequest& r) { return in_log(r.offset); };
    const auto armed = m->faulty->add(fault);
    {
        auto file = m->open("/f");
        ASSERT_TRUE(file->write(16384, filled(4096, 'b')));
        EXPECT_EQ(code_of(file->sync(false)), EIO);
    }
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (m->faulty->hits(armed) < 2 && std::chrono::steady_clock::now() < limit)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_GE(m->faulty->hits(armed), 2u) << "the word of the abort is tried at once";
    m->faulty->clear();
    EXPECT_FALSE(m->fs->unmount());
    m->fs.reset();
    ASSERT_TRUE(m->mount());
    EXPECT_EQ(m->said("aborted by an earlier mount"), 1u) << m->log;
    EXPECT_TRUE(m->fs->unmount());
    format::SuperBlock super;
    ASSERT_TRUE(m->memory->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    EXPECT_TRUE(super.state & format::super_state::errors);
}

// What a device forgot after a failed flush is not known; nothing may be acknowledged any more.
TEST_F(Answers, AfterAFailedFlushNothingIsAcknowledged) {
    for (const bool with_commit : {false, true}) {
        start("-b 4096", "");
        auto file = m->open("/f");
        ASSERT_TRUE(file->write(with_commit ? 16384 : 0, filled(4096, 'b')));
        m->faulty->fail_flushes(EIO, 1);
        EXPECT_EQ(code_of(file->sync(true)), EIO);
        EXPECT_NE(code_of(file->sync(true)), 0);
        EXPECT_NE(code_of(file->sync(false)), 0);
        EXPECT_TRUE(m->fs->read_only());
        file.reset();
        EXPECT_FALSE(m->fs->unmount());
    }
}

// Damage that is met while running: a checksum of an inode.
TEST_F(Answers, ErrorsContinueAndRemountReadOnly) {
    for (const bool remount : {false, true}) {
        start("-b 4096", remount ? "errors=remount-ro" : "errors=continue");
        std::uint64_t number = 0;
        {
            auto file = m->open("/damaged");
            number = file->inode().number().value;
        }
        ASSERT_TRUE(m->fs->unmount());
        m->fs.reset();
        const std::string path = fmt::format("/dev/shm/uext4-faults-{}", ::getpid());
        ASSERT_TRUE(m->memory->save(path));
        ASSERT_EQ(
            std::system(fmt::format("debugfs -w -R 'set_inode_field <{}> checksum 1' {} >/dev/null 2>&1", number, path)
                            .c_str()),
            0);
        auto damaged = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(damaged);
        m = std::make_unique<FaultyMount>(std::shared_ptr<MemoryDevice>(std::move(*damaged)));
        ASSERT_TRUE(m->mount(remount ? "errors=remount-ro" : "errors=continue"));
        for (int i = 0; i < 2; ++i) EXPECT_FALSE(m->fs->open_path("/damaged", O_RDONLY, 0, root));
        EXPECT_EQ(m->said("damage: "), 1u) << m->log;
        EXPECT_EQ(m->fs->read_only(), remount);
        auto more = m->fs->open_path("/more", O_CREAT | O_RDWR, 0644, root);
        EXPECT_EQ(more.has_value(), !remount);
        if (more) more->reset();
        (void)m->fs->unmount();
    }
}

// An image with half a superblock is opened by its backups only: written home from the log, and at the end.
TEST_F(Answers, NoSuperblockIsLeftInHalves) {
    for (const bool logged : {true, false}) {
        start("-b 4096 -O ^orphan_file", "");
        auto file = m->open("/f");
        ASSERT_TRUE(file->write(0, filled(100, 'b')));
        if (logged) {
            ASSERT_TRUE(m->fs->unlink(*m->fs->root().value(), "f", root, true));  // the list of orphans begins there
        }
        ASSERT_TRUE(m->fs->sync());
        DeviceFault torn;
        torn.effect = DeviceFault::Effect::Torn;
        torn.kinds = {Kind::Write, Kind::Fua};
        torn.offset = format::super_offset;
        torn.length = 1024;
        torn.bytes = logged ? format::super_offset + 512 : 512;
        torn.times = 2;
        const std::uint64_t fault = m->faulty->add(torn);
        file.reset();
        const Result<void> ended = m->fs->unmount();
        EXPECT_TRUE(ended) << logged << ": " << ended.error().what;
        m->fs.reset();
        EXPECT_EQ(m->faulty->hits(fault), 2u) << logged;
        auto again = FileSystem::mount_device(m->memory, {});
        EXPECT_TRUE(again) << logged << ": " << again.error().what;
        if (again) {
            EXPECT_TRUE((*again)->unmount());
        }
    }
}

}  // namespace
}  // namespace uext4::faults

// errors=: every structure of a file that is damaged or cannot be read is answered by the policy, said once in the log,
// and counted in the superblock.
#include "format/superblock.h"
#include "inode/xattr.h"
#include "tests/faults/faulty_mount.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <thread>

namespace uext4::faults {
namespace {

struct Structure {
    const char* name;
    const char* format;
    // The device's block that is to be damaged, of the file /f.
    std::function<BlockNr(Inode&)> find;
    // What meets it.
    std::function<Result<void>(FileSystem&)> meet;
};

Result<void> read_data(FileSystem& fs) {
    auto file = TRY(fs.open_path("/f", O_RDONLY, 0, root));
    std::vector<std::byte> out(4096);
    (void)TRY(file->read(std::uint64_t{8192} * 30, out));
    return {};
}

Result<void> write_data(FileSystem& fs) {
    auto file = TRY(fs.open_path("/f", O_RDWR, 0, root));
    (void)TRY(file->write(std::uint64_t{8192} * 30 + 4096, std::vector<std::byte>(100)));
    return file->sync(false);
}

Result<void> read_attribute(FileSystem& fs) {
    auto file = TRY(fs.open_path("/f", O_RDONLY, 0, root));
    TRY(get_xattr(file->inode(), "user.long"));
    return {};
}

BlockNr tree_block(Inode& inode) {
    BlockNr found;
    MutexLock guard(inode.map_lock);
    EXPECT_TRUE(inode.map().for_each_tree_block([&](BlockNr block) {
        if (!found) found = block;
        return true;
    }));
    return found;
}

BlockNr attribute_block(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.xattr_block();
}

const Structure structures[] = {
    {"extent node, read", "-b 4096", tree_block, read_data},
    {"extent node, written", "-b 4096", tree_block, write_data},
    {"indirect block", "-b 4096 -O ^extents,^64bit", tree_block, read_data},
    {"attribute block", "-b 4096", attribute_block, read_attribute},
};

// A file of many extents with an attribute that the inode has no room for, and the block to damage.
BlockNr prepare(const std::shared_ptr<MemoryDevice>& image, const Structure& what) {
    FaultyMount m(image);
    EXPECT_TRUE(m.mount());
    BlockNr found;
    {
        auto file = m.open("/f");
        for (std::uint64_t i = 0; i < 40; ++i) EXPECT_TRUE(file->write(8192 * i, std::vector<std::byte>(4096)));
        EXPECT_TRUE(file->sync(false));
        EXPECT_TRUE(m.fs->set_xattr(file->inode(), "user.long", std::vector<std::byte>(1000), 0, root, false));
        EXPECT_TRUE(m.fs->sync());
        found = what.find(file->inode());
    }
    EXPECT_TRUE(m.fs->unmount());
    EXPECT_TRUE(found) << what.name;
    return found;
}

format::SuperBlock super_of(MemoryDevice& image) {
    format::SuperBlock super;
    EXPECT_TRUE(image.read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    return super;
}

// errors=remount-ro closes, errors=continue goes on; both tell once and count.
void judge(FaultyMount& m, const Structure& what, bool remounts, int code, std::uint8_t number) {
    for (int i = 0; i < 2; ++i) {
        const Result<void> met = what.meet(*m.fs);
        ASSERT_FALSE(met) << what.name;
        EXPECT_TRUE(met.error().code == code || (i > 0 && met.error().code == EROFS))
            << what.name << ": " << met.error().what;
    }
    EXPECT_EQ(m.said("damage: "), 1u) << what.name << ": " << m.log;
    EXPECT_EQ(m.fs->read_only(), remounts) << what.name;
    auto more = m.fs->open_path("/more", O_CREAT | O_RDWR, 0644, root);
    EXPECT_EQ(more.has_value(), !remounts) << what.name;
    if (!more) {
        EXPECT_EQ(more.error().code, EROFS);
    } else {
        more->reset();
    }
    m.faulty->clear();
    (void)m.fs->unmount();
    const format::SuperBlock super = super_of(*m.memory);
    EXPECT_TRUE(super.state & format::super_state::errors) << what.name;
    EXPECT_GE(super.error_count, 1u) << what.name;
    EXPECT_EQ(super.first_error_errcode, number) << what.name;
    EXPECT_NE(super.first_error_time, 0u) << what.name;
    EXPECT_NE(super.last_error_time, 0u) << what.name;
    EXPECT_NE(super.first_error_func[0], '\0') << what.name;
}

TEST(Policy, DamageInAFilesBlocks) {
    for (const Structure& what : structures) {
        for (const bool remounts : {false, true}) {
            auto image = fresh_image(what.format);
            const BlockNr block = prepare(image, what);
            ASSERT_TRUE(image->write(block.value * 4096, std::vector<std::byte>(4096, std::byte{0xa5})));
            FaultyMount m(image);
            ASSERT_TRUE(m.mount(remounts ? "errors=remount-ro" : "errors=continue"));
            judge(m, what, remounts, EUCLEAN, 5);
        }
    }
}

// As after a crash: what the device has, and what its log brings back.
format::SuperBlock super_after_replay(std::shared_ptr<MemoryDevice> image) {
    FaultyMount m(image);
    EXPECT_TRUE(m.mount());
    (void)m.fs->unmount();
    return super_of(*image);
}

// e2fsck is to look at the image though it is never unmounted.
TEST(Policy, DamageIsMarkedBeforeACrash) {
    for (const char* errors : {"errors=continue", "errors=remount-ro"})
        for (const char* format : {"-b 4096", "-b 4096 -O ^has_journal"}) {
            const Structure what{"", format, tree_block, read_data};
            auto image = fresh_image(format);
            const BlockNr block = prepare(image, what);
            ASSERT_TRUE(image->write(block.value * 4096, std::vector<std::byte>(4096, std::byte{0xa5})));
            const auto marked = [](const format::SuperBlock& super) {
                return (super.state & format::super_state::errors) != 0 && super.error_count != 0u;
            };
            {
                FaultyMount m(image->clone());
                ASSERT_TRUE(m.mount(errors, true));
                EXPECT_FALSE(read_data(*m.fs));
                const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
                while (!marked(super_after_replay(m.durable()))) {
                    ASSERT_LT(std::chrono::steady_clock::now(), limit) << errors << ", " << format;
                    std::this_thread::sleep_for(std::chrono::milliseconds(10));
                }
                (void)m.fs->unmount();
                EXPECT_EQ(super_of(*m.memory).error_count, 1u) << "counted twice";
            }
            // Without threads: by a sync, and in a frozen image.
            FaultyMount m(image->clone());
            ASSERT_TRUE(m.mount(errors));
            EXPECT_FALSE(read_data(*m.fs));
            if (std::string_view(errors) == "errors=continue") {
                EXPECT_TRUE(m.fs->sync());
                EXPECT_TRUE(marked(super_after_replay(m.durable()))) << errors << ", " << format;
            }
            ASSERT_TRUE(m.fs->freeze());
            EXPECT_TRUE(marked(super_of(*m.durable()))) << errors << ", " << format;
            EXPECT_TRUE(m.fs->thaw());
            (void)m.fs->unmount();
            EXPECT_EQ(super_of(*m.memory).error_count, 1u) << "counted twice";
        }
}

// errors=panic marks the device, past a log that has an earlier superblock: whoever recovers keeps the mark, and what
// it says.
TEST(Policy, AMarkThatTheLogDoesNotKnowStays) {
    std::shared_ptr<MemoryDevice> cut;
    {
        FaultyMount m(fresh_image("-b 4096 -O ^orphan_file"));
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        // The list of orphans begins in the superblock.
        ASSERT_TRUE(m.fs->unlink(**m.fs->root(), "f", root, false));
        ASSERT_TRUE(m.fs->sync());
        cut = m.durable();
        file.reset();
        EXPECT_TRUE(m.fs->unmount());
    }
    format::SuperBlock marked = super_of(*cut);
    ASSERT_TRUE(marked.has_incompat(format::incompat::recover));
    constexpr std::uint16_t not_in_the_log = 1000;
    marked.mnt_count = not_in_the_log;
    marked.state = static_cast<std::uint16_t>(marked.state | format::super_state::errors);
    marked.error_count = 3;
    marked.first_error_time = 1'700'000'000;
    marked.last_error_time = 1'700'000'100;
    marked.first_error_errcode = marked.last_error_errcode = 5;
    std::strcpy(marked.first_error_func, "inode 12: extent tree");
    std::strcpy(marked.last_error_func, "group 1: block bitmap");
    format::set_super_checksum(marked);
    ASSERT_TRUE(cut->write(format::super_offset, std::as_bytes(std::span(&marked, 1))));
    FaultyMount m(cut);
    ASSERT_TRUE(m.mount("errors=continue"));
    for (const char* when : {"while it is mounted", "after the unmount"}) {
        SCOPED_TRACE(when);
        const format::SuperBlock now = super_of(*cut);
        EXPECT_LT(now.mnt_count, not_in_the_log) << "the log had no superblock";
        EXPECT_TRUE(now.state & format::super_state::errors);
        EXPECT_EQ(now.error_count, marked.error_count);
        EXPECT_EQ(now.first_error_time, marked.first_error_time);
        EXPECT_EQ(now.last_error_time, marked.last_error_time);
        EXPECT_EQ(now.first_error_errcode, marked.first_error_errcode);
        EXPECT_EQ(now.last_error_errcode, marked.last_error_errcode);
        EXPECT_STREQ(now.first_error_func, marked.first_error_func);
        EXPECT_STREQ(now.last_error_func, marked.last_error_func);
        if (m.fs) {
            EXPECT_TRUE(m.fs->unmount());
            m.fs.reset();
        }
    }
}

TEST(Policy, DamageThatAFrozenFileSystemMeetsIsMarkedByTheThaw) {
    const Structure what{"", "-b 4096", tree_block, read_data};
    auto image = fresh_image(what.format);
    const BlockNr block = prepare(image, what);
    ASSERT_TRUE(image->write(block.value * 4096, std::vector<std::byte>(4096, std::byte{0xa5})));
    for (const bool background : {false, true}) {
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount("errors=continue", background));
        ASSERT_TRUE(m.fs->freeze());
        const auto frozen = m.memory->clone();
        EXPECT_FALSE(read_data(*m.fs));
        std::this_thread::sleep_for(std::chrono::milliseconds(background ? 100 : 0));
        std::vector<std::byte> before(1 << 20), now(before.size());
        for (std::uint64_t at = 0; at < frozen->size(); at += before.size()) {
            ASSERT_TRUE(frozen->read(at, before));
            ASSERT_TRUE(m.memory->read(at, now));
            ASSERT_EQ(before, now) << "a frozen image has changed, in its MiB from " << at;
        }
        ASSERT_TRUE(m.fs->thaw());
        EXPECT_TRUE(super_of(*m.durable()).state & format::super_state::errors);
        (void)m.fs->unmount();
    }
}

// Whoever comes by damage that is known already costs nobody a commit.
TEST(Policy, KnownDamageIsMarkedOnce) {
    const Structure what{"", "-b 4096", tree_block, read_data};
    auto image = fresh_image(what.format);
    const BlockNr block = prepare(image, what);
    ASSERT_TRUE(image->write(block.value * 4096, std::vector<std::byte>(4096, std::byte{0xa5})));
    FaultyMount m(image);
    ASSERT_TRUE(m.mount("errors=continue", true));
    const auto flushes = [&] {
        const auto log = m.recorder->log();
        return std::ranges::count_if(log, [](const RecordedWrite& w) { return w.kind != RecordedWrite::Kind::Write; });
    };
    EXPECT_FALSE(read_data(*m.fs));
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!(super_after_replay(m.durable()).state & format::super_state::errors))
        ASSERT_LT(std::chrono::steady_clock::now(), limit);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const auto before = flushes();
    for (int i = 0; i < 200; ++i) {
        EXPECT_FALSE(read_data(*m.fs));
        m.open(fmt::format("/n{}", i));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(flushes(), before);
    (void)m.fs->unmount();
}

// Nor does the superblock that cannot be read keep a thread busy.
TEST(Policy, AMarkThatCannotBeMadeIsNotTriedForEver) {
    FaultyMount m(fresh_image("-b 1024"));
    ASSERT_TRUE(m.mount("errors=continue", true));
    const auto top = m.fs->root();
    ASSERT_TRUE(m.fs->freeze());
    ASSERT_TRUE(m.fs->thaw());
    m.fs->volume().fs().buffers.invalidate_all_clean();
    std::atomic<std::uint64_t> reads{0};
    DeviceFault fault;
    fault.kinds = {DeviceRequest::Kind::Read};
    fault.predicate = [&](const DeviceRequest&) { return ++reads != 0; };
    m.faulty->add(fault);
    EXPECT_FALSE(m.fs->open_path("/new", O_CREAT | O_RDWR, 0644, root));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_LT(reads.load(), 100u);
    m.faulty->clear();
    (void)m.fs->unmount();
}

// A device that is gone: the log gets the first lines, and how many more there were.
TEST(Policy, ADeviceThatCannotBeReadIsToldOfInFewLines) {
    auto image = fresh_image("-b 1024 -N 2048");
    {
        FaultyMount m(image);
        ASSERT_TRUE(m.mount());
        for (int n = 0; n < 1500; ++n) m.open(fmt::format("/f{}", n));
        ASSERT_TRUE(m.fs->unmount());
    }
    FaultyMount m(image);
    ASSERT_TRUE(m.mount("errors=continue"));
    std::vector<InodeNr> numbers;
    for (std::uint32_t n = 20; n < 1500; n += 4) numbers.emplace_back(n);
    // What leads to the tables is known by then.
    for (const std::uint32_t n : {16u, 750u, 1450u}) EXPECT_TRUE(m.fs->inode(InodeNr(n))) << n;
    DeviceFault fault;
    fault.kinds = {DeviceRequest::Kind::Read};
    m.faulty->add(fault);
    std::size_t failed = 0;
    for (const InodeNr number : numbers) failed += !m.fs->inode(number).has_value();
    EXPECT_GT(failed, 300u);
    EXPECT_EQ(m.said("damage: "), 10u) << m.log;
    EXPECT_EQ(m.said("more like it"), 0u);
    m.faulty->clear();
    (void)m.fs->unmount();
    m.fs.reset();
    EXPECT_EQ(m.said("damage: ... and "), 1u) << m.log;
    EXPECT_GE(super_of(*m.memory).error_count, 300u);
}

TEST(Policy, BlocksOfAFileThatCannotBeRead) {
    for (const Structure& what : structures) {
        for (const bool remounts : {false, true}) {
            auto image = fresh_image(what.format);
            const BlockNr block = prepare(image, what);
            FaultyMount m(image);
            ASSERT_TRUE(m.mount(remounts ? "errors=remount-ro" : "errors=continue"));
            m.faulty->fail_range(DeviceRequest::Kind::Read, block.value * 4096, 4096);
            judge(m, what, remounts, EIO, 2);
        }
    }
}

// The data of a file is nobody's structure.
TEST(Policy, DataThatCannotBeReadIsNoDamage) {
    auto image = fresh_image("-b 4096");
    prepare(image, structures[0]);
    BlockNr data;
    {
        FaultyMount m(image);
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        MutexLock guard(file->inode().map_lock);
        auto run = file->inode().map().lookup(LogicalBlock(60), 1);
        ASSERT_TRUE(run);
        data = run->physical;
    }
    FaultyMount m(image);
    ASSERT_TRUE(m.mount("errors=remount-ro"));
    m.faulty->fail_range(DeviceRequest::Kind::Read, data.value * 4096, 4096);
    const Result<void> met = read_data(*m.fs);
    ASSERT_FALSE(met);
    EXPECT_EQ(met.error().code, EIO);
    EXPECT_FALSE(m.fs->read_only());
    m.faulty->clear();
    EXPECT_TRUE(m.fs->unmount());
    EXPECT_FALSE(super_of(*image).state & format::super_state::errors);
}

// What is read ahead comes to the part of the map that cannot be read before its reader does: who asks for that part
// has the error, and never what a folio without contents holds.
TEST(Policy, ReadsAheadOfAMapThatCannotBeRead) {
    constexpr std::uint64_t count = 900, stride = 8192;
    for (const char* format : {"-b 4096", "-b 4096 -O ^extents,^64bit"}) {
        SCOPED_TRACE(format);
        auto image = fresh_image(format);
        BlockNr last;
        {
            FaultyMount m(image);
            ASSERT_TRUE(m.mount());
            auto file = m.open("/f");
            for (std::uint64_t i = 0; i < count; ++i) ASSERT_TRUE(file->write(stride * i, filled(4096, 'd')));
            ASSERT_TRUE(file->sync(false));
            MutexLock guard(file->inode().map_lock);
            ASSERT_TRUE(file->inode().map().for_each_tree_block([&](BlockNr block) { return last = block, true; }));
        }
        FaultyMount m(image);
        ASSERT_TRUE(m.mount("errors=continue"));
        m.faulty->fail_range(DeviceRequest::Kind::Read, last.value * 4096, 4096);
        auto file = m.open("/f", O_RDONLY);
        const auto refused = [&] {
            std::uint64_t errors = 0;
            for (std::uint64_t at = 0; at < stride * count - 4096; at += 4096) {
                std::vector<std::byte> bytes(4096, std::byte{'?'});
                const auto n = file->read(at, bytes);
                if (!n) {
                    EXPECT_EQ(n.error().code, EIO) << n.error().what;
                    ++errors;
                } else {
                    EXPECT_EQ(bytes, filled(4096, at % stride ? 0 : 'd')) << "at " << at;
                    if (testing::Test::HasFailure()) break;
                }
            }
            return errors;
        };
        const std::uint64_t errors = refused();
        EXPECT_GT(errors, 0u);
        EXPECT_LT(errors, 2 * count - 1);
        m.faulty->clear();
        EXPECT_EQ(refused(), 0u);
    }
}

// errors=panic ends who changes the image; who only looks has nothing to end for.
TEST(Policy, PanicOfTheSuperblockIsForWhoeverWrites) {
    auto image = fresh_image("-b 4096 -e panic");
    const BlockNr block = prepare(image, structures[0]);
    ASSERT_TRUE(image->write(block.value * 4096, std::vector<std::byte>(4096, std::byte{0xa5})));
    {
        FaultyMount m(std::shared_ptr<MemoryDevice>(image->clone()));
        ASSERT_TRUE(m.mount("ro"));
        const Result<void> met = read_data(*m.fs);
        ASSERT_FALSE(met);
        EXPECT_EQ(met.error().code, EUCLEAN);
    }
    FaultyMount m(image);
    ASSERT_TRUE(m.mount());
    EXPECT_DEATH((void)read_data(*m.fs), "");
    (void)m.fs->unmount();
}

// Damage that ends changes does not take what was written before, by whatever way.
TEST(Policy, WhatWasWrittenBeforeDamageStays) {
    constexpr std::size_t page = 4096;
    FaultyMount m(fresh_image("-b 4096"));
    ASSERT_TRUE(m.mount("errors=remount-ro", true));
    const std::vector<std::byte> bytes(page, std::byte{'w'});
    {
        auto written = m.open("/written"), mapped = m.open("/mapped");
        ASSERT_TRUE(written->write(0, bytes));
        ASSERT_TRUE(mapped->write(0, bytes));
        auto memory = mapped->map(0, page, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (!memory) GTEST_SKIP() << memory.error().what;
        static_cast<volatile char*>(*memory)[1] = 's';
        m.fs->volume().fs().corruption_callback(Error{EUCLEAN, "damage"});
        EXPECT_TRUE(m.fs->read_only());
        ASSERT_TRUE(ClientMaps::unmap(*memory, page));
    }
    EXPECT_TRUE(m.fs->unmount());
    FaultyMount after(m.memory);
    ASSERT_TRUE(after.mount());
    for (const char* name : {"/written", "/mapped"}) {
        std::vector<std::byte> got(page);
        auto n = after.open(name, O_RDONLY)->read(0, got);
        EXPECT_TRUE(n && *n == page) << name;
        EXPECT_EQ(got[0], std::byte{'w'}) << name;
        EXPECT_EQ(got[1], static_cast<std::byte>(name == std::string("/mapped") ? 's' : 'w')) << name;
    }
}

}  // namespace
}  // namespace uext4::faults

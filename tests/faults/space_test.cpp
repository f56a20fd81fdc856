// Space that is given back or taken, on a device that cannot be read: the maps of files and the bitmaps agree.
#include "tests/faults/faulty_mount.h"

#include <linux/falloc.h>

#include <algorithm>
#include <functional>
#include <string_view>

namespace uext4::faults::space_test {
namespace {

// The file has a block in every second place, and a tree of blocks; the bitmaps are of several groups.
constexpr std::uint64_t block = 1024, places = 600, first_far = 9000;

struct Change {
    const char* name;
    std::function<Result<void>(FaultyMount&)> make;
    bool keeps_bytes = false;
};
Result<void> on_file(FaultyMount& m, const std::function<Result<void>(OpenFile&)>& change) {
    auto file = TRY(m.fs->open_path("/f", O_RDWR, 0, root));
    return change(*file);
}
Result<void> change_flag(FaultyMount& m, OpenFile& file, std::uint32_t flag, bool on) {
    const std::uint32_t flags = m.fs->get_flags(file.inode());
    return m.fs->set_flags(file.inode(), on ? flags | flag : flags & ~flag, root, false);
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
             (void)TRY(f.write(51 * block, std::vector<std::byte>(300 * block)));
             return f.sync(false);
         });
     }},
    {"Unlink",
     [](FaultyMount& m) -> Result<void> {
         auto top = TRY(m.fs->root());
         TRY(m.fs->unlink(*top, "f", root, false));
         return {};
     }},
    {"Journaled",  // switched, written, and switched back
     [](FaultyMount& m) {
         return on_file(m, [&m](OpenFile& f) -> Result<void> {
             TRY(change_flag(m, f, format::inode_flag::journal_data, true));
             (void)TRY(f.write(51 * block, std::vector<std::byte>(300 * block)));
             TRY(f.sync(false));
             return change_flag(m, f, format::inode_flag::journal_data, false);
         });
     }},
    {"Extents",
     [](FaultyMount& m) {
         return on_file(m, [&m](OpenFile& f) -> Result<void> {
             const bool has = (m.fs->get_flags(f.inode()) & format::inode_flag::extents) != 0;
             TRY(change_flag(m, f, format::inode_flag::extents, !has));
             return change_flag(m, f, format::inode_flag::extents, has);
         });
     },
     true},
    {"DirectWrite",
     [](FaultyMount& m) -> Result<void> {
         auto file = TRY(m.fs->open_path("/f", O_RDWR | O_DIRECT, 0, root));
         alignas(4096) static std::byte bytes[300 * block];
         (void)TRY(file->write(51 * block, bytes));
         return file->sync(false);
     }},
    {"ZeroRange",
     [](FaultyMount& m) {
         return on_file(m,
                        [](OpenFile& f) { return f.fallocate(FALLOC_FL_ZERO_RANGE, 51 * block + 3, 300 * block + 5); });
     }},
    {"AllocateAndWrite",  // space that was promised to the file, and is unwritten
     [](FaultyMount& m) {
         return on_file(m, [](OpenFile& f) -> Result<void> {
             TRY(f.fallocate(FALLOC_FL_KEEP_SIZE, 20 * block, 900 * block));
             (void)TRY(f.write(101 * block + 9, std::vector<std::byte>(50 * block)));
             (void)TRY(f.write(221 * block, std::vector<std::byte>(block)));
             return f.sync(false);
         });
     }},
};
void PrintTo(const Change& c, std::ostream* out) { *out << c.name; }

std::vector<std::byte> contents(FaultyMount& m) {
    auto file = m.open("/f", O_RDWR);
    std::vector<std::byte> out(file->inode().size_hint());
    auto n = file->read(0, out);
    EXPECT_TRUE(n && *n == out.size());
    return out;
}

class Space : public testing::TestWithParam<std::tuple<const char*, Change>> {
protected:
    void SetUp() override {
        image_ = fresh_image(std::get<0>(GetParam()));
        FaultyMount m(image_);
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        for (std::uint64_t i = 0; i < places; ++i) {
            ASSERT_TRUE(
                file->write(2 * i * block, std::vector<std::byte>(block, static_cast<std::byte>('a' + i % 26))));
            if (i % 50 == 0) {
                ASSERT_TRUE(file->sync(false));
            }
        }
        ASSERT_TRUE(file->write(first_far * block, std::vector<std::byte>(block, std::byte{'x'})));
        file.reset();
        before_ = contents(m);
        ASSERT_TRUE(m.fs->unmount());
    }

    // Requests of a kind fail after `skip` of them, while the change is made. Whether any did.
    bool fails(DeviceRequest::Kind kind, std::uint64_t times, std::uint64_t skip) {
        const Change& change = std::get<1>(GetParam());
        FaultyMount m(image_->clone());
        EXPECT_TRUE(m.mount());
        const std::string what = fmt::format("after {} {}", skip, times == 1 ? "one fails" : "all fail");
        m.open("/f", O_RDWR).reset();
        m.fs->volume().fs().buffers.invalidate_all_clean();
        DeviceFault wanted;
        wanted.kinds = {kind};
        if (kind == DeviceRequest::Kind::Write) wanted.kinds.push_back(DeviceRequest::Kind::Fua);
        wanted.skip = skip;
        wanted.times = times;
        const auto fault = m.faulty->add(wanted);
        auto result = change.make(m);
        m.fs->volume().wait_for_deletions();
        if (result && kind == DeviceRequest::Kind::Write) result = m.fs->sync();
        const bool hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        EXPECT_TRUE(result || hit) << result.error().what;
        const auto ended = [&] { return m.fs->volume().fs().journal.is_aborted(); };
        if (!result && !ended()) {
            EXPECT_EQ(result.error().code, EIO) << what << ": " << result.error().what;
            // It can be done when the device works again; but the journal's own thread may have met the fault.
            auto again = change.make(m);
            EXPECT_TRUE(again || ended()) << what << ": " << again.error().what;
        }
        m.fs->volume().wait_for_deletions();
        EXPECT_TRUE(!ended() || kind == DeviceRequest::Kind::Write) << what;
        const bool failed = ended();
        auto closed = m.fs->unmount();
        EXPECT_TRUE(closed || failed) << what << ": " << closed.error().what;
        expect_sound(m.memory, what);
        if (change.keeps_bytes) {
            FaultyMount after(m.memory->clone());
            EXPECT_TRUE(after.mount());
            EXPECT_TRUE(contents(after) == before_) << what;
        }
        return hit;
    }

    std::shared_ptr<MemoryDevice> image_;
    std::vector<std::byte> before_;
};

TEST_P(Space, IsOneFilesOrNobodysWhicheverReadFails) {
    for (const std::uint64_t times : {DeviceFault::for_good, std::uint64_t{1}}) {
        std::uint64_t skip = 0;
        while (fails(DeviceRequest::Kind::Read, times, skip) && !HasFailure()) ASSERT_LT(++skip, 200u);
        EXPECT_GE(skip, 3u);
    }
}

TEST_P(Space, IsOneFilesOrNobodysWhicheverWriteFails) {
    for (const std::uint64_t times : {DeviceFault::for_good, std::uint64_t{1}}) {
        std::uint64_t skip = 0;
        while (fails(DeviceRequest::Kind::Write, times, skip) && !HasFailure()) {
            skip += 1 + skip / 16;  // of those that fill the blocks of a file, one is as another
            ASSERT_LT(skip, 2000u);
        }
        EXPECT_GE(skip, 3u);
    }
}

class Truncate : public testing::TestWithParam<const char*> {
protected:
    // What is clean has left the cache, and after `skip` reads of the device all fail.
    static auto no_read_after(FaultyMount& m, std::uint64_t skip) {
        m.fs->volume().fs().buffers.invalidate_all_clean();
        DeviceFault wanted;
        wanted.kinds = {DeviceRequest::Kind::Read};
        wanted.skip = skip;
        wanted.times = DeviceFault::for_good;
        return m.faulty->add(wanted);
    }
};

TEST_P(Truncate, ThatIsNoneLosesNothingThatWasNotWrittenYet) {
    const auto image = fresh_image(GetParam());
    constexpr std::uint64_t kept = 3 * block + 7;
    std::uint64_t skip = 0, refused = 0;
    for (bool hit = true; hit && !HasFailure(); ++skip) {
        ASSERT_LT(skip, 200u);
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        ASSERT_TRUE(file->write(0, std::vector<std::byte>(20 * block, std::byte{'o'})));
        ASSERT_TRUE(m.fs->sync());
        ASSERT_TRUE(file->write(2 * block, std::vector<std::byte>(90 * block, std::byte{'n'})));
        const std::vector<std::byte> before = contents(m);
        const auto fault = no_read_after(m, skip);
        const auto result = file->truncate(kept);
        hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        EXPECT_TRUE(result || hit) << result.error().what;
        const std::uint64_t size = file->inode().size_hint();
        ASSERT_TRUE(size == kept || (!result && size == before.size())) << size;
        refused += size != kept ? 1 : 0;
        EXPECT_TRUE(std::ranges::equal(contents(m), std::span(before).first(size))) << "after " << skip;
        file.reset();
        EXPECT_TRUE(m.fs->unmount());
        expect_sound(m.memory, fmt::format("after {}", skip));
    }
    EXPECT_GE(refused, 1u);
}

// What is in the block in which the file then ends was synced, and is not in the cache any more.
TEST_P(Truncate, ThatIsNoneLosesNothingOfTheLastBlock) {
    const auto image = fresh_image(GetParam());
    std::uint64_t skip = 0, refused = 0;
    for (bool hit = true; hit && !HasFailure(); ++skip) {
        ASSERT_LT(skip, 200u);
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        // A tree of blocks, and synced a while ago.
        for (std::uint64_t i = 0; i < 700; ++i)
            ASSERT_TRUE(file->write(i * 8 * block, std::vector<std::byte>(4 * block, std::byte{'o'})));
        const std::vector<std::byte> before = contents(m);
        file.reset();
        ASSERT_TRUE(m.fs->unmount());
        m.fs.reset();
        ASSERT_TRUE(m.mount());
        file = m.open("/f");
        const auto fault = no_read_after(m, skip);
        const auto result = file->truncate(600 * 8 * block + 7);
        hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        EXPECT_TRUE(result || hit) << result.error().what;
        const std::uint64_t size = file->inode().size_hint();
        refused += size == before.size() ? 1 : 0;
        EXPECT_TRUE(m.fs->sync());
        file.reset();
        (void)m.fs->unmount();
        m.fs.reset();
        ASSERT_TRUE(m.mount());
        EXPECT_TRUE(std::ranges::equal(contents(m), std::span(before).first(size))) << "after " << skip;
        EXPECT_TRUE(m.fs->unmount());
        m.fs.reset();
        expect_sound(m.memory, fmt::format("after {}", skip));
    }
    EXPECT_GE(refused, 1u);
}

INSTANTIATE_TEST_SUITE_P(Formats, Truncate,
                         testing::Values("-b 1024 -O bigalloc -C 4096", "-b 1024", "-b 1024 -O orphan_file", "-b 4096",
                                         "-b 1024 -O ^extents,^64bit"),
                         [](const auto& one) { return fmt::format("Format{}", one.index); });

std::vector<Change> all_but(std::initializer_list<std::string_view> names) {
    std::vector<Change> out(std::begin(changes), std::end(changes));
    std::erase_if(out, [&](const Change& c) { return std::ranges::find(names, c.name) != names.end(); });
    return out;
}
INSTANTIATE_TEST_SUITE_P(Extents, Space, testing::Combine(testing::Values("-b 1024"), testing::ValuesIn(changes)),
                         [](const auto& one) { return std::string(std::get<1>(one.param).name); });
INSTANTIATE_TEST_SUITE_P(Indirect, Space,
                         testing::Combine(testing::Values("-b 1024 -O ^extents,^64bit"),
                                          testing::ValuesIn(all_but({"Collapse", "Insert", "Allocate", "Extents",
                                                                     "ZeroRange", "AllocateAndWrite"}))),
                         [](const auto& one) { return std::string(std::get<1>(one.param).name); });
INSTANTIATE_TEST_SUITE_P(Clusters, Space,
                         testing::Combine(testing::Values("-b 1024 -O bigalloc -C 4096"),
                                          testing::ValuesIn(all_but({"Extents"}))),
                         [](const auto& one) { return std::string(std::get<1>(one.param).name); });

}  // namespace
}  // namespace uext4::faults::space_test

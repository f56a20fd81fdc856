// P10 and the order of writes in numbers: what each operation costs in committed transactions and blocks of the log.
#include "settled_image.h"

#include "journal/journal.h"

namespace uext4::problems {
namespace {

struct Cost {
    std::uint64_t commits = 0, blocks = 0;
};

class Commits : public SettledImage, public testing::WithParamInterface<const char*> {
protected:
    void SetUp() override { make("-b 4096 -J size=4 " + features, GetParam()); }
    bool journaled() const { return std::string_view(GetParam()).ends_with("journal"); }
    Cost of(const std::function<void()>& operation) {
        ok(fs->sync());
        const JournalCounters before = fs->volume().fs().journal.counters();
        operation();
        const JournalCounters after = fs->volume().fs().journal.counters();
        return {after.commits - before.commits, after.blocks_logged - before.blocks_logged};
    }
    // A thread of its own takes leave of a file whose last map is gone, with data=journal by a commit of all that runs:
    // it would be counted as another operation's.
    static void end_of_maps(OpenFile& file) {
        for (int i = 0; i < 1000 && file.inode().pages().client_maps(); ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        EXPECT_EQ(file.inode().pages().client_maps(), nullptr);
    }
    std::string features;
};

TEST_P(Commits, AnFsyncIsAtMostOneCommit) {
    {
        auto file = open("/f");
        write(*file, pattern(8192, 1));
        auto prealloc = open("/prealloc");
        ok(prealloc->fallocate(0, 0, 65536));
    }
    auto file = open("/f"), prealloc = open("/prealloc");
    const Cost append = of([&] {
        write(*file, pattern(4096, 2), 8192);
        ok(file->sync(false));
    });
    EXPECT_EQ(append.commits, 1u);
    RecordProperty("append", fmt::format("{} commits, {} blocks", append.commits, append.blocks));
    const Cost shorter = of([&] {
        write(*file, "short", 12288);
        ok(file->sync(false));
    });
    EXPECT_EQ(shorter.commits, 1u);
    // One update of the mapping: what is logged for an append is not more than bitmap, descriptor, inode, descriptor of
    // the log and commit record, with the data where it is journaled.
    EXPECT_LE(append.blocks, journaled() ? 6u : 5u);
    // In another place, in the handle that sets the size.
    const Cost more = of([&] {
        write(*file, "more", 12293);
        ok(file->sync(false));
    });
    EXPECT_EQ(more.commits, 1u);
    EXPECT_LE(more.blocks, journaled() ? 4u : 5u);
    const Cost overwrite = of([&] {
        write(*file, pattern(4096, 3), 4096);
        ok(file->sync(true));
    });
    EXPECT_EQ(overwrite.commits, journaled() ? 1u : 0u);
    const Cost stored = of([&] {
        char* memory = map(*file, page);
        if (!memory) return;
        memory[7] = 's';
        ok(FileSystem::sync_maps(memory, page, true));
        unmap(memory, page);
    });
    EXPECT_EQ(stored.commits, reason_.empty() ? 1u : 0u);  // its times
    end_of_maps(*file);
    const Cost filled = of([&] {
        write(*prealloc, pattern(4096, 4), 4096);
        ok(prealloc->sync(true));
    });
    EXPECT_EQ(filled.commits, 1u);
    const Cost nothing = of([&] { ok(file->sync(false)); });
    EXPECT_EQ(nothing.commits, 0u);
    const Cost created = of([&] {
        auto fresh = open("/new");
        write(*fresh, pattern(4096, 5));
        ok(fresh->sync(false));
    });
    EXPECT_EQ(created.commits, 1u);
    const Cost replaced = of([&] {
        auto fresh = open("/tmp");
        write(*fresh, pattern(4096, 6));
        ok(fresh->sync(false));
        ok(fs->rename(**fs->root(), "tmp", **fs->root(), "new", 0, root, true));
        ok(open("/new")->sync(false));
    });
    EXPECT_LE(replaced.commits, 2u);
    for (const auto& [name, cost] :
         {std::pair("append_4k_fsync", append), std::pair("short_append_fsync", shorter),
          std::pair("append_in_last_block", more), std::pair("overwrite_fdatasync", overwrite),
          std::pair("store_msync", stored), std::pair("preallocated", filled), std::pair("create_fsync", created),
          std::pair("replace", replaced)})
        fmt::print("{:24} {:2} commits {:3} blocks\n", name, cost.commits, cost.blocks);
    file.reset();
    prealloc.reset();
    settle();
}

// What changes ranges, names and attributes: all of it is in the transaction that the fsync commits.
class CommitsOfChanges : public Commits {
protected:
    void SetUp() override {
        Commits::SetUp();
        auto got = fs->root();
        ASSERT_TRUE(got);
        top = std::move(*got);
        names = open("/", O_RDONLY | O_DIRECTORY);
        file = open("/f");
        write(*file, pattern(16 * page, 1));
    }
    void TearDown() override {
        names.reset(), file.reset(), fresh.reset(), top.reset();
        if (fs) settle();
        Commits::TearDown();
    }
    // The change and the fsync of what it has changed.
    void one(const char* name, const std::function<Result<void>()>& change, const std::function<OpenFile&()>& changed) {
        const Cost cost = of([&] {
            ok(change());
            ok(changed().sync(false));
        });
        EXPECT_EQ(cost.commits, 1u) << name;
        fmt::print("{:24} {:2} commits {:3} blocks\n", name, cost.commits, cost.blocks);
    }
    void one(const char* name, OpenFile& changed, const std::function<Result<void>()>& change) {
        one(name, change, [&changed]() -> OpenFile& { return changed; });
    }
    static std::uint64_t size_of(OpenFile& file) { return file.inode().size_hint(); }
    InodeRef top;
    std::unique_ptr<OpenFile> names, file, fresh;
};

TEST_P(CommitsOfChanges, AnFsyncOfARangeIsOneCommit) {
    const auto range = [&](int mode, std::uint64_t first, std::uint64_t pages) {
        return [this, mode, first, pages] { return file->fallocate(mode, first * page, pages * page); };
    };
    constexpr int keep = FALLOC_FL_KEEP_SIZE;
    one("punch_fsync", *file, range(FALLOC_FL_PUNCH_HOLE | keep, 2, 3));
    one("fallocate_64k_fsync", *file, range(0, 16, 16));
    one("fallocate_keep_fsync", *file, range(keep, 32, 16));
    one("zero_range_fsync", *file, range(FALLOC_FL_ZERO_RANGE | keep, 8, 2));
    one("collapse_fsync", *file, range(FALLOC_FL_COLLAPSE_RANGE, 4, 2));
    one("insert_fsync", *file, range(FALLOC_FL_INSERT_RANGE, 4, 2));
    one("truncate_fsync", *file, [&] { return file->truncate(6 * page); });
    one("truncate_within_a_block", *file, [&] { return file->truncate(5 * page + 100); });
    one("truncate_longer_fsync", *file, [&] { return file->truncate(9 * page); });
    // Nothing of it is left for a second one.
    const Cost nothing = of([&] { ok(file->sync(false)); });
    EXPECT_EQ(nothing.commits, 0u);
}

// What has been shifted is overwritten behind the commit that names what has no name yet.
TEST_P(CommitsOfChanges, AnFsyncOfAShiftAndWritesIsOneCommit) {
    const std::string into = pattern(page + 500, 5);
    const std::string many = pattern(60 * page, 6);
    const auto shift_and_write = [&](int mode, const std::vector<std::uint64_t>& places, const std::string& bytes) {
        return [this, mode, &bytes, places]() -> Result<void> {
            TRY(file->fallocate(mode, 4 * page, 2 * page));
            for (const std::uint64_t at : places) write(*file, bytes, at);
            return {};
        };
    };
    for (const int mode : {FALLOC_FL_INSERT_RANGE, FALLOC_FL_COLLAPSE_RANGE}) {
        const auto end = [&] { return size_of(*file) + (mode == FALLOC_FL_INSERT_RANGE ? 2 : -2) * page; };
        one("shift_overwrite", *file, shift_and_write(mode, {2 * page + 100, 9 * page}, into));
        one("shift_append", *file, shift_and_write(mode, {end()}, into));
        one("shift_overwrite_append", *file, shift_and_write(mode, {8 * page, end()}, into));
        one("shift_overwrite_over_the_end", *file, shift_and_write(mode, {7 * page, end() - page}, into));
        one("shift_overwrite_many", *file, shift_and_write(mode, {3 * page, end() + page}, many));
        ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * page, 3 * page));
        one("shift_overwrite_fill", *file, shift_and_write(mode, {7 * page, 11 * page}, into));
        ok(file->fallocate(FALLOC_FL_ZERO_RANGE, 20 * page, 8 * page));
        one("shift_unwritten", *file, shift_and_write(mode, {22 * page}, into));
        one("shift_overwrite_unwritten", *file, shift_and_write(mode, {7 * page, 24 * page}, into));
    }
}

TEST_P(CommitsOfChanges, AnFsyncOfAZeroedEndAndAWriteThereIsOneCommit) {
    const std::string into = pattern(700, 5);
    write(*file, pattern(1000, 2), 16 * page);
    const auto zero_and_write = [&](int mode, std::uint64_t first, std::uint64_t pages, std::uint64_t at) {
        return [&, mode, first, pages, at]() -> Result<void> {
            TRY(file->fallocate(mode, first * page, pages * page));
            write(*file, into, at);
            return {};
        };
    };
    constexpr int zero = FALLOC_FL_ZERO_RANGE, keep = zero | FALLOC_FL_KEEP_SIZE;
    one("zero_keep_write_within", *file, zero_and_write(keep, 14, 4, 16 * page + 100));
    one("zero_keep_write_behind", *file, zero_and_write(keep, 14, 6, 16 * page + 900));
    one("zero_write_within", *file, zero_and_write(zero, 15, 4, 16 * page + 100));
    one("append", *file, [&]() -> Result<void> {
        write(*file, into, 25 * page);
        return {};
    });
    one("zero_write_over_the_end", *file, zero_and_write(zero, 22, 6, 25 * page + 500));
}

TEST_P(CommitsOfChanges, AnFsyncOfANameOrAnAttributeIsOneCommit) {
    one(
        "mkdir_fsync",
        [&]() -> Result<void> {
            TRY(fs->create(*top, "dir", S_IFDIR | 0755, 0, "", root, true));
            fresh = open("/dir", O_RDONLY | O_DIRECTORY);
            return {};
        },
        [&]() -> OpenFile& { return *fresh; });
    one("link_fsync", *file, [&] { return fs->link(file->inode(), *top, "again", root, true); });
    one("unlink_fsync_of_dir", *names, [&] { return fs->unlink(*top, "again", root, true); });
    write(*open("/gone"), pattern(4 * page, 2));
    one("unlink_of_the_last_name", *names, [&] { return fs->unlink(*top, "gone", root, true); });
    one("rename_fsync_of_dir", *names, [&] { return fs->rename(*top, "f", *top, "g", 0, root, true); });
    const std::string value = pattern(600, 3);  // in a block of its own
    one("setxattr_fsync", *file,
        [&] { return fs->set_xattr(file->inode(), "user.short", bytes_of(value).first(20), 0, root, true); });
    one("setxattr_block_fsync", *file,
        [&] { return fs->set_xattr(file->inode(), "user.long", bytes_of(value), 0, root, true); });
    AttributeChange mode;
    mode.mode = 0640;
    one("chmod_fsync", *file, [&] { return fs->set_attributes(file->inode(), mode, root, true); });
}

// In its inode, where it begins, and out of it.
class CommitsOfInlineFiles : public CommitsOfChanges {
protected:
    CommitsOfInlineFiles() { features = "-I 256 -O inline_data"; }
    bool inside() const { return fresh->inode().has_flag(format::inode_flag::inline_data); }
};

TEST_P(CommitsOfInlineFiles, AnFsyncIsOneCommit) {
    one(
        "create_inline_fsync",
        [&]() -> Result<void> {
            fresh = open("/small");
            write(*fresh, pattern(60, 4));
            return {};
        },
        [&]() -> OpenFile& { return *fresh; });
    EXPECT_TRUE(inside());
    one("append_inline_fsync", *fresh, [&]() -> Result<void> {
        write(*fresh, pattern(20, 5), 60);
        return {};
    });
    one("grown_out_fsync", *fresh, [&]() -> Result<void> {
        write(*fresh, pattern(page, 6), 80);
        return {};
    });
    EXPECT_FALSE(inside());
}

// Where no block of a cluster moves, the last one of a file that is appended to goes through the log.
class CommitsWithClusters : public CommitsOfChanges {
protected:
    CommitsWithClusters() { features = "-O bigalloc -C 16384"; }
    static constexpr std::size_t blocks = 20, into = 100;
    // Of a file each of whose blocks has been the last one.
    void append_into_each_block(const char* path) {
        fresh = open(path);
        write(*fresh, pattern(into, 1));
        ok(fresh->sync(false));
        for (std::size_t n = 0; n < blocks; ++n)
            one("append_in_last_block", *fresh, [&]() -> Result<void> {
                write(*fresh, pattern(page, 2), into + n * page);
                return {};
            });
    }
    void expect_no_commit(const char* name, OpenFile& file, std::size_t at, std::size_t length) {
        for (unsigned n = 0; n < 3; ++n) {
            const std::string bytes = pattern(length, 10 + n);
            const Cost cost = of([&] {
                write(file, bytes, at);
                ok(file.sync(true));
            });
            EXPECT_EQ(cost.commits, 0u) << name << ", the " << n << "th time";
            EXPECT_EQ(read(*fresh, length, at), bytes) << name;
        }
    }
};

TEST_P(CommitsWithClusters, AnOverwriteOfWhatTheLogHasIsNone) {
    append_into_each_block("/within");
    expect_no_commit("within a block", *fresh, 1024, 512);
    append_into_each_block("/block");
    expect_no_commit("a block", *fresh, page, page);
    append_into_each_block("/all");
    expect_no_commit("all of them", *fresh, 0, blocks * page);
    append_into_each_block("/direct");
    {
        auto direct = open("/direct", O_RDWR | O_DIRECT);
        expect_no_commit("past the cache", *direct, 2 * page, page);
    }
}

// More of it than goes through the log at once, and something to name.
TEST_P(CommitsWithClusters, AnFsyncOfWhatTheLogHasAndOfMoreIsOneCommit) {
    append_into_each_block("/within");
    for (unsigned n = 0; n < 3; ++n)
        one("overwrite_many_append", *fresh, [&]() -> Result<void> {
            write(*fresh, pattern(blocks * page, 20 + n), 10);
            write(*fresh, pattern(5 * page, 30 + n), size_of(*fresh));
            return {};
        });
    append_into_each_block("/cut");
    one("truncate_write", *fresh, [&]() -> Result<void> {
        TRY(fresh->truncate(5 * page + 30));
        write(*fresh, pattern(8 * page, 40), 3 * page + 50);
        return {};
    });
    append_into_each_block("/zeroed");
    one("zero_write", *fresh, [&]() -> Result<void> {
        TRY(fresh->fallocate(FALLOC_FL_ZERO_RANGE, 0, blocks * page));
        write(*fresh, pattern(blocks * page, 41), 50);
        return {};
    });
}

// Also where it is more than one batch, and what is to be named comes in a later one.
// A batch is enough for the flusher to begin, whose commits are its own: it is not there.
class CommitsOfBatches : public CommitsWithClusters {
protected:
    void SetUp() override {
        CommitsWithClusters::SetUp();
        names.reset(), file.reset(), top.reset();
        ok(fs->unmount());
        mount(GetParam(), false);
    }
};

TEST_P(CommitsOfBatches, AnFsyncOfWhatTheLogHasInOneAndOfAnAppendInAnotherIsOneCommit) {
    constexpr std::size_t batch = 256;  // pages: a quarter of the cache
    fresh = open("/large");
    write(*fresh, pattern(into, 1));
    ok(fresh->sync(false));
    write(*fresh, pattern(3 * batch * page, 2), into);
    ok(fresh->sync(false));
    for (unsigned n = 0; n < 3; ++n) {
        // The newest transaction has an image.
        write(*fresh, "image", 5);
        write(*fresh, pattern(2 * page, 3), size_of(*fresh));
        ok(fresh->sync(false));
        EXPECT_TRUE(fs->volume().fs().logged_data_blocks.has_any());
        const JournalCounters before = fs->volume().fs().journal.counters();
        // As much as may be dirty, and one page more: a further one would be written back by the write.
        write(*fresh, pattern(batch * page, 60 + n), 0);
        write(*fresh, pattern(50, 70 + n), size_of(*fresh));
        ok(fresh->sync(false));
        EXPECT_EQ(fs->volume().fs().journal.counters().commits - before.commits, 1u) << n;
        expect_no_commit("a batch", *fresh, 0, batch * page);
    }
}

// What is cut off within a cluster is written to where it lies.
TEST_P(CommitsWithClusters, AWriteBesideOrIntoACutIsOneCommit) {
    const auto punch_and_write = [&](std::uint64_t first, std::uint64_t pages, std::uint64_t at) {
        return [this, first, pages, at]() -> Result<void> {
            TRY(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * page, pages * page));
            write(*file, pattern(page + 500, 5), at);
            return {};
        };
    };
    one("punch_append", *file, punch_and_write(5, 2, 16 * page));
    one("punch_behind_append", *file, punch_and_write(21, 2, 26 * page));
    one("punch_overwrite", *file, punch_and_write(9, 1, 10 * page + 100));
    one("punch_fill_another", *file, punch_and_write(13, 1, 5 * page));
    one("punch_over_clusters", *file, punch_and_write(1, 10, 12 * page));
    one("punch_fill", *file, punch_and_write(5, 2, 5 * page));
    one("punch_fill_some", *file, punch_and_write(5, 2, 5 * page + 100));
    one("punch_all_fill_some", *file, punch_and_write(1, 14, 9 * page));
    const auto cut_and_write = [&](std::uint64_t size, std::uint64_t at) {
        return [this, size, at]() -> Result<void> {
            TRY(file->truncate(size));
            write(*file, pattern(page + 500, 6), at);
            return {};
        };
    };
    one("cut_append", *file, cut_and_write(21 * page, 21 * page));
    one("cut_write_behind", *file, cut_and_write(21 * page, 22 * page));
    one("cut_within_append", *file, cut_and_write(21 * page + 100, 21 * page + 100));
    one("cut_within_write_behind", *file, cut_and_write(17 * page + 100, 18 * page));
    one("zero_over_the_end_write", *file, [&]() -> Result<void> {
        TRY(file->fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 17 * page, 5 * page));
        write(*file, pattern(500, 7), 19 * page);
        return {};
    });
    // Also where all of it has been moved, by a transaction that is durable.
    one("collapse", *file, [&] { return file->fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, 4 * page); });
    one("punch_append_behind_a_collapse", *file, punch_and_write(21, 2, 26 * page));
}

const auto both_modes = testing::Values("data=ordered", "data=journal");
std::string mode_name(const testing::TestParamInfo<const char*>& mode) { return mode.param + 5; }
INSTANTIATE_TEST_SUITE_P(Modes, Commits, both_modes, mode_name);
INSTANTIATE_TEST_SUITE_P(Modes, CommitsOfChanges, both_modes, mode_name);
INSTANTIATE_TEST_SUITE_P(Modes, CommitsOfInlineFiles, both_modes, mode_name);
INSTANTIATE_TEST_SUITE_P(Modes, CommitsWithClusters, testing::Values("data=ordered"), mode_name);
INSTANTIATE_TEST_SUITE_P(Modes, CommitsOfBatches, testing::Values("data=ordered,cache=4M"),
                         [](const auto&) { return "ordered_small_cache"; });

}  // namespace
}  // namespace uext4::problems

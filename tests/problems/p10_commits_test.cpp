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
    void SetUp() override { make("-b 4096 -J size=4", GetParam()); }
    bool journaled() const { return std::string_view(GetParam()).ends_with("journal"); }
    Cost of(const std::function<void()>& operation) {
        ok(fs->sync());
        const JournalCounters before = fs->volume().fs().journal.counters();
        operation();
        const JournalCounters after = fs->volume().fs().journal.counters();
        return {after.commits - before.commits, after.blocks_logged - before.blocks_logged};
    }
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

INSTANTIATE_TEST_SUITE_P(Modes, Commits, testing::Values("data=ordered", "data=journal"),
                         [](const auto& mode) { return std::string(mode.param).substr(5); });

}  // namespace
}  // namespace uext4::problems

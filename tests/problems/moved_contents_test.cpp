// What a collapse or an insertion moves keeps its bytes, wherever these are: in the cache, in the running transaction,
// in the log and not at home. Whoever looks, at once or after a power cut, sees them in their old place or in the new.
#include "settled_image.h"

#include <utility>

namespace uext4::problems {
namespace {

// What is cached of a file goes, so that what follows reads the device: how many folios did. What is dirty, a
// transaction's or in use stays.
unsigned drop_clean(Inode& inode) {
    FileCache& pages = inode.pages();
    unsigned dropped = 0;
    for (auto index = pages.next_cached(0); index; index = pages.next_cached(*index + 1)) {
        auto folio = pages.lock_for_change(*index, false);
        EXPECT_TRUE(folio);
        if (!folio || !*folio || (*folio)->dirty || (*folio)->owner || (*folio)->pins) continue;
        pages.remove(std::move(*folio));
        ++dropped;
    }
    return dropped;
}

class MovedContents : public SettledImage,
                      public testing::WithParamInterface<std::tuple<const char*, const char*, int>> {
protected:
    static constexpr std::size_t pages = 24;
    static std::string bytes_at(const std::shared_ptr<MemoryDevice>& image) {
        return recovered_bytes(image->clone(), 2 * pages * page);
    }
};

TEST_P(MovedContents, AreSeenInTheOldPlaceOrInTheNew) {
    make(fmt::format("{} -J size=4", std::get<0>(GetParam())));
    ok(fs->unmount());
    mount(std::get<1>(GetParam()), false);  // nothing goes home but what the test sends there

    auto file = open("/f");
    std::string now = pattern(pages * page, 1);
    write(*file, now);
    ok(fs->sync());
    ok(fs->volume().fs().journal.checkpoint_all());
    now = pattern(pages * page, 2);
    write(*file, now);
    ok(fs->sync());
    std::string moved = now;
    const int mode = std::get<2>(GetParam());
    if (mode == FALLOC_FL_COLLAPSE_RANGE) moved.erase(3 * page, 2 * page);
    else moved.insert(3 * page, 2 * page, '\0');
    const std::size_t from = recorder->log_size();
    ok(file->fallocate(mode, 3 * page, 2 * page));
    EXPECT_TRUE(read(*file, 2 * pages * page) == moved) << "at once";
    ok(file->sync(false));
    EXPECT_GT(drop_clean(file->inode()), 0u);
    EXPECT_TRUE(read(*file, 2 * pages * page) == moved) << "after a sync";

    // Over what has moved, from a transaction that is not committed yet, and moved back.
    const std::string fresh = pattern(page, 3);
    write(*file, fresh, 8 * page);
    const bool collapsed = mode == FALLOC_FL_COLLAPSE_RANGE;
    std::string back = moved;
    back.replace(8 * page, page, fresh);
    if (collapsed) back.insert(3 * page, 2 * page, '\0');
    else back.erase(3 * page, 2 * page);
    ok(file->fallocate(collapsed ? FALLOC_FL_INSERT_RANGE : FALLOC_FL_COLLAPSE_RANGE, 3 * page, 2 * page));
    EXPECT_TRUE(read(*file, 2 * pages * page) == back) << "moved back";
    std::string overwritten = moved;
    overwritten.replace(8 * page, page, fresh);
    ok(file->sync(false));
    EXPECT_TRUE(bytes_at(durable()) == back) << "moved back, after a sync";

    const std::vector<RecordedWrite> log = recorder->log();
    const std::shared_ptr<MemoryDevice> so_far = initial->clone();
    for (std::size_t count = 0; count < log.size() && !HasFailure(); ++count) {
        ok(RecordingDevice::apply(log[count], *so_far));
        if (count < from || log[count].kind == RecordedWrite::Kind::Flush) continue;
        const std::string seen = bytes_at(so_far);
        EXPECT_TRUE(seen == now || seen == moved || seen == overwritten || seen == back)
            << seen.size() << " bytes after request " << count + 1 << " of " << log.size();
    }
    file.reset();
    settle();
    EXPECT_TRUE(bytes_at(memory) == back);
}

INSTANTIATE_TEST_SUITE_P(Formats, MovedContents,
                         testing::Combine(testing::Values("-b 4096", "-b 1024"),
                                          testing::Values("data=ordered", "data=journal"),
                                          testing::Values(FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE)));

// One commit names what has no name yet, and what has moved is overwritten behind it: a cut leaves the file as it was,
// with none of the new bytes, or each block of the new one as it is, or before the write.
TEST_F(SettledImage, WhatIsWrittenBehindAShiftIsSeenInItsNewPlaceAlone) {
    for (const int mode : {FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE}) {
        make("-b 4096 -J size=4");
        auto file = open("/f");
        const std::string was = pattern(24 * page + 100, 1);
        write(*file, was);
        ok(file->fallocate(0, 30 * page, 4 * page));
        ok(fs->sync());
        std::string shifted = read(*file, 40 * page);
        const std::string before = shifted;
        if (mode == FALLOC_FL_COLLAPSE_RANGE) shifted.erase(3 * page, 2 * page);
        else shifted.insert(3 * page, 2 * page, '\0');
        const std::size_t from = recorder->log_size();
        ok(file->fallocate(mode, 3 * page, 2 * page));
        std::string now = shifted;
        for (const std::uint64_t at : {5 * page, 9 * page + 100, 31 * page + 10, shifted.size() - 50}) {
            const std::string fresh = pattern(2 * page, static_cast<unsigned>(at));
            write(*file, fresh, at);
            if (now.size() < at + fresh.size()) now.resize(at + fresh.size());
            now.replace(at, fresh.size(), fresh);
        }
        ok(file->sync(false));
        EXPECT_TRUE(recovered_bytes(durable(), 64 * page) == now);
        const std::vector<RecordedWrite> log = recorder->log();
        const std::shared_ptr<MemoryDevice> so_far = initial->clone();
        for (std::size_t count = 0; count < log.size() && !HasFailure(); ++count) {
            ok(RecordingDevice::apply(log[count], *so_far));
            if (count < from || log[count].kind == RecordedWrite::Kind::Flush) continue;
            const std::string seen = recovered_bytes(so_far->clone(), 64 * page);
            if (seen == before) continue;
            EXPECT_GE(seen.size(), shifted.size()) << "after request " << count + 1;
            for (std::size_t at = 0; at < std::min(seen.size(), now.size()); ++at) {
                const char old = at < shifted.size() ? shifted[at] : '\0';
                if (seen[at] == now[at] || seen[at] == old) continue;
                ADD_FAILURE() << "byte " << at << " after request " << count + 1;
                break;
            }
        }
        file.reset();
        settle();
    }
}

// Unwritten since it moved, a block is written to where it lies all the same.
TEST_F(SettledImage, WhatMovedAndWasZeroedIsNotWrittenToBeforeTheMoveIsDurable) {
    make("-b 4096 -J size=8");
    auto file = open("/f");
    const std::string was = pattern(3 * page, 1), first = was.substr(0, page), fresh = pattern(page, 2);
    write(*file, was);
    ok(file->sync(false));
    ok(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, page, page));
    ok(file->fallocate(FALLOC_FL_ZERO_RANGE, page, page));
    write(*file, fresh, page);
    ok(write_back(file->inode()));
    const std::string found = recovered_bytes(memory->clone(), 4 * page);
    EXPECT_TRUE(found == was || found == first + was.substr(2 * page) || found == first + std::string(page, '\0') ||
                found == first + fresh);
    file.reset();
    settle();
}

}  // namespace
}  // namespace uext4::problems

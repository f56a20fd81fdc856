// What leaves memory, when, and after how many looks.
#include "tests/fixtures/inode_volume.h"

#include <algorithm>

namespace uext4 {
namespace {

class Eviction : public ::testing::TestWithParam<const char*> {
protected:
    TestVolume volume{GetParam()};
};

// However many wait for a commit, for their times or with folios: each is looked at once to evict it, and once more if
// its times were to be stored or it had folios.
TEST_P(Eviction, EachIsLookedAtOnceToBeEvicted) {
    constexpr std::size_t many = 6000, limit = 100;
    std::vector<InodeNr> numbers;
    for (std::size_t i = 0; i < many; ++i) numbers.push_back(volume.make()->number());
    volume.reopen();
    volume.table().set_limit(limit);
    const auto steps = [&](const std::function<void(std::size_t)>& use) {
        const std::uint64_t before = volume.table().scanned_inodes();
        for (std::size_t i = 0; i < many; ++i) use(i);
        return volume.table().scanned_inodes() - before;
    };
    // Their times wait; nobody stores them.
    EXPECT_EQ(steps([&](std::size_t i) {
                  InodeRef file = volume.get(numbers[i]);
                  MutexLock map(file->map_lock);
                  file->set_atime({2000, 0});
                  file->note_times_pending();
              }),
              0u);
    EXPECT_TRUE(volume.table().has_excess(InodeTable::Excess::times_pending));
    // They are stored, and wait for a commit.
    EXPECT_LE(steps([&](std::size_t) {
                  for (InodeRef& file : volume.table().oldest_times_pending(64)) {
                      Handle handle = volume.start();
                      MutexLock map(file->map_lock);
                      expect_ok(file->store(handle, false));
                  }
              }),
              many);
    EXPECT_FALSE(volume.table().has_excess(InodeTable::Excess::times_pending));
    EXPECT_LE(steps([&](std::size_t i) { volume.get(numbers[i]); }), many);
    expect_ok(volume.journal().commit_all());
    EXPECT_LE(steps([&](std::size_t) { volume.table().shrink_to_limit(); }), many);
    const auto in_memory = [&] {
        return std::ranges::count_if(numbers, [&](InodeNr n) { return bool(volume.table().find(n)); });
    };
    EXPECT_LE(in_memory(), static_cast<std::ptrdiff_t>(limit));
    // They have folios, for which get() does not wait.
    EXPECT_LE(steps([&](std::size_t i) { ASSERT_TRUE(volume.get(numbers[i])->pages().lock(0, true)); }), 2 * many);
    EXPECT_TRUE(volume.table().has_excess(InodeTable::Excess::cached));
    EXPECT_LE(steps([&](std::size_t) { volume.table().shrink_to_limit(); }), many);
    EXPECT_LE(in_memory(), static_cast<std::ptrdiff_t>(limit));
}

// One whose size, times or transaction only memory knows is there, whatever else is evicted meanwhile.
TEST_P(Eviction, NothingIsEvictedBeforeItIsDurable) {
    constexpr int many = 4000;
    std::vector<InodeNr> numbers;
    for (int i = 0; i < many; ++i) numbers.push_back(volume.make()->number());
    volume.reopen();
    volume.table().set_limit(0);
    std::vector<InodeNr> sizes, times, changed;
    for (int i = 0; i < many; ++i) {
        InodeRef file = volume.get(numbers[static_cast<std::size_t>(i)]);
        if (i % 100 == 7) {
            const MutexLock map(file->map_lock);
            file->set_size(100);
            sizes.push_back(file->number());
        } else if (i % 100 == 23) {
            const MutexLock map(file->map_lock);
            file->set_mtime({3000, 0});
            file->note_times_pending();
            times.push_back(file->number());
        } else if (i % 100 == 42) {
            Handle handle = volume.start();
            const MutexLock map(file->map_lock);
            expect_ok(file->store(handle));
            changed.push_back(file->number());
        }
        file.reset();
        if (i % 1000 == 999) {
            for (InodeNr n : changed) {
                InodeRef kept = volume.table().find(n);
                ASSERT_TRUE(kept) << n.value;
                const MutexLock map(kept->map_lock);
                EXPECT_FALSE(volume.journal().is_durable(kept->last_tid())) << n.value;
            }
            volume.table().shrink_to_limit();
            for (InodeNr n : changed) EXPECT_TRUE(volume.table().find(n)) << n.value;
            expect_ok(volume.journal().commit_all());
            volume.table().shrink_to_limit();
            for (InodeNr n : changed) EXPECT_FALSE(volume.table().find(n)) << n.value;
            changed.clear();
        }
    }
    for (InodeNr n : sizes) {
        InodeRef file = volume.table().find(n);
        ASSERT_TRUE(file) << n.value;
        const MutexLock map(file->map_lock);
        EXPECT_EQ(file->size(), 100u);
        file->set_size(0);
    }
    for (InodeNr n : times) {
        InodeRef file = volume.table().find(n);
        ASSERT_TRUE(file) << n.value;
        EXPECT_EQ(file->mtime().sec, 3000);
        Handle handle = volume.start();
        const MutexLock map(file->map_lock);
        expect_ok(file->store(handle));
    }
    expect_ok(volume.journal().commit_all());
    volume.table().shrink_to_limit();
    for (InodeNr n : numbers) EXPECT_FALSE(volume.table().find(n)) << n.value;
}

// A walk over what is to be written back meets what is in use or not stored, and nothing else.
TEST_P(Eviction, WalksMeetWhatIsToBeWrittenBack) {
    std::vector<InodeNr> numbers;
    for (int i = 0; i < 500; ++i) numbers.push_back(volume.make()->number());
    const InodeRef used = volume.get(numbers[1]);
    {
        const InodeRef file = volume.get(numbers[2]);
        const MutexLock map(file->map_lock);
        file->note_times_pending();
    }
    const InodeRef sized = volume.get(numbers[3]);
    sized->map_lock.lock();
    sized->set_size(10);
    sized->map_lock.unlock();
    {
        const InodeRef dirty = volume.get(numbers[4]);
        LockedFolio folio = value_of(dirty->pages().lock(0, true));
        dirty->pages().mark_dirty(folio, 1);
    }
    std::vector<InodeNr> met;
    volume.table().for_each([&](const InodeRef& inode) { met.push_back(inode->number()); });
    std::ranges::sort(met);
    EXPECT_EQ(met, (std::vector<InodeNr>{numbers[1], numbers[2], numbers[3], numbers[4]}));
    {
        const InodeRef dirty = volume.get(numbers[4]);
        LockedFolio folio = value_of(dirty->pages().lock(0, false));
        dirty->pages().clear_dirty(folio, 1);
    }
    const MutexLock map(sized->map_lock);
    sized->set_size(0);
}

INSTANTIATE_TEST_SUITE_P(Formats, Eviction, ::testing::Values("-b 4096 -N 8192", "-b 1024 -I 128 -N 8192"));

}  // namespace
}  // namespace uext4

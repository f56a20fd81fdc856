// What a walk over a file's places sees of changes under it.
#include "inode/range_iterator.h"

#include "tests/fixtures/inode_volume.h"

namespace uext4 {
namespace {

constexpr std::uint64_t bs = 4096;

class Ranges : public ::testing::Test {
protected:
    void allocate(std::uint64_t first, std::uint64_t count) {
        Handle handle = volume.start();
        MutexLock map(file->map_lock);
        EXPECT_EQ(value_of(file->extent_mapper().allocate_unwritten(handle, LogicalBlock(first), count, false)).value,
                  first + count);
        file->extent_status().invalidate();
        expect_ok(file->store(handle));
    }
    void remove(std::uint64_t first, std::uint64_t end) {
        Handle handle = volume.start();
        MutexLock map(file->map_lock);
        (void)value_of(file->extent_mapper().unmap_range(handle, LogicalBlock(first), LogicalBlock(end)));
        expect_ok(file->store(handle));
    }
    // As writeback does where the device does not take the old one.
    void move_first_block() {
        Allocator& space = volume.fs().allocator;
        DelallocReservation tree = value_of(space.reserve(BlockMap::tree_blocks_for(1, bs, true), true));
        Allocation grant = value_of(space.allocate(BlockNr(9000), 1, nullptr, true));
        const BlockNr fresh = grant.first();
        Handle handle = volume.start();
        MutexLock map(file->map_lock);
        expect_ok(space.mark_used(handle, grant));
        const BlockNr old = value_of(file->map().replace_block(handle, LogicalBlock(0), fresh, &tree));
        file->extent_status().invalidate();
        expect_ok(space.free(handle, old, 1));
        expect_ok(file->store(handle));
    }
    bool moved(RangeIterator& range) {
        MutexLock map(file->map_lock);
        return value_of(range.has_moved_locked());
    }

    TestVolume volume{"-b 4096"};
    InodeRef file = volume.make();
};

TEST_F(Ranges, GoOverAllThatLivesAlike) {
    allocate(2, 3);
    std::vector<std::pair<BlockState, std::uint64_t>> seen;
    RangeIterator range(*file, 100, 10 * bs + 7);
    for (; value_of(range.load()); range.next()) seen.emplace_back(range.mapping().state, range.length());
    EXPECT_EQ(seen,
              (std::vector<std::pair<BlockState, std::uint64_t>>{
                  {BlockState::hole, 2 * bs - 100}, {BlockState::unwritten, 3 * bs}, {BlockState::hole, 5 * bs + 7}}));
    EXPECT_TRUE(range.done());
    EXPECT_EQ(range.left(), 0u);
}

TEST_F(Ranges, SayWhatHasMoved) {
    allocate(0, 2);
    RangeIterator range(*file, 0, 2 * bs);
    ASSERT_TRUE(value_of(range.load()));
    ASSERT_EQ(range.mapping().state, BlockState::unwritten);
    EXPECT_FALSE(moved(range));
    const BlockNr before = range.block();
    move_first_block();
    EXPECT_TRUE(moved(range));
    EXPECT_NE(range.block(), before);
    EXPECT_FALSE(moved(range));  // it has looked anew
    remove(0, 2);
    EXPECT_TRUE(moved(range));
    EXPECT_EQ(range.mapping().state, BlockState::hole);
}

// The sequence number is another one, and the run is where it was.
TEST_F(Ranges, StayWhereOthersMove) {
    allocate(0, 1);
    RangeIterator range(*file, 0, bs);
    ASSERT_TRUE(value_of(range.load()));
    allocate(5, 1);
    EXPECT_FALSE(moved(range));
    remove(5, 6);
    EXPECT_FALSE(moved(range));
}

// A part of the run is gone: what lies behind it is no longer what was seen.
TEST_F(Ranges, SayWhatIsShorter) {
    allocate(0, 4);
    RangeIterator range(*file, 0, 4 * bs);
    ASSERT_TRUE(value_of(range.load()));
    remove(2, 4);
    EXPECT_TRUE(moved(range));
    EXPECT_EQ(range.run_end(), 2 * bs);
}

TEST_F(Ranges, OfNothingEnd) {
    RangeIterator range(*file, bs, bs);
    EXPECT_FALSE(value_of(range.load()));
    EXPECT_TRUE(range.done());
}

}  // namespace
}  // namespace uext4

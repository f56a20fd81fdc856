// Attribute values in inodes of their own: who names them, how often, and who reads them meanwhile.
#include "inode/value_inode.h"

#include "inode/xattr_block.h"
#include "tests/fixtures/inode_volume.h"

#include <atomic>
#include <thread>

namespace uext4 {
namespace {

using Value = std::vector<std::byte>;

Value filled(std::size_t size, int with) { return Value(size, static_cast<std::byte>(with)); }

class ValueInodes : public ::testing::TestWithParam<const char*> {
protected:
    TestVolume volume{GetParam()};
    std::uint64_t ratio() { return volume.fs().geometry.cluster_ratio; }

    // "user.twin1" and "user.twin2" are alike, and one inode has both, as the kernel's ext4 does it: it counts twice.
    InodeRef with_twins() {
        InodeRef inode = volume.make();
        expect_ok(volume.set(*inode, "user.fill", filled(60, 'f')));
        expect_ok(volume.set(*inode, "user.twin1", twins));
        expect_ok(volume.set(*inode, "user.twin2", twins));
        Handle handle = volume.start();
        std::uint32_t one = 0, other = 0;
        {
            MutexLock map(inode->map_lock);
            auto items = value_of(read_xattr_block(*inode));
            EXPECT_EQ(items.size(), 2u);
            one = items.front().value_inode;
            other = std::exchange(items.back().value_inode, one);
            EXPECT_TRUE(one && other);
            EXPECT_TRUE(write_xattr_block(handle, *inode, std::move(items), true));
        }
        expect_ok(add_value_inode_reference(handle, volume.table(), InodeNr(one)));
        expect_ok(drop_value_inode_reference(handle, volume.table(), InodeNr(other)));
        return inode;
    }
    // One more inode with the block of another.
    InodeRef with_block_of(Inode& a) {
        InodeRef b = volume.make();
        Handle handle = volume.start();
        MutexLock map(a.map_lock);
        const BlockNr block = a.xattr_block();
        BufferRef buffer = value_of(volume.fs().buffers.read(block, "attribute block"));
        expect_ok(handle.get_write_access(buffer));
        view_as<format::XattrBlockHeader>(buffer->data()).refcount = 2u;
        format::set_xattr_block_checksum(volume.fs().geometry, block, buffer->data());
        map.unlock();
        MutexLock other(b->map_lock);
        b->set_xattr_block(block);
        std::uint64_t blocks = ratio();
        for (const auto& item : value_of(read_xattr_block(*b)))
            blocks += divide_up(item.value_size, ratio() * volume.fs().block_size()) * ratio();
        expect_ok(b->add_blocks(handle, static_cast<std::int64_t>(blocks)));
        return b;
    }

    const Value twins = filled(9000, 't');
};

TEST_P(ValueInodes, CountEachEntryOfABlockThatNamesThem) {
    const std::uint64_t blocks = volume.free_blocks(), inodes = volume.free_inodes();
    for (const bool removed : {true, false}) {
        InodeRef inode = with_twins();
        volume.check();
        if (removed) expect_ok(volume.remove(*inode, "user.twin1"));
        else expect_ok(volume.set(*inode, "user.twin1", filled(3, 's')));
        EXPECT_EQ(value_of(get_xattr(*inode, "user.twin2")), twins);
        volume.check();
        volume.destroy(std::move(inode));
        volume.check();
    }
    volume.destroy(with_twins());
    EXPECT_EQ(volume.free_blocks(), blocks);
    EXPECT_EQ(volume.free_inodes(), inodes);
    volume.check();
}

TEST_P(ValueInodes, CountEachEntryOfACopyToo) {
    const std::uint64_t blocks = volume.free_blocks(), inodes = volume.free_inodes();
    for (const bool first : {true, false}) {
        InodeRef a = with_twins(), b = with_block_of(*a);
        volume.check();
        expect_ok(volume.set(*b, "user.more", filled(700, 'm')));
        EXPECT_EQ(value_of(get_xattr(*b, "user.twin1")), twins);
        volume.check();
        expect_ok(volume.remove(*b, "user.twin2"));
        volume.check();
        volume.destroy(std::move(first ? a : b));
        EXPECT_EQ(value_of(get_xattr(first ? *b : *a, "user.twin1")), twins);
        volume.check();
        volume.destroy(std::move(first ? b : a));
        volume.check();
    }
    EXPECT_EQ(volume.free_blocks(), blocks);
    EXPECT_EQ(volume.free_inodes(), inodes);
}

// Who looks whether a file may be opened reads its access list with no lock of the file's.
TEST_P(ValueInodes, AreReadWhileTheyAreReplaced) {
    InodeRef inode = volume.make();
    // Its bytes tell its size.
    const auto value = [](int i) { return filled(4000 + static_cast<std::size_t>(i % 26), 'a' + i % 26); };
    expect_ok(volume.set(*inode, "user.value", value(0)));
    std::atomic<bool> ended = false;
    std::atomic<unsigned> read = 0;
    std::vector<std::thread> readers;
    for (int n = 0; n < 3; ++n)
        readers.emplace_back([&] {
            for (unsigned mine = 0; !ended || mine < 50; ++mine) {
                const Result<Value> got = get_xattr(*inode, "user.value");
                ASSERT_TRUE(got) << got.error().what;
                ASSERT_EQ(*got, value(std::to_integer<int>(got->front()) - 'a'));
                ++read;
            }
        });
    for (int i = 1; i < 2000 || read < 300; ++i) {
        expect_ok(volume.set(*inode, "user.value", value(i)));
        if (HasFailure()) break;
    }
    ended = true;
    for (std::thread& reader : readers) reader.join();
    volume.destroy(std::move(inode));
    volume.check();
}

// A damaged one whose entry names itself, in a block that is said to be another's too.
TEST_P(ValueInodes, HaveNone) {
    InodeRef inode = with_twins(), other = with_block_of(*inode);
    std::uint32_t number = 0;
    {
        MutexLock map(inode->map_lock);
        number = value_of(read_xattr_block(*inode)).front().value_inode;
    }
    InodeRef value = volume.get(InodeNr(number));
    {
        MutexLock map(inode->map_lock);
        const BlockNr block = inode->xattr_block();
        map.unlock();
        MutexLock own(value->map_lock);
        value->set_xattr_block(block);
    }
    EXPECT_EQ(code_of(get_xattr(*value, "user.twin1")), EUCLEAN);
    EXPECT_EQ(code_of(volume.set(*value, "user.more", filled(700, 'm'))), EUCLEAN);
    EXPECT_EQ(code_of(volume.remove(*value, "user.twin1")), EUCLEAN);
    {
        MutexLock own(value->map_lock);
        value->set_xattr_block(BlockNr());
    }
    value = InodeRef();
    volume.destroy(std::move(inode));
    volume.destroy(std::move(other));
    volume.check();
}

// The block is nobody else's, so that nothing of it is copied.
TEST_P(ValueInodes, OneThatIsLostLeavesTheOtherAttributes) {
    InodeRef inode = volume.make();
    const InodeNr number = inode->number();
    expect_ok(volume.set(*inode, "user.fill", filled(60, 'f')));
    expect_ok(volume.set(*inode, "user.small", filled(20, 's')));
    expect_ok(volume.set(*inode, "user.lost", filled(9000, 'l')));
    expect_ok(volume.set(*inode, "user.large", twins));
    std::uint32_t lost = 0;
    {
        MutexLock map(inode->map_lock);
        for (const auto& item : value_of(read_xattr_block(*inode)))
            if (item.name == "lost") lost = item.value_inode;
    }
    ASSERT_NE(lost, 0u);
    inode = InodeRef();
    volume.reopen_after(fmt::format("clri <{}>", lost));
    inode = volume.get(number);
    EXPECT_NE(code_of(get_xattr(*inode, "user.lost")), 0);
    expect_ok(volume.set(*inode, "user.more", filled(30, 'm')));
    expect_ok(volume.remove(*inode, "user.small"));
    EXPECT_EQ(value_of(get_xattr(*inode, "user.more")), filled(30, 'm'));
    EXPECT_EQ(value_of(get_xattr(*inode, "user.large")), twins);
}

INSTANTIATE_TEST_SUITE_P(Formats, ValueInodes,
                         ::testing::Values("-b 4096 -O ea_inode", "-b 1024 -O ea_inode",
                                           "-b 4096 -O bigalloc,ea_inode -C 16384"));

}  // namespace
}  // namespace uext4

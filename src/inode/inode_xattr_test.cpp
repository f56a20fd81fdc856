// Extended attributes in all their places, compared with a model and judged by e2fsck and debugfs.
#include "tests/fixtures/inode_volume.h"

#include "inode/acl.h"
#include "inode/inline_data.h"
#include "inode/inode_xattrs.h"
#include "inode/superblock.h"
#include "inode/xattr_block.h"

#include <random>

namespace uext4 {
namespace {

using Value = std::vector<std::byte>;
using Model = std::map<std::string, Value>;

Value pattern(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    Value out(size);
    for (auto& b : out) b = static_cast<std::byte>(random());
    return out;
}

void expect_same(Inode& inode, const Model& model) {
    std::vector<std::string> names = value_of(list_xattrs(inode));
    std::ranges::sort(names);
    std::vector<std::string> wanted;
    for (const auto& [name, value] : model) {
        wanted.push_back(name);
        const Result<Value> got = get_xattr(inode, name);
        ASSERT_TRUE(got) << got.error().what;
        EXPECT_EQ(*got, value) << name;
    }
    EXPECT_EQ(names, wanted);
}

struct Format {
    const char* name;
    const char* options;
};
std::ostream& operator<<(std::ostream& out, const Format& f) { return out << f.name; }

class Xattrs : public ::testing::TestWithParam<Format> {
protected:
    TestVolume volume{GetParam().options};
    bool large() { return volume.fs().geometry.has_incompat(format::incompat::ea_inode); }
};

TEST_P(Xattrs, MatchAModel) {
    std::mt19937 random(7);
    const std::uint64_t blocks = volume.free_blocks(), inodes = volume.free_inodes();
    std::vector<InodeNr> files;
    std::vector<Model> models(6);
    for (std::size_t i = 0; i < models.size(); ++i) files.push_back(volume.make()->number());
    unsigned stored = 0;
    for (int step = 0; step < 600; ++step) {
        const std::size_t at = random() % files.size();
        InodeRef inode = volume.get(files[at]);
        Model& model = models[at];
        const char* spaces[] = {"user.", "trusted.", "security."};
        const std::string name =
            spaces[random() % 3] + std::string(1 + random() % 12, static_cast<char>('a' + random() % 4));
        if (random() % 4 == 0) {
            EXPECT_EQ(code_of(volume.remove(*inode, name)), model.erase(name) ? 0 : ENODATA);
            continue;
        }
        const unsigned kind = random() % 8;
        // Rooms are small: one value in eight is large.
        const std::size_t size = kind < 4 ? random() % 60 : kind < 7 || !large() ? random() % 900 : random() % 65537;
        const Value value = pattern(size, random());
        const Result<void> set = volume.set(*inode, name, value);
        if (set) {
            model[name] = value;
            ++stored;
        } else {
            EXPECT_EQ(set.error().code, ENOSPC) << set.error().what;
        }
    }
    EXPECT_GT(stored, 50u);
    for (std::size_t i = 0; i < files.size(); ++i) expect_same(*volume.get(files[i]), models[i]);
    auto lists = volume.check();
    for (std::size_t i = 0; i < files.size(); ++i)
        for (const auto& [name, value] : models[i])
            EXPECT_NE(lists[files[i].value].find(fmt::format("{} ({})", name, value.size())), std::string::npos)
                << name << " of " << value.size() << " in\n"
                << lists[files[i].value];
    volume.reopen();
    for (std::size_t i = 0; i < files.size(); ++i) expect_same(*volume.get(files[i]), models[i]);
    for (std::size_t i = 0; i < files.size(); ++i) {
        volume.destroy(volume.get(files[i]));
        if (i == 2) volume.check();
    }
    EXPECT_EQ(volume.free_blocks(), blocks);
    EXPECT_EQ(volume.free_inodes(), inodes);
    volume.check();
}

TEST_P(Xattrs, Limits) {
    InodeRef inode = volume.make();
    EXPECT_EQ(code_of(volume.set(*inode, "user.big", pattern(65537, 1))), E2BIG);
    EXPECT_EQ(code_of(volume.set(*inode, "user." + std::string(256, 'n'), {})), ERANGE);
    EXPECT_EQ(code_of(volume.set(*inode, "user.", {})), EINVAL);
    EXPECT_EQ(code_of(volume.set(*inode, "other.x", {})), EOPNOTSUPP);
    EXPECT_EQ(code_of(volume.set(*inode, "system.data", {})), EOPNOTSUPP);
    EXPECT_EQ(code_of(get_xattr(*inode, "system.data")), EOPNOTSUPP);
    for (const char* name : {"system.richacl", "system.", "system.x"}) {
        EXPECT_EQ(code_of(volume.set(*inode, name, pattern(3, 1))), EOPNOTSUPP) << name;
        EXPECT_EQ(code_of(get_xattr(*inode, name)), EOPNOTSUPP) << name;
        EXPECT_EQ(code_of(volume.remove(*inode, name)), EOPNOTSUPP) << name;
    }
    EXPECT_EQ(code_of(volume.set(*inode, "user.a", {}, XattrMode::replace)), ENODATA);
    EXPECT_EQ(code_of(volume.set(*inode, "user.a", {}, XattrMode::create)), 0);
    EXPECT_EQ(code_of(volume.set(*inode, "user.a", {}, XattrMode::create)), EEXIST);
    EXPECT_EQ(code_of(volume.set(*inode, "user.a", pattern(3, 1), XattrMode::replace)), 0);
    EXPECT_EQ(code_of(volume.remove(*inode, "user.b")), ENODATA);
    EXPECT_EQ(code_of(volume.set(*inode, "user.all", pattern(65536, 3))), large() ? 0 : ENOSPC);
    expect_same(*inode, large() ? Model{{"user.a", pattern(3, 1)}, {"user.all", pattern(65536, 3)}}
                                : Model{{"user.a", pattern(3, 1)}});
    EXPECT_EQ(code_of(volume.set(*inode, "user." + std::string(255, 'n'), {})), 0);
    inode.reset();
    volume.check();
}

// Two inodes with one block, as other systems make them: each change leaves the other inode as it was, and the values
// in inodes live as long as a block names them.
TEST_P(Xattrs, SharedBlock) {
    const std::uint64_t blocks = volume.free_blocks(), inodes = volume.free_inodes();
    InodeRef a = volume.make(), b = volume.make();
    Model model;
    auto fill = [&](const std::string& name, std::size_t size) {
        model[name] = pattern(size, static_cast<unsigned>(size));
        expect_ok(volume.set(*a, name, model[name]));
    };
    // The inode's own room is taken first; system attributes of that size go to the block.
    for (int i = 0; i < 8 && !a->xattr_block(); ++i) fill(fmt::format("user.small{}", i), 120);
    ASSERT_TRUE(a->xattr_block());
    if (large()) {
        // The entries of large values are small: there is no room for them in the inode when it has none for less.
        const auto in_block = [&] {
            MutexLock map(a->map_lock);
            return value_of(read_xattr_block(*a)).size();
        };
        const std::size_t before = in_block();
        for (char letter = 'a'; letter <= 'z' && in_block() == before; ++letter)
            fill(fmt::format("user.{}", letter), 0);
        ASSERT_GT(in_block(), before);
        fill("user.large1", 10000);
        fill("user.large2", 50000);
    }
    Model shared;
    {
        Handle handle = volume.start();
        MutexLock map(a->map_lock);
        for (const auto& item : value_of(read_xattr_block(*a))) {
            const std::string name = format::full_xattr_name(item.index, item.name);
            shared[name] = model.at(name);
        }
        BufferRef buffer = value_of(volume.fs().buffers.read(a->xattr_block(), "attribute block"));
        expect_ok(handle.get_write_access(buffer));
        view_as<format::XattrBlockHeader>(buffer->data()).refcount = 2u;
        format::set_xattr_block_checksum(volume.fs().geometry, buffer->block(), buffer->data());
        const BlockNr block = a->xattr_block();
        map.unlock();
        MutexLock other(b->map_lock);
        b->set_xattr_block(block);
        const std::uint64_t ratio = volume.fs().geometry.cluster_ratio;
        std::uint64_t blocks_of_b = ratio;
        for (const auto& item : value_of(read_xattr_block(*b)))
            if (item.value_inode) blocks_of_b += divide_up(item.value_size, ratio * volume.fs().block_size()) * ratio;
        expect_ok(b->add_blocks(handle, static_cast<std::int64_t>(blocks_of_b)));
    }
    for (const char* name : {"user.large1", "user.large2"}) EXPECT_EQ(shared.contains(name), large());
    expect_same(*b, shared);
    volume.check();
    // b gets a copy of its own.
    Model of_b = shared;
    of_b[shared.begin()->first] = pattern(130, 9);
    expect_ok(volume.set(*b, shared.begin()->first, of_b[shared.begin()->first]));
    expect_same(*a, model);
    expect_same(*b, of_b);
    volume.check();
    if (large()) {
        expect_ok(volume.remove(*b, "user.large1"));
        of_b.erase("user.large1");
        expect_same(*a, model);
        expect_same(*b, of_b);
        volume.check();
    }
    volume.destroy(std::move(a));
    expect_same(*b, of_b);
    volume.check();
    volume.destroy(std::move(b));
    EXPECT_EQ(volume.free_blocks(), blocks);
    EXPECT_EQ(volume.free_inodes(), inodes);
    volume.check();
}

class InlineContents : public Xattrs {};

TEST_P(InlineContents, ShareTheInodeWithAttributes) {
    InodeRef inode = volume.make();
    ASSERT_TRUE(inode->is_inline());
    std::uint64_t room = 0;
    {
        MutexLock map(inode->map_lock);
        room = max_inline_size(*inode);
    }
    EXPECT_GE(room, 60u);
    auto write = [&](std::size_t size) {
        // A handle comes before map_lock.
        Handle handle = volume.start();
        MutexLock guard(inode->map_lock);
        Result<void> written = write_inline_data(handle, *inode, pattern(size, 5));
        if (!written) return written;
        inode->set_size(size);
        inode->set_disk_size(size);
        return inode->store(handle);
    };
    EXPECT_EQ(code_of(write(room + 1)), ENOSPC);
    expect_ok(write(room));
    volume.check();
    // No room is left: the attribute goes to a block, the contents stay.
    expect_ok(volume.set(*inode, "user.a", pattern(20, 1)));
    EXPECT_TRUE(inode->xattr_block());
    {
        MutexLock guard(inode->map_lock);
        Value contents = value_of(read_inline_data(*inode));
        contents.resize(room);
        EXPECT_EQ(contents, pattern(room, 5));
    }
    volume.check();
    expect_ok(write(10));
    expect_ok(volume.set(*inode, "user.a", pattern(21, 1)));
    EXPECT_FALSE(inode->xattr_block());
    {
        MutexLock guard(inode->map_lock);
        EXPECT_LT(max_inline_size(*inode), room);
    }
    volume.check();
    {
        Handle handle = volume.start();
        MutexLock guard(inode->map_lock);
        inode->set_size(0);
        inode->set_disk_size(0);
        expect_ok(clear_inline_data(handle, *inode));
    }
    EXPECT_EQ(*get_xattr(*inode, "user.a"), pattern(21, 1));
    volume.check();
}

// The feature is in the transaction of the first attribute, and nothing else brings it.
TEST(FirstXattr, BringsTheFeature) {
    TestVolume volume("-b 4096 -O ^ext_attr");
    auto there = [&](format::SuperBlock super) { return super.has_compat(format::compat::ext_attr); };
    auto on_disk = [&] {
        format::SuperBlock super;
        expect_ok(volume.fs().device.read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
        return there(super) && format::super_checksum_ok(super);
    };
    auto in_memory = [&] { return there(value_of(read_superblock(volume.fs()))); };
    InodeRef inode = volume.make();
    EXPECT_EQ(code_of(volume.set(*inode, "user.all", pattern(65536, 3))), ENOSPC);
    EXPECT_FALSE(in_memory());
    WriteLock lock(inode->rw);
    Tid tid = 0;
    {
        Handle handle = volume.start(xattr_credits(*inode));
        tid = handle.tid();
        expect_ok(set_xattr(handle, *inode, "user.a", pattern(3, 1), XattrMode::either, true));
        EXPECT_TRUE(in_memory());
    }
    EXPECT_FALSE(on_disk());
    EXPECT_EQ(inode->last_tid(), tid);
    expect_ok(volume.journal().commit(tid));
    expect_ok(volume.journal().checkpoint_all());
    EXPECT_TRUE(on_disk());
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Xattrs,
    ::testing::Values(Format{"plain", "-b 4096"}, Format{"small_blocks", "-b 1024"},
                      Format{"values", "-b 4096 -O ea_inode"}, Format{"values_small_blocks", "-b 1024 -O ea_inode"},
                      Format{"values_inline", "-b 4096 -O ea_inode,inline_data"},
                      Format{"inline_wide", "-b 4096 -I 512 -O inline_data"},
                      Format{"no_log", "-b 4096 -O ^has_journal,ea_inode"},
                      Format{"classic", "-b 4096 -I 128 -O ^extent,^metadata_csum,^64bit"},
                      Format{"classic_values", "-b 1024 -I 128 -O ^extent,^metadata_csum,^64bit,ea_inode"},
                      Format{"no_feature", "-b 4096 -O ^ext_attr"}, Format{"revision_0", "-b 1024 -r 0 -O none"},
                      Format{"clusters", "-b 4096 -O bigalloc,ea_inode -C 16384"}),
    [](const auto& format) { return std::string(format.param.name); });

INSTANTIATE_TEST_SUITE_P(Formats, InlineContents,
                         ::testing::Values(Format{"narrow", "-b 4096 -O inline_data"},
                                           Format{"wide", "-b 4096 -I 512 -O inline_data"},
                                           Format{"values", "-b 1024 -I 256 -O inline_data,ea_inode"}),
                         [](const auto& format) { return std::string(format.param.name); });

}  // namespace
}  // namespace uext4

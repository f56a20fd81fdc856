// The table of inodes, device numbers, orphans.
#include "format/extent.h"
#include "format/orphan.h"
#include "inode/superblock.h"
#include "tests/fixtures/inode_volume.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <thread>

namespace uext4 {
namespace {

struct Format {
    const char* name;
    const char* options;
};
std::ostream& operator<<(std::ostream& out, const Format& f) { return out << f.name; }

class Inodes : public ::testing::TestWithParam<Format> {
protected:
    TestVolume volume{GetParam().options};
};

// Formats whose orphans are a list; formats whose inodes have more than 128 bytes.
class OrphanLists : public Inodes {};
class WideInodes : public Inodes {};

TEST_P(Inodes, AreOneInMemory) {
    const InodeNr number = volume.make()->number();
    volume.reopen();
    std::vector<std::thread> threads;
    std::array<Inode*, 8> seen{};
    std::vector<InodeRef> held(seen.size());
    for (std::size_t i = 0; i < seen.size(); ++i)
        threads.emplace_back([&, i] {
            for (int n = 0; n < 200; ++n) {
                held[i] = volume.get(number);
                seen[i] = held[i].get();
                if (n < 199) held[i].reset();
            }
        });
    for (auto& t : threads) t.join();
    for (Inode* one : seen) EXPECT_EQ(one, held[0].get());
    held.clear();
    volume.check();
}

TEST_P(Inodes, KeepWhatTheyWereGiven) {
    const std::uint64_t devices[] = {makedev(8, 1), makedev(255, 255), makedev(259, 70000), makedev(4095, 0xFFFFF)};
    std::vector<InodeNr> nodes;
    for (std::uint64_t device : devices) {
        Handle handle = volume.start();
        InodeRef node = value_of(volume.table().create(handle, NewInode{InodeNr(2), S_IFBLK | 0600, 0, 0, device, 0}));
        EXPECT_EQ(node->device_number(), device);
        EXPECT_FALSE(node->uses_extents());
        node->map_lock.lock();
        node->set_links(1);
        expect_ok(node->store(handle));
        node->map_lock.unlock();
        nodes.push_back(node->number());
    }
    InodeRef file = volume.make(S_IFREG | 04711, 0x12345678, 0x9ABCDEF0);
    const InodeNr number = file->number();
    const format::Timestamp late{0x200000000, 123456789};
    const bool wide = volume.fs().geometry.inode_size > 128;
    {
        Handle handle = volume.start();
        MutexLock map(file->map_lock);
        file->set_mtime(late);
        expect_ok(file->store(handle));
    }
    const std::uint32_t generation = file->generation();
    file.reset();
    volume.reopen();
    for (std::size_t i = 0; i < nodes.size(); ++i) EXPECT_EQ(volume.get(nodes[i])->device_number(), devices[i]);
    file = volume.get(number);
    EXPECT_EQ(file->mode(), S_IFREG | 04711);
    EXPECT_EQ(file->uid(), 0x12345678u);
    EXPECT_EQ(file->gid(), 0x9ABCDEF0u);
    EXPECT_EQ(file->generation(), generation);
    if (wide) {
        EXPECT_EQ(file->mtime(), late);
    }
    EXPECT_EQ(file->size_hint(), 0u);
    file.reset();
    for (InodeNr node : nodes) volume.destroy(volume.get(node));
    volume.check();
}

// An unused number is refused, and nobody is told to delete it.
TEST_P(Inodes, UnusedNumbersAreStale) {
    InodeRef file = volume.make();
    const InodeNr number = file->number();
    volume.destroy(file);
    EXPECT_EQ(code_of(volume.table().get(number)), ESTALE);
    file.reset();
    EXPECT_EQ(code_of(volume.table().get(number)), ESTALE);
    volume.reopen();
    EXPECT_EQ(code_of(volume.table().get(number)), ESTALE);
    EXPECT_EQ(code_of(volume.table().get(number + 5000)), ESTALE);
    EXPECT_EQ(volume.queued(), 0u);
    EXPECT_EQ(code_of(volume.table().get(InodeNr(0))), EUCLEAN);
    EXPECT_EQ(code_of(volume.table().get(InodeNr(1u << 30))), EUCLEAN);
    volume.check();
}

// A number goes to a new file while somebody still looks at the deleted one.
TEST_P(Inodes, NumbersComeBack) {
    InodeRef former = volume.make();
    const InodeNr number = former->number();
    volume.destroy(former);
    expect_ok(volume.journal().commit_all());
    std::vector<InodeRef> fresh;
    for (int i = 0; i < 8; ++i) fresh.push_back(volume.make());
    const auto again = std::ranges::find_if(fresh, [&](const InodeRef& f) { return f->number() == number; });
    ASSERT_NE(again, fresh.end());
    EXPECT_NE(again->get(), former.get());
    EXPECT_TRUE(former->deleted.load());
    former.reset();
    EXPECT_EQ(volume.get(number).get(), again->get());
    fresh.clear();
    volume.check();
}

TEST_P(Inodes, LastReferenceOfAnUnlinkedOneGoesToTheDeleterOnce) {
    InodeRef file = volume.make();
    {
        Handle handle = volume.start();
        MutexLock map(file->map_lock);
        file->set_links(0);
        expect_ok(file->store(handle));
    }
    InodeRef second = file;
    file.reset();
    EXPECT_EQ(volume.queued(), 0u);
    second.reset();
    EXPECT_EQ(volume.queued(), 1u);
}

// Whoever makes one after the other leaves none behind.
TEST_P(Inodes, NewInodesAreEvictedToo) {
    volume.table().set_limit(10);
    constexpr int made = 3000;
    std::vector<InodeNr> numbers;
    for (int i = 0; i < made; ++i) {
        numbers.push_back(volume.make()->number());
        if (i % 100 == 0) expect_ok(volume.journal().commit_all());
    }
    const auto in_memory = [&](InodeNr n) { return static_cast<bool>(volume.table().find(n)); };
    const auto kept = std::ranges::count_if(numbers, in_memory);
    EXPECT_LT(kept, 1500);
    expect_ok(volume.journal().commit_all());
    volume.table().shrink_to_limit();
    EXPECT_LE(std::ranges::count_if(numbers, in_memory), 10);
}

// Folios are not locked under the handle with which a file is made.
TEST_P(Inodes, WhoMakesFilesLeavesWhatIsCachedOfOthers) {
    volume.table().set_limit(10);
    InodeRef file = volume.make();
    const InodeNr number = file->number();
    ASSERT_TRUE(file->pages().lock(0, true));
    ASSERT_EQ(file->pages().cached_folios(), 1u);
    file.reset();
    for (int i = 0; i < 3000; ++i) {
        volume.make();
        if (i % 100 == 0) expect_ok(volume.journal().commit_all());
    }
    InodeRef kept = volume.table().find(number);
    ASSERT_TRUE(kept);
    EXPECT_EQ(kept->pages().cached_folios(), 1u);
    kept.reset();
    expect_ok(volume.journal().commit_all());
    volume.table().set_limit(0);
    volume.table().shrink_to_limit();
    EXPECT_FALSE(volume.table().find(number));
}

TEST_P(Inodes, EvictionKeepsWhatIsPending) {
    std::vector<InodeNr> numbers;
    for (int i = 0; i < 100; ++i) numbers.push_back(volume.make()->number());
    {
        InodeRef file = volume.get(numbers[3]);
        MutexLock map(file->map_lock);
        file->set_mtime({1000, 0});
        file->note_times_pending();
    }
    volume.table().set_limit(10);
    // An fsync of one of them still has to commit.
    volume.table().shrink_to_limit();
    EXPECT_TRUE(volume.table().find(numbers[60]));
    expect_ok(volume.journal().commit_all());
    volume.table().shrink_to_limit();
    EXPECT_FALSE(volume.table().find(numbers[50]));
    // And of one whose attributes alone were changed.
    {
        InodeRef file = volume.get(numbers[20]);
        Handle handle = volume.start();
        MutexLock map(file->map_lock);
        file->set_mtime({2000, 0});
        expect_ok(file->store(handle));
    }
    for (InodeNr n : numbers) volume.get(n);
    volume.table().shrink_to_limit();
    EXPECT_FALSE(volume.table().find(numbers[50]));
    EXPECT_TRUE(volume.table().find(numbers[20]));
    expect_ok(volume.journal().commit_all());
    InodeRef kept = volume.table().find(numbers[3]);
    ASSERT_TRUE(kept);
    EXPECT_EQ(kept->mtime().sec, 1000);
    {
        Handle handle = volume.start();
        MutexLock map(kept->map_lock);
        expect_ok(kept->store(handle));
        EXPECT_FALSE(kept->times_pending());
    }
    kept.reset();
    for (InodeNr n : numbers) EXPECT_EQ(volume.get(n)->links(), 1u);
    volume.check();
}

TEST_P(Inodes, OrphansAreFoundAgain) {
    std::vector<InodeNr> numbers;
    for (int i = 0; i < 40; ++i) {
        InodeRef file = volume.make();
        numbers.push_back(file->number());
    }
    value_of(volume.orphans().load());
    auto each = [&](auto&& action) {
        for (InodeNr n : numbers) {
            InodeRef file = volume.get(n);
            Handle handle = volume.start();
            expect_ok(action(handle, *file));
        }
    };
    each([&](Handle& h, Inode& i) { return volume.orphans().add(h, i); });
    each([&](Handle& h, Inode& i) { return volume.orphans().add(h, i); });
    // First, last, some in the middle.
    for (std::size_t at : {0u, 39u, 10u, 20u, 21u, 22u}) {
        InodeRef file = volume.get(numbers[at]);
        EXPECT_TRUE(volume.orphans().contains(*file));
        Handle handle = volume.start();
        expect_ok(volume.orphans().remove(handle, *file));
        EXPECT_FALSE(volume.orphans().contains(*file));
        expect_ok(volume.orphans().remove(handle, *file));
    }
    std::vector<InodeNr> left;
    for (InodeNr n : numbers)
        if (volume.orphans().contains(*volume.get(n))) left.push_back(n);
    EXPECT_EQ(left.size(), 34u);
    volume.reopen();
    std::vector<InodeNr> found = value_of(volume.orphans().load());
    std::ranges::sort(found);
    EXPECT_EQ(found, left);
    each([&](Handle& h, Inode& i) { return volume.orphans().remove(h, i); });
    EXPECT_TRUE(value_of(volume.orphans().load()).empty());
    volume.check();
}

// A list that bites its tail ends the reading, not the reader.
TEST_P(OrphanLists, ThatLieEnd) {
    value_of(volume.orphans().load());
    ASSERT_FALSE(volume.orphans().uses_file());
    std::vector<InodeNr> numbers;
    for (int i = 0; i < 3; ++i) {
        InodeRef file = volume.make();
        numbers.push_back(file->number());
        Handle handle = volume.start();
        expect_ok(volume.orphans().add(handle, *file));
    }
    for (std::uint32_t lie : {static_cast<std::uint32_t>(numbers[2].value), 1u << 30, 2u, 5000u}) {
        {
            InodeRef last = volume.get(numbers[0]);
            Handle handle = volume.start();
            MutexLock map(last->map_lock);
            last->disk().dtime = lie;
            expect_ok(last->store(handle));
        }
        volume.reopen();
        EXPECT_EQ(value_of(volume.orphans().load()).size(), 3u);
    }
    for (InodeNr n : numbers) {
        InodeRef file = volume.get(n);
        Handle handle = volume.start();
        expect_ok(volume.orphans().remove(handle, *file));
    }
    volume.check();
}

// Two blocks of slots: the list is used when both are full, and no longer when a slot of either is free.
TEST(OrphanFile, IsFilledBeforeTheList) {
    TestVolume volume("-b 1024 -N 2000 -O orphan_file -E orphan_file_size=2");
    constexpr std::size_t slots = 2 * 254;
    std::vector<InodeNr> numbers;
    while (numbers.size() < slots + 10) numbers.push_back(volume.make()->number());
    const auto add = [&](std::size_t at) {
        InodeRef file = volume.get(numbers[at]);
        Handle handle = volume.start();
        expect_ok(volume.orphans().add(handle, *file));
    };
    const auto remove = [&](std::size_t at) {
        InodeRef file = volume.get(numbers[at]);
        Handle handle = volume.start();
        expect_ok(volume.orphans().remove(handle, *file));
    };
    const auto listed = [&]() -> std::uint32_t { return value_of(read_superblock(volume.fs())).last_orphan; };
    EXPECT_TRUE(value_of(volume.orphans().load()).empty());
    for (std::size_t at = 0; at < slots; ++at) add(at);
    EXPECT_EQ(listed(), 0u);
    add(slots);
    add(slots + 1);
    EXPECT_EQ(listed(), numbers[slots + 1].value);
    // Of both blocks, the last one of a block and the first one of the next.
    for (std::size_t at : {0u, 253u, 254u, 300u}) remove(at);
    for (std::size_t at = 2; at < 6; ++at) add(slots + at);
    EXPECT_EQ(listed(), numbers[slots + 1].value);
    add(slots + 6);
    EXPECT_EQ(listed(), numbers[slots + 6].value);
    for (std::size_t at : {100u, 400u}) remove(at);
    // What a mount finds taken is not given again.
    volume.reopen();
    EXPECT_EQ(value_of(volume.orphans().load()).size(), slots + 1);
    for (std::size_t at = 7; at < 9; ++at) add(slots + at);
    EXPECT_EQ(listed(), numbers[slots + 6].value);
    add(slots + 9);
    EXPECT_EQ(listed(), numbers[slots + 9].value);
    volume.reopen();
    EXPECT_EQ(value_of(volume.orphans().load()).size(), slots + 4);
    for (std::size_t at = 0; at < numbers.size(); ++at) remove(at);
    EXPECT_EQ(listed(), 0u);
    volume.reopen();
    EXPECT_TRUE(value_of(volume.orphans().load()).empty());
    volume.check();
}

// An inode is served once, however often the file names it; so is a block of the file, and none that cannot be there.
TEST(OrphanFile, NamesNothingTwice) {
    TestVolume volume("-b 4096 -N 2000 -O orphan_file -E orphan_file_size=2");
    EXPECT_TRUE(value_of(volume.orphans().load()).empty());
    const InodeNr number = volume.make()->number(), own(volume.fs().geometry.orphan_file_inode);
    const auto change = [&](auto&& what) {
        {
            InodeRef file = volume.get(own);
            Handle handle = volume.start();
            MutexLock map(file->map_lock);
            what(handle, *file);
        }
        volume.reopen();
    };
    change([&](Handle& handle, Inode& file) {
        const BlockNr block = value_of(file.map().lookup(LogicalBlock(0), 1)).physical;
        BufferRef buffer = value_of(volume.fs().buffers.read(block, "orphan file"));
        expect_ok(handle.get_write_access(buffer));
        for (unsigned slot : {3u, 5u, 7u})
            view_as<Le32>(buffer->data(), slot * 4) = static_cast<std::uint32_t>(number.value);
        const format::Geometry& g = volume.fs().geometry;
        format::set_orphan_checksum(g, format::inode_seed(g, own, file.generation()), block, buffer->data());
    });
    EXPECT_EQ(value_of(volume.orphans().load()), std::vector<InodeNr>{number});
    ASSERT_EQ(volume.orphans().skipped().size(), 2u);
    EXPECT_EQ(volume.orphans().skipped()[1],
              fmt::format("orphan file: block 0 slot 7: inode {} is there twice", number));

    BlockNr block;
    change([&](Handle& handle, Inode& file) {
        block = value_of(file.map().lookup(LogicalBlock(0), 1)).physical;
        auto& header = view_as<format::ExtentHeader>(file.i_block());
        ASSERT_EQ(header.depth, 0u);
        header.entries = 2u;
        for (std::uint32_t i = 0; i < 2; ++i) {
            auto& leaf = view_as<format::ExtentLeaf>(file.i_block(), 12 + i * 12);
            leaf = view_as<format::ExtentLeaf>(file.i_block(), 12);
            leaf.block = i;
            leaf.len = 1u;
        }
        expect_ok(file.store(handle));
    });
    const std::string why = fmt::format("orphan file: block 1 is block {}, as one before it", block);
    const auto loaded = volume.orphans().load();
    ASSERT_EQ(code_of(loaded), EUCLEAN);
    EXPECT_EQ(loaded.error().what, why);
    volume.reopen();
    volume.fs().options.read_only = true;
    EXPECT_EQ(value_of(volume.orphans().load()), std::vector<InodeNr>{number});
    EXPECT_EQ(volume.orphans().skipped().back(), why);
    volume.fs().options.read_only = false;

    change([&](Handle& handle, Inode& file) {
        file.set_size(30000 * 4096);
        file.set_disk_size(30000 * 4096);
        expect_ok(file.store(handle));
    });
    const auto larger = volume.orphans().load();
    ASSERT_EQ(code_of(larger), EUCLEAN);
    EXPECT_EQ(larger.error().what, "orphan file: 30000 blocks");
}

// Images of 128-byte inodes that were widened say that no byte more is in use. As with Linux, the times' fractions are
// what they are there, and attributes are none.
TEST_P(WideInodes, UseTheirRoomOnceWidened) {
    ASSERT_GT(volume.fs().geometry.inode_size, 128);
    InodeRef file = volume.make();
    const InodeNr number = file->number();
    {
        Handle handle = volume.start();
        MutexLock map(file->map_lock);
        if (file->is_inline()) file->set_flags(file->flags() & ~format::inode_flag::inline_data);
        std::ranges::fill(file->raw().subspan(128), std::byte{0});
        view_as<format::InodeDisk>(file->raw()).mtime_extra = 1234u << 2;
        view_as<Le32>(file->raw(), 160) = 0xEA020000u;  // where attributes would begin
        view_as<Le32>(file->raw(), 164) = 0xFFFFFFFFu;
        if (volume.fs().geometry.has_incompat(format::incompat::extents)) {
            file->set_flags(file->flags() | format::inode_flag::extents);
            initialise_extent_root(file->i_block());
        }
        expect_ok(file->store(handle));
    }
    file.reset();
    volume.reopen();
    file = volume.get(number);
    EXPECT_EQ(file->disk().extra_isize, volume.fs().geometry.want_extra_isize);
    EXPECT_EQ(file->mtime().nsec, 1234u);
    const auto value = std::as_bytes(std::span("value", 5));
    expect_ok(volume.set(*file, "user.a", value));
    EXPECT_FALSE(file->xattr_block());
    file.reset();
    volume.check();
    volume.reopen();
    EXPECT_EQ(value_of(get_xattr(*volume.get(number), "user.a")).size(), 5u);
}

constexpr Format plain{"plain", "-b 4096 -O ^orphan_file"};
constexpr Format orphan_file{"orphan_file", "-b 4096 -O orphan_file"};
constexpr Format inline_data{"inline_data", "-b 1024 -O inline_data,^orphan_file"};
constexpr Format no_log{"no_log", "-b 4096 -O ^has_journal,^orphan_file"};
constexpr Format classic{"classic", "-b 1024 -I 128 -O ^extent,^metadata_csum,^64bit,^orphan_file"};

std::string name_of(const ::testing::TestParamInfo<Format>& format) { return format.param.name; }

INSTANTIATE_TEST_SUITE_P(Formats, Inodes, ::testing::Values(plain, orphan_file, inline_data, no_log, classic), name_of);
INSTANTIATE_TEST_SUITE_P(Formats, OrphanLists, ::testing::Values(plain, inline_data, no_log, classic), name_of);
INSTANTIATE_TEST_SUITE_P(Formats, WideInodes, ::testing::Values(plain, orphan_file, inline_data, no_log), name_of);

}  // namespace
}  // namespace uext4

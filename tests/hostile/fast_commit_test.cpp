// Fast commits replayed where no kernel is needed: the tree that they tell of, cut at any point of the replay, and with
// lies in them.
#include "check/check.h"
#include "tests/doubles/recording_device.h"
#include "tests/hostile/fast_commit_image.h"
#include "tests/root.h"

#include <gtest/gtest.h>

#include <fcntl.h>

#include <map>
#include <random>
#include <set>

namespace uext4::hostile {
namespace {

using test::FastCommitWriter;
using Tree = std::map<std::string, std::string>;

std::string describe(FileSystem& fs, const InodeRef& inode) {
    const auto status = fs.attributes(*inode);
    if (!status) return status.error().what;
    std::string out = fmt::format("inode {} mode {:o} links {} size {}", status->st_ino, status->st_mode,
                                  status->st_nlink, S_ISDIR(status->st_mode) ? 0 : status->st_size);
    if (inode->is_symlink()) return out + " -> " + fs.read_link(*inode).value_or("?");
    if (!inode->is_regular()) return out;
    std::vector<std::byte> data(std::min<std::size_t>(static_cast<std::size_t>(status->st_size), 1u << 20));
    const auto file = fs.open(inode, O_RDONLY, root, false);
    if (!file || !(*file)->read(0, data)) return out + ", cannot be read";
    std::uint64_t sum = 0;
    for (const std::byte b : data) sum = sum * 1099511628211u + std::to_integer<std::uint64_t>(b);
    out += fmt::format(" contents {:x}", sum);
    MutexLock map(inode->map_lock);
    if (!inode->is_inline())
        (void)inode->map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
            out += fmt::format(" {}+{}@{}{}", run.logical, run.count, run.physical, run.unwritten ? "u" : "");
            return true;
        });
    return out;
}

void walk(FileSystem& fs, const InodeRef& directory, const std::string& path, Tree& tree) {
    std::vector<std::pair<std::string, InodeNr>> found;
    (void)fs.read_directory(*directory, 0, [&](const DirectoryEntry& entry) {
        if (entry.name != "." && entry.name != "..") found.emplace_back(entry.name, entry.inode);
        return found.size() < 1000;
    });
    for (const auto& [name, number] : found) {
        const auto inode = fs.inode(number);
        tree[path + name] = inode ? describe(fs, *inode) : inode.error().what;
        if (inode && (*inode)->is_directory() && path.size() < 100) walk(fs, *inode, path + name + "/", tree);
    }
}

// Opened read-only, checked, walked. What is wrong with it is in the tree.
Tree tree_of(const std::shared_ptr<BlockDevice>& device) {
    Tree tree;
    auto fs = mount_seed(device, "ro");
    if (!fs) return {{"error", fs.error().what}};
    const auto report = check((*fs)->volume());
    if (!report) tree["check"] = report.error().what;
    else
        for (const CheckProblem& p : report->problems) tree["check " + p.structure] = p.message;
    walk(**fs, *(*fs)->root(), "/", tree);
    return tree;
}

void expect_same(const Tree& got, const Tree& expected) {
    for (const auto& [path, what] : expected)
        if (!got.contains(path)) ADD_FAILURE() << path << " is missing: " << what;
    for (const auto& [path, what] : got) {
        const auto there = expected.find(path);
        if (there == expected.end()) ADD_FAILURE() << path << " is new: " << what;
        else EXPECT_EQ(what, there->second) << path;
    }
}

Result<void> recover_by_mount(const std::shared_ptr<BlockDevice>& device) {
    auto fs = TRY(mount_seed(device, ""));
    return fs->unmount();
}

constexpr int clustered = 4;  // clusters of four blocks

std::string features_of(int which) {
    const char* const features[] = {"metadata_csum", "^metadata_csum,^64bit", "metadata_csum,inline_data",
                                    "metadata_csum,orphan_file", "metadata_csum,bigalloc -C 4096"};
    return features[which];
}

const std::shared_ptr<MemoryDevice>& clean(int which = 0) {
    static std::map<int, std::shared_ptr<MemoryDevice>> made;
    auto& device = made[which];
    if (!device) device = clean_fast_commit_image(features_of(which));
    return device;
}
const std::shared_ptr<MemoryDevice>& everything(int which = 0) {
    static std::map<int, std::shared_ptr<MemoryDevice>> made;
    auto& crashed = made[which];
    if (!crashed) crashed = everything_of(*clean(which)).crashed();
    return crashed;
}

// Of files without extents everything but their blocks.
FastCommitImage everything_but_blocks() {
    FastCommitImage out(*clean_fast_commit_image("metadata_csum,^extent,^64bit"));
    const std::uint32_t renamed = out.number("/renamed"), removed = out.number("/removed"), goes = out.number("/goes");
    out.change([&](FileSystem& fs) {
        const InodeRef top = fs.root().value();
        const auto make = [&](const char* name, mode_t mode, dev_t device, const char* target) {
            EXPECT_TRUE(fs.create(*top, name, mode, device, target, root, true)) << name;
        };
        make("empty", S_IFREG | 0600, 0, "");
        make("made", S_IFDIR | 0700, 0, "");
        make("device", S_IFCHR | 0600, 0x0103, "");
        make("symlink", S_IFLNK | 0777, 0, "where/to");
        EXPECT_TRUE(fs.set_attributes(*fs.resolve("/grows", root).value(), {.mode = 0711}, root, true));
        EXPECT_TRUE(fs.rename(*top, "renamed", *fs.resolve("/made", root).value(), "moved", 0, root, true));
        EXPECT_TRUE(fs.unlink(*top, "removed", root, true));
        EXPECT_TRUE(fs.rmdir(*top, "goes", root, true));
        fs.volume().wait_for_deletions();
    });
    for (const char* name : {"empty", "made", "device", "symlink"}) {
        out.inode(fmt::format("/{}", name));
        out.name(format::fc_create, "/", out.number(fmt::format("/{}", name)), name);
    }
    out.name(format::fc_link, "/made", renamed, "moved");
    out.name(format::fc_unlink, "/", renamed, "renamed");
    out.name(format::fc_unlink, "/", removed, "removed");
    out.name(format::fc_unlink, "/", goes, "goes");
    for (const char* path : {"/grows", "/made/moved"}) out.inode(path);
    out.writer().commit();
    return out;
}

TEST(FastCommitIndirect, KeepsTheBlocksOfFilesWithoutExtents) {
    const FastCommitImage image = everything_but_blocks();
    const Tree expected = tree_of(image.changed());
    ASSERT_GT(expected.size(), 10u);
    const auto crashed = image.crashed();
    expect_same(tree_of(crashed), expected);
    const auto done = recover_by_mount(crashed);
    ASSERT_TRUE(done) << done.error().what;
    expect_same(tree_of(crashed), expected);
}

class FastCommitReplay : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Features, FastCommitReplay, testing::Values(0, 1, 2, 3, clustered));

TEST_P(FastCommitReplay, GivesTheTreeThatWasThere) {
    const FastCommitImage image = everything_of(*clean(GetParam()));
    const Tree expected = tree_of(image.changed());
    ASSERT_GT(expected.size(), 10u);
    const auto crashed = image.crashed();
    const auto before = crashed->clone();
    expect_same(tree_of(crashed), expected);  // in memory
    std::vector<std::byte> one(1u << 20), two(1u << 20);
    for (std::uint64_t at = 0; at < crashed->size(); at += one.size()) {
        ASSERT_TRUE(crashed->read(at, one));
        ASSERT_TRUE(before->read(at, two));
        ASSERT_EQ(one, two) << "reading it changed it at " << at;
    }
    const auto done = recover_by_mount(crashed);
    ASSERT_TRUE(done) << done.error().what;
    expect_same(tree_of(crashed), expected);
    // And there is nothing to be replayed any more.
    auto again = mount_seed(crashed, "ro");
    ASSERT_TRUE(again);
    EXPECT_FALSE((*again)->volume().recovery().needed);
}

// What a power cut leaves of a replay is replayed to the same: each prefix of what was written, and prefixes of which
// some of the unflushed writes are missing.
TEST(FastCommitCut, TheReplayCanBeCutAnywhere) {
    const auto& crashed = everything();
    const Tree expected = tree_of(crashed);
    ASSERT_GT(expected.size(), 10u);
    auto recording = std::make_shared<RecordingDevice>(crashed->clone());
    ASSERT_TRUE(recover_by_mount(recording));
    const std::vector<RecordedWrite> log = recording->take_log();
    ASSERT_GT(log.size(), 10u);
    std::mt19937 random(1);
    unsigned unlike = 0;
    for (std::size_t cut = 0; cut <= log.size(); ++cut) {
        std::size_t flushed = cut;
        while (flushed > 0 && log[flushed - 1].kind != RecordedWrite::Kind::Flush) --flushed;
        for (unsigned state = 0; state < 4; ++state) {
            std::shared_ptr<MemoryDevice> device = crashed->clone();
            for (std::size_t i = 0; i < cut; ++i) {
                const bool certain = i < flushed || log[i].kind == RecordedWrite::Kind::Fua;
                if (certain || state == 0 || random() % 2) {
                    ASSERT_TRUE(RecordingDevice::apply(log[i], *device));
                }
            }
            if (state > 1) {  // and once more while that is recovered
                auto second = std::make_shared<RecordingDevice>(device->clone());
                ASSERT_TRUE(recover_by_mount(second));
                const auto more = second->take_log();
                ASSERT_TRUE(RecordingDevice::replay(more, random() % (more.size() + 1), *device));
            }
            const auto done = recover_by_mount(device);
            ASSERT_TRUE(done) << "cut " << cut << ": " << done.error().what;
            if (tree_of(device) != expected) {
                ADD_FAILURE() << "another tree after cut " << cut << " of " << log.size() << ", state " << state;
                if (++unlike > 3) return;
            }
        }
    }
}

TEST(FastCommitCut, WhatAnUnfinishedCommitSaysIsNotReplayed) {
    const auto& whole = everything();
    const FastCommitArea area = FastCommitArea::find(whole->clone());
    std::vector<std::byte> bytes = area.read(*whole);
    std::set<Tree> trees;
    for (std::size_t end = bytes.size(); end > 0; end -= 256) {
        std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(end - 256), bytes.end(), std::byte{0});
        std::shared_ptr<MemoryDevice> device = whole->clone();
        area.write(*device, bytes);
        Tree tree = tree_of(device);
        for (const auto& [path, what] : tree) ASSERT_EQ(path[0], '/') << path << ": " << what;
        trees.insert(std::move(tree));
    }
    EXPECT_EQ(trees.size(), 4u);  // none, one, two, three of them
    EXPECT_TRUE(trees.contains(tree_of(clean()->clone())));
}

struct Lie {
    std::string what;
    std::function<void(FastCommitImage&, FastCommitWriter&)> tell;
};

std::vector<std::byte> raw_inode(std::uint16_t mode, std::uint16_t links, std::uint32_t flags = 0x80000) {
    std::vector<std::byte> raw(160);
    auto& inode = view_as<format::InodeDisk>(Bytes(raw));
    inode.mode = mode;
    inode.links_count = links;
    inode.flags = flags;
    inode.extra_isize = std::uint16_t{32};
    return raw;
}

std::uint64_t first_block_of(FastCommitImage& image, const std::string& path) {
    auto fs = mount_seed(image.changed(), "ro");
    const InodeRef inode = *(*fs)->resolve(path, root);
    MutexLock map(inode->map_lock);
    return inode->map().lookup(LogicalBlock(0), 1)->physical.value;
}

std::vector<Lie> lies() {
    std::vector<Lie> out;
    const auto add = [&](std::string what, std::function<void(FastCommitImage&, FastCommitWriter&)> tell) {
        out.push_back({std::move(what), std::move(tell)});
    };
    for (const std::uint32_t n : {0u, 1u, 7u, 8u, 10u, 513u, 0xFFFFFFFFu}) {
        add(fmt::format("inode {}", n), [n](auto&, auto& w) { w.inode(n, raw_inode(S_IFREG | 0600, 1)); });
        add(fmt::format("range of inode {}", n), [n](auto&, auto& w) { w.add_range(n, 0, 1, 9000); });
        add(fmt::format("range away from inode {}", n), [n](auto&, auto& w) { w.delete_range(n, 0, 1); });
        add(fmt::format("name for inode {}", n), [n](auto&, auto& w) { w.name(format::fc_link, 2, n, "x"); });
        add(fmt::format("name in inode {}", n), [n](FastCommitImage& i, auto& w) {
            if (n != 0 && n <= 512) w.name(format::fc_link, n, i.number("/grows"), "x");
            else w.name(format::fc_unlink, n, i.number("/grows"), "grows");
        });
    }
    for (const std::string& name : {std::string("."), std::string(".."), std::string("a/b"), std::string("a\0b", 3)})
        for (const auto type : {format::fc_create, format::fc_link, format::fc_unlink})
            add(fmt::format("the name {:?}", name),
                [=](FastCommitImage& i, auto& w) { w.name(type, 2, i.number("/grows"), name); });
    // Block 1 is the superblock; 300 is in the table of inodes; the last ones do not exist.
    for (const std::uint64_t block :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, std::uint64_t{60}, std::uint64_t{12287},
          std::uint64_t{12288}, std::uint64_t{1} << 33, std::uint64_t{0xFFFFFFFFFFFF}})
        add(fmt::format("blocks 20 from {}", block),
            [=](FastCommitImage& i, auto& w) { w.add_range(i.number("/grows"), 100, 20, block); });
    add("no blocks", [](FastCommitImage& i, auto& w) { w.add_range(i.number("/grows"), 100, 0, 9000); });
    add("blocks beyond the largest file",
        [](FastCommitImage& i, auto& w) { w.add_range(i.number("/grows"), 0xFFFFFFFF, 20, 9000); });
    add("a block of another file",
        [](FastCommitImage& i, auto& w) { w.add_range(i.number("/grows"), 100, 1, first_block_of(i, "/linked")); });
    add("the same block twice", [](FastCommitImage& i, auto& w) {
        w.add_range(i.number("/grows"), 100, 1, 9000);
        w.add_range(i.number("/grows"), 200, 1, 9000);
    });
    add("a range of a symlink's", [](auto&, auto& w) {
        w.inode(300, raw_inode(S_IFLNK | 0777, 1, 0));
        w.name(format::fc_create, 2, 300, "link");
        w.add_range(300, 0, 1, 9000);
    });
    add("another type", [](FastCommitImage& i, auto& w) { w.inode(i.number("/grows"), raw_inode(S_IFDIR | 0755, 2)); });
    add("another file", [](FastCommitImage& i, auto& w) {
        auto raw = raw_inode(S_IFREG | 0755, 1);
        view_as<format::InodeDisk>(Bytes(raw)).generation = 77u;
        w.inode(i.number("/grows"), raw);
    });
    add("no type", [](auto&, auto& w) { w.inode(300, raw_inode(0, 1)); });
    add("blocks of a file without extents", [](auto&, auto& w) {
        w.inode(300, raw_inode(S_IFREG | 0600, 1, 0));
        w.name(format::fc_create, 2, 300, "indirect");
        w.add_range(300, 0, 1, 9000);
    });
    add("extra bytes beyond the inode", [](auto&, auto& w) {
        auto raw = raw_inode(S_IFREG | 0600, 1);
        view_as<format::InodeDisk>(Bytes(raw)).extra_isize = std::uint16_t{200};
        w.inode(300, raw);
    });
    add("a larger inode", [](auto&, auto& w) { w.inode(300, std::vector<std::byte>(300, std::byte{1})); });
    add("attributes elsewhere", [](auto&, auto& w) {
        auto raw = raw_inode(S_IFREG | 0600, 1);
        view_as<format::InodeDisk>(Bytes(raw)).file_acl_lo = 5000u;
        w.inode(300, raw);
    });
    add("inline data without the feature",
        [](auto&, auto& w) { w.inode(300, raw_inode(S_IFREG | 0600, 1, 0x10000000)); });
    add("a file without a name", [](auto&, auto& w) { w.inode(300, raw_inode(S_IFREG | 0600, 1)); });
    add("a name for what is not there", [](auto&, auto& w) { w.name(format::fc_create, 2, 300, "nothing"); });
    add("a name that another has",
        [](FastCommitImage& i, auto& w) { w.name(format::fc_link, 2, i.number("/grows"), "linked"); });
    add("a name in a file",
        [](FastCommitImage& i, auto& w) { w.name(format::fc_link, i.number("/grows"), i.number("/linked"), "x"); });
    add("a directory in itself",
        [](FastCommitImage& i, auto& w) { w.name(format::fc_link, i.number("/goes"), i.number("/goes"), "x"); });
    add("the root in a directory",
        [](FastCommitImage& i, auto& w) { w.name(format::fc_link, i.number("/goes"), 2, "x"); });
    add("a directory below itself", [](FastCommitImage& i, auto& w) {
        w.name(format::fc_link, i.number("/goes"), i.number("/folder"), "x");
        w.name(format::fc_link, i.number("/folder"), i.number("/goes"), "y");
    });
    add("a directory that is not empty",
        [](FastCommitImage& i, auto& w) { w.name(format::fc_unlink, 2, i.number("/folder"), "folder"); });
    add("a directory with two names",
        [](FastCommitImage& i, auto& w) { w.name(format::fc_link, 2, i.number("/goes"), "twice"); });
    return out;
}

// Of images with clusters of four blocks. "/grows" has 20 of them, block 8000 begins a cluster that is free.
std::vector<Lie> lies_of_clusters() {
    return {{"a block that lies elsewhere in its cluster",
             [](FastCommitImage& i, auto& w) { w.add_range(i.number("/grows"), 100, 1, 8001); }},
            {"a block beside those of another file",
             [](FastCommitImage& i, auto& w) {
                 w.add_range(i.number("/grows"), 101, 1, first_block_of(i, "/linked") + 1);
             }},
            {"a cluster of the file at two places",
             [](FastCommitImage& i, auto& w) {
                 w.add_range(i.number("/grows"), 100, 2, 8000);
                 w.add_range(i.number("/grows"), 202, 1, 8002);
             }},
            {"a cluster of two files", [](FastCommitImage& i, auto& w) {
                 w.add_range(i.number("/grows"), 100, 1, 8000);
                 w.add_range(i.number("/linked"), 101, 1, 8001);
             }}};
}

// Its blocks are elsewhere now, and the tags tell so in two pieces: the cluster comes with the first, whole.
TEST(FastCommitClusters, OneThatMovedIsToldPieceByPiece) {
    FastCommitImage image(*clean(clustered));
    const std::uint32_t file = image.number("/grows");
    const std::uint64_t before = first_block_of(image, "/grows");
    image.writer().add_range(file, 0, 2, 8000);
    image.writer().add_range(file, 2, 2, 8002);
    image.writer().commit();
    const auto crashed = image.crashed();
    for (const bool mended : {false, true}) {
        if (mended) {
            const auto done = recover_by_mount(crashed);
            ASSERT_TRUE(done) << done.error().what;
        }
        const Tree tree = tree_of(crashed);
        for (const auto& [path, what] : tree) EXPECT_EQ(path[0], '/') << path << ": " << what;
        ASSERT_TRUE(tree.contains("/grows"));
        const std::string& runs = tree.at("/grows");
        EXPECT_NE(runs.find(" 0+4@8000"), std::string::npos) << runs;
        EXPECT_NE(runs.find(fmt::format(" 4+16@{}", before + 4)), std::string::npos) << runs;
    }
}

// Nothing of the commits is taken over; the error says which tag it is, each time.
void expect_refusal(const Lie& lie, int features) {
    FastCommitImage image(*clean(features));
    image.name(format::fc_link, "/", image.number("/linked"), "true so far");
    lie.tell(image, image.writer());
    image.writer().commit();
    const auto crashed = image.crashed();
    for (const char* options : {"ro", "", ""}) {
        const auto fs = mount_seed(crashed, options);
        ASSERT_FALSE(fs) << lie.what << " is believed";
        EXPECT_NE(fs.error().what.find("fast commit"), std::string::npos) << lie.what << ": " << fs.error().what;
        EXPECT_TRUE(fs.error().code == EUCLEAN || fs.error().code == EOPNOTSUPP) << lie.what << ": " << fs.error().what;
    }
    // The file system is what the last ordinary commit left.
    auto fs = mount_seed(crashed, "ro,noload");
    ASSERT_TRUE(fs) << lie.what;
    EXPECT_FALSE((*fs)->resolve("/true so far", root)) << lie.what;
    EXPECT_TRUE((*fs)->resolve("/linked", root)) << lie.what;
}

TEST(FastCommitLies, AreRefusedByName) {
    for (const Lie& lie : lies()) expect_refusal(lie, 0);
}
TEST(FastCommitLies, OfClustersAreRefusedByName) {
    for (const Lie& lie : lies_of_clusters()) expect_refusal(lie, clustered);
}

// The bytes of some tags changed, the sums made right. How many images opened.
unsigned change_any_bytes(int features, int rounds) {
    const auto& whole = everything(features);
    const FastCommitArea area = FastCommitArea::find(whole->clone());
    std::mt19937 random(7);
    const std::size_t used = 6u * 1024;
    unsigned opened = 0;
    for (int round = 0; round < rounds; ++round) {
        std::shared_ptr<MemoryDevice> device = whole->clone();
        std::vector<std::byte> bytes = area.read(*device);
        for (unsigned n = random() % 3 + 1; n > 0; --n) {
            const std::size_t at = random() % used;
            const std::byte old = bytes[at];
            bytes[at] = random() % 2 ? static_cast<std::byte>(random()) : old ^ std::byte(1u << random() % 8);
        }
        test::seal_fast_commits(bytes, area.block_size);
        area.write(*device, bytes);
        for (const auto& [path, what] : tree_of(device)) {
            const bool twice =
                what.find("more than one") != std::string::npos || what.find("twice") != std::string::npos;
            EXPECT_FALSE(path.starts_with("check") && twice) << round << ": " << path << ": " << what;
            opened += path == "/grows";
        }
        (void)recover_by_mount(device);
    }
    return opened;
}

// Refused, or a file system in which nothing belongs to two.
TEST(FastCommitLies, AnyBytesEndWithAnAnswer) {
    EXPECT_GT(change_any_bytes(0, 1500), 100u);
    EXPECT_GT(change_any_bytes(clustered, 500), 30u);
}

}  // namespace
}  // namespace uext4::hostile

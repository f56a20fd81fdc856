// The library on real images: written through it, judged by e2fsck and debugfs.
#include "api/file_system.h"

#include "inode/system_inode.h"
#include "tests/doubles/memory_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <thread>

namespace uext4::api_test {
namespace {

const Credentials root = Credentials::root();

std::string sh(const std::string& command, int* status = nullptr) {
    std::string out;
    FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    char buffer[4096];
    std::size_t n;
    while ((n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0) out.append(buffer, n);
    const int s = ::pclose(pipe);
    if (status) *status = WEXITSTATUS(s);
    return out;
}

class Api : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        path = fmt::format("/dev/shm/uext4-api-{}", ::getpid());
        int status = 0;
        const std::string out = sh(fmt::format("mke2fs -q -F {} {} 192M", GetParam(), path), &status);
        ASSERT_EQ(status, 0) << out;
    }
    void TearDown() override {
        fs.reset();
        ::unlink(path.c_str());
    }
    void mount(const std::string& options = "") {
        auto mounted = FileSystem::mount(path, options, [](const std::string& line) { ADD_FAILURE() << line; });
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    void unmount() {
        auto done = fs->unmount();
        EXPECT_TRUE(done) << done.error().what;
        fs.reset();
        check();
    }
    void check() {
        int status = 0;
        const std::string out = sh("e2fsck -fn " + path, &status);
        EXPECT_EQ(status, 0) << out;
    }
    std::unique_ptr<OpenFile> open(const std::string& name, int flags) {
        auto file = fs->open_path(name, flags, 0644, root);
        EXPECT_TRUE(file) << file.error().what;
        return file ? std::move(*file) : nullptr;
    }
    void write(const std::string& name, ConstBytes bytes, int flags = O_CREAT | O_WRONLY | O_TRUNC) {
        auto file = open(name, flags);
        ASSERT_TRUE(file);
        auto n = file->write(0, bytes);
        ASSERT_TRUE(n) << n.error().what;
        EXPECT_EQ(*n, bytes.size());
    }
    std::vector<std::byte> read(const std::string& name) {
        auto file = open(name, O_RDONLY);
        if (!file) return {};
        std::vector<std::byte> out(static_cast<std::size_t>(fs->attributes(file->inode())->st_size));
        auto n = file->read(0, out);
        EXPECT_TRUE(n) << n.error().what;
        return out;
    }
    static std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
        std::vector<std::byte> out(size);
        std::mt19937 random(seed);
        for (auto& b : out) b = static_cast<std::byte>(random());
        return out;
    }

    std::string path;
    std::unique_ptr<FileSystem> fs;
};

TEST_P(Api, EmptyMountLeavesItClean) {
    mount();
    unmount();
}

TEST_P(Api, WritesReadsAndSurvivesARemount) {
    mount();
    std::map<std::string, std::vector<std::byte>> files;
    const std::size_t sizes[] = {0,    1,    59,   60,   61,    100,   160,     1023,
                                 1024, 4095, 4096, 4097, 12345, 65536, 1000000, 5000001};
    unsigned seed = 1;
    for (std::size_t size : sizes) {
        const std::string name = fmt::format("/file-{}", size);
        files[name] = pattern(size, seed++);
        write(name, files[name]);
    }
    for (auto& [name, bytes] : files) EXPECT_EQ(read(name), bytes) << name;
    ASSERT_TRUE(fs->sync());
    for (auto& [name, bytes] : files) EXPECT_EQ(read(name), bytes) << name;
    unmount();
    mount();
    for (auto& [name, bytes] : files) EXPECT_EQ(read(name), bytes) << name;
    unmount();
    for (auto& [name, bytes] : files) {
        const std::string copy = path + ".out";
        sh(fmt::format("debugfs -R 'dump {} {}' {}", name, copy, path));
        // (debugfs writes the whole 60 bytes of smaller inline files.)
        const std::string original = path + ".in";
        FILE* out = std::fopen(original.c_str(), "w");
        std::fwrite(bytes.data(), 1, bytes.size(), out);
        std::fclose(out);
        EXPECT_EQ(sh(fmt::format("cmp -n {} {} {}", bytes.size(), original, copy)), "") << name;
        ::unlink(original.c_str());
        ::unlink(copy.c_str());
    }
}

TEST_P(Api, DirectoriesLinksAndRemovals) {
    mount();
    {
        auto top = fs->root();
        ASSERT_TRUE(top);
        for (int d = 0; d < 5; ++d) {
            auto dir = fs->create(**top, fmt::format("dir{}", d), S_IFDIR | 0755, 0, {}, root, true);
            ASSERT_TRUE(dir) << dir.error().what;
            for (int f = 0; f < 400; ++f) {
                auto file = fs->create(**dir, fmt::format("a-name-that-takes-some-room-{:06}", f), S_IFREG | 0644, 0,
                                       {}, root, true);
                ASSERT_TRUE(file) << file.error().what;
            }
            auto link = fs->create(**dir, "link", S_IFLNK, 0, "a-target", root, true);
            ASSERT_TRUE(link) << link.error().what;
            auto long_link = fs->create(**dir, "long", S_IFLNK, 0, std::string(500, 'x'), root, true);
            ASSERT_TRUE(long_link) << long_link.error().what;
        }
        auto dir = fs->resolve("/dir3", root);
        ASSERT_TRUE(dir);
        int seen = 0;
        ASSERT_TRUE(fs->read_directory(**dir, 0, [&](const DirectoryEntry&) { return ++seen, true; }));
        EXPECT_EQ(seen, 404);
        for (int f = 0; f < 400; f += 2) {
            auto gone = fs->unlink(**dir, fmt::format("a-name-that-takes-some-room-{:06}", f), root, true);
            ASSERT_TRUE(gone) << gone.error().what;
        }
        auto moved = fs->rename(**dir, "a-name-that-takes-some-room-000001", **top, "moved", 0, root, true);
        ASSERT_TRUE(moved) << moved.error().what;
        auto file = fs->resolve("/moved", root);
        ASSERT_TRUE(file);
        ASSERT_TRUE(fs->link(**file, **dir, "again", root, true));
    }
    unmount();
    mount();
    EXPECT_EQ(*fs->read_link(**fs->resolve("/dir1/long", root, false)), std::string(500, 'x'));
    unmount();
}

TEST_P(Api, AttributesAndRanges) {
    mount();
    const auto bytes = pattern(300000, 7);
    write("/f", bytes);
    {
        auto inode = fs->resolve("/f", root);
        ASSERT_TRUE(inode);
        for (int i = 0; i < 6; ++i) {
            auto set = fs->set_xattr(**inode, fmt::format("user.name{}", i),
                                     pattern(30 + 40u * static_cast<unsigned>(i), 3), 0, root, true);
            ASSERT_TRUE(set) << set.error().what;
        }
        EXPECT_EQ(*fs->get_xattr(**inode, "user.name3", root, true), pattern(150, 3));
        ASSERT_TRUE(fs->remove_xattr(**inode, "user.name2", root, true));
        EXPECT_EQ(fs->list_xattrs(**inode, root, true)->size(), 5u);
    }
    {
        auto file = open("/f", O_RDWR);
        ASSERT_TRUE(file->truncate(123456));
        ASSERT_TRUE(file->truncate(200000));
        auto expected = bytes;
        expected.resize(123456);
        expected.resize(200000);
        EXPECT_EQ(read("/f"), expected);
        auto punched = file->fallocate(3, 10000, 50000);
        ASSERT_TRUE(punched) << punched.error().what;
        std::fill(expected.begin() + 10000, expected.begin() + 60000, std::byte{0});
        EXPECT_EQ(read("/f"), expected);
        ASSERT_TRUE(file->sync(false));
        EXPECT_EQ(read("/f"), expected);
    }
    unmount();
}

// What a number names beside the files of the user: the journal, the orphan file, values of attributes ...
TEST_P(Api, TheFileSystemsOwnInodesAreLookedAtAndNotChanged) {
    mount("strictatime");
    write("/f", pattern(5000, 1));
    if (fs->volume().geometry().has_incompat(format::incompat::ea_inode)) {
        ASSERT_TRUE(fs->set_xattr(**fs->resolve("/f", root), "user.large", pattern(9000, 2), 0, root, true));
    }
    unsigned seen = 0;
    for (std::uint64_t number = 1; number < 40; ++number) {
        auto found = fs->resolve(fmt::format("<{}>", number), root);
        if (!found) continue;
        Inode& inode = **found;
        if (!is_system_inode(inode)) continue;
        ++seen;
        auto refused = [&](const auto& result) { EXPECT_TRUE(!result && result.error().code == EPERM) << number; };
        auto read_only = fs->open(*found, O_RDONLY, root, true);
        std::byte some[4096];
        if (number == format::special_inode::resize) refused(read_only);
        else EXPECT_TRUE(read_only && (*read_only)->read(0, some));
        AttributeChange mode;
        mode.mode = 0777;
        refused(fs->set_attributes(inode, mode, root, true));
        refused(fs->truncate(inode, 0, root, true));
        refused(fs->open(*found, O_RDWR, root, true));
        refused(fs->open(*found, O_RDONLY | O_TRUNC, root, true));
        refused(fs->link(inode, **fs->root(), "zz", root, true));
        refused(fs->set_xattr(inode, "user.a", pattern(10, 3), 0, root, true));
        refused(fs->remove_xattr(inode, "user.a", root, true));
        refused(fs->set_flags(inode, format::inode_flag::immutable, root, true));
    }
    const format::Geometry& g = fs->volume().geometry();
    const bool resize = g.has_compat(format::compat::resize_inode), values = g.has_incompat(format::incompat::ea_inode);
    EXPECT_EQ(seen, (g.journal_inode != 0) + (g.orphan_file_inode != 0) + resize + values);
    unmount();
}

// An image without them is given the features that what is stored needs; e2fsck would take it for damage otherwise.
TEST_P(Api, FeaturesComeWithWhatNeedsThem) {
    mount();
    write("/f", pattern(10, 1));
    {
        auto inode = fs->resolve("/f", root);
        ASSERT_TRUE(inode);
        auto set = fs->set_xattr(**inode, "user.name", pattern(700, 3), 0, root, true);
        ASSERT_TRUE(set) << set.error().what;
        auto large = fs->truncate(**inode, std::uint64_t{3} << 30, root, true);
        ASSERT_TRUE(large) << large.error().what;
    }
    unmount();
    const std::string told = sh("dumpe2fs -h " + path);
    EXPECT_NE(told.find(" ext_attr"), std::string::npos) << told;
    EXPECT_NE(told.find(" large_file"), std::string::npos) << told;
    mount();
    {
        auto inode = fs->resolve("/f", root);
        ASSERT_TRUE(inode);
        EXPECT_EQ(*fs->get_xattr(**inode, "user.name", root, true), pattern(700, 3));
        EXPECT_EQ(fs->attributes(**inode)->st_size, off_t{3} << 30);
    }
    unmount();
}

// A directory's order must be the same for whoever writes it next.
TEST_P(Api, TheHashOfNamesIsRecorded) {
    const bool indexed = std::string(sh("dumpe2fs -h " + path)).find("dir_index") != std::string::npos;
    sh("debugfs -w -R 'ssv flags 0' " + path);
    mount("ro");
    unmount();
    EXPECT_EQ(sh("dumpe2fs -h " + path).find("unsigned_directory_hash"), std::string::npos);
    mount();
    unmount();
    EXPECT_EQ(sh("dumpe2fs -h " + path).find("unsigned_directory_hash") != std::string::npos, indexed);
}

TEST_P(Api, ManyThreads) {
    mount();
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([this, t] {
            auto top = fs->root();
            auto dir = fs->create(**top, fmt::format("t{}", t), S_IFDIR | 0755, 0, {}, root, true);
            ASSERT_TRUE(dir) << dir.error().what;
            std::mt19937 random(static_cast<unsigned>(t));
            for (int i = 0; i < 300; ++i) {
                const std::string name = fmt::format("/t{}/f{}", t, random() % 40);
                const unsigned what = random() % 10;
                if (what < 6) {
                    auto file = fs->open_path(name, O_CREAT | O_RDWR, 0644, root);
                    ASSERT_TRUE(file) << file.error().what;
                    auto n = (*file)->write(random() % 100000, pattern(random() % 30000 + 1, random()));
                    ASSERT_TRUE(n) << n.error().what;
                    if (what == 0) {
                        auto synced = (*file)->sync(false);
                        ASSERT_TRUE(synced) << synced.error().what;
                    }
                } else if (what < 8) {
                    auto gone = fs->unlink(**dir, name.substr(4), root, true);
                    ASSERT_TRUE(gone || gone.error().code == ENOENT) << gone.error().what;
                } else {
                    auto inode = fs->resolve(name, root);
                    if (inode) {
                        auto cut = fs->truncate(**inode, random() % 50000, root, true);
                        ASSERT_TRUE(cut) << cut.error().what;
                    }
                }
            }
        });
    }
    for (auto& t : threads) t.join();
    unmount();
}

// What waits to be stored keeps no more inodes in memory than there may be anyway, by whatever door they come.
class ManyFiles : public Api {
protected:
    static constexpr int files = 12000;
    static std::string name(int i) { return fmt::format("/d{}/f{}", i / 1000, i); }

    void make_files() {
        mount("noatime");
        for (int i = 0; i < files; ++i) {
            if (i % 1000 == 0) {
                auto top = fs->resolve("/", root);
                ASSERT_TRUE(top);
                ASSERT_TRUE(fs->create(**top, fmt::format("d{}", i / 1000), S_IFDIR | 0755, 0, {}, root, true));
            }
            write(name(i), std::as_bytes(std::span("x", 1)));
            auto file = fs->resolve(name(i), root);
            ASSERT_TRUE(file);
            numbers.push_back((*file)->number());
        }
        unmount();
    }
    std::ptrdiff_t in_memory() {
        return std::ranges::count_if(numbers, [&](InodeNr n) { return bool(fs->volume().inodes().find(n)); });
    }

    std::vector<InodeNr> numbers;
};

TEST_P(ManyFiles, ReadOnceLeaveMemoryAgain) {
    ASSERT_NO_FATAL_FAILURE(make_files());
    mount("cache=4M,strictatime");
    const format::Timestamp before = current_time();
    for (int i = 0; i < files; ++i) {
        auto file = open(name(i), O_RDONLY);
        ASSERT_TRUE(file);
        std::byte byte{};
        ASSERT_EQ(file->read(0, Bytes(&byte, 1)).value_or(0), 1u);
    }
    EXPECT_LT(in_memory(), files / 2);
    unmount();
    mount("noatime");
    for (int i = 0; i < files; i += 7) {
        auto file = fs->resolve(name(i), root);
        ASSERT_TRUE(file);
        EXPECT_GE((*file)->atime(), before) << name(i);
    }
}

// Those that came first have folios, which are not taken for what only asks for an inode.
TEST_P(ManyFiles, LookedAtLeaveMemoryThoughOthersAreCached) {
    ASSERT_NO_FATAL_FAILURE(make_files());
    constexpr int kept = 4096, slack = 1024;  // of such a cache
    mount("cache=16M,noatime");
    for (int i = 0; i < kept; ++i) {
        auto file = open(name(i), O_RDONLY);
        ASSERT_TRUE(file);
        std::byte byte{};
        ASSERT_EQ(file->read(0, Bytes(&byte, 1)).value_or(0), 1u);
    }
    for (int i = kept; i < files; ++i) ASSERT_TRUE(fs->resolve(name(i), root));
    EXPECT_LE(in_memory(), kept + 2 * slack);
    unmount();
}

TEST_P(ManyFiles, ChangedOnceLeaveMemoryAgain) {
    ASSERT_NO_FATAL_FAILURE(make_files());
    const ConstBytes byte = std::as_bytes(std::span("y", 1));
    const auto written = [&](int i, int flags) {
        auto file = open(name(i), O_RDWR | flags);
        EXPECT_EQ(file->write(0, byte).value_or(0), 1u);
        return file;
    };
    struct Door {
        const char* name;
        std::function<void(int)> change;
    };
    const std::vector<Door> doors = {
        {"write, fdatasync", [&](int i) { EXPECT_TRUE(written(i, 0)->sync(true)); }},
        {"write", [&](int i) { written(i, 0); }},
        {"write, O_DSYNC", [&](int i) { written(i, O_DSYNC); }},
        {"allocation", [&](int i) { EXPECT_TRUE(open(name(i), O_RDWR)->fallocate(0, 0, 1, nullptr)); }},
        {"truncate", [&](int i) { EXPECT_TRUE(open(name(i), O_RDWR)->truncate(1, nullptr)); }},
        {"times",
         [&](int i) {
             AttributeChange change;
             change.mtime = format::Timestamp{1000, 0};
             EXPECT_TRUE(fs->set_attributes(*fs->resolve(name(i), root).value(), change, root, true));
         }},
        {"attribute",
         [&](int i) {
             EXPECT_TRUE(fs->set_xattr(*fs->resolve(name(i), root).value(), "user.a", byte, 0, root, true));
         }},
        {"link, rename, unlink",
         [&](int i) {
             const InodeRef directory = fs->resolve(fmt::format("/d{}", i / 1000), root).value();
             const InodeRef file = fs->resolve(name(i), root).value();
             EXPECT_TRUE(fs->link(*file, *directory, fmt::format("l{}", i), root, true));
             EXPECT_TRUE(
                 fs->rename(*directory, fmt::format("l{}", i), *directory, fmt::format("r{}", i), 0, root, true));
             EXPECT_TRUE(fs->unlink(*directory, fmt::format("r{}", i), root, true));
         }},
    };
    for (const Door& door : doors) {
        SCOPED_TRACE(door.name);
        mount("cache=4M,noatime");
        const auto bytes = [&] { return fs->volume().fs().inode_memory.load(); };
        ASSERT_TRUE(fs->resolve("/d0", root));
        std::uint64_t most = bytes();
        ASSERT_TRUE(fs->resolve(name(0), root));
        const std::uint64_t each = bytes() - most;
        ASSERT_GT(each, 0u);
        for (int i = 0; i < 2 * files; ++i) {
            door.change(i % files);
            most = std::max(most, bytes());
        }
        EXPECT_LT(most / each, files / 2);
        unmount();
    }
}

// With blocks smaller than a folio, what is cut off of one is in no transaction any more that would give it back.
class ManyCutFiles : public ManyFiles {};

TEST_P(ManyCutFiles, LeaveMemoryAgain) {
    ASSERT_NO_FATAL_FAILURE(make_files());
    mount("cache=4M,noatime,data=journal");
    const std::vector<std::byte> bytes(4096, std::byte{'c'});
    for (int i = 0; i < files; ++i) {
        write(name(i), bytes);
        auto file = fs->resolve(name(i), root);
        ASSERT_TRUE(file);
        ASSERT_TRUE(fs->truncate(**file, 1000, root, true));
    }
    EXPECT_LT(in_memory(), files / 2);
    unmount();
}

TEST_P(ManyFiles, StoredToOnceLeaveMemoryAgain) {
    constexpr std::size_t page = 4096;
    ASSERT_NO_FATAL_FAILURE(make_files());
    mount("cache=4M,noatime");
    for (int i = 0; i < files; ++i) {
        auto file = open(name(i), O_RDWR);
        auto memory = file->map(0, page, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (!memory) GTEST_SKIP() << memory.error().what;
        *static_cast<volatile char*>(*memory) = 'z';
        ASSERT_TRUE(ClientMaps::unmap(*memory, page));
    }
    // What was stored to is written back by a thread, which may have to wait for its turn; and each call thins them
    // out.
    for (int i = 0; i < 6000 && in_memory() >= files / 2; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        ASSERT_TRUE(fs->resolve("/", root));
    }
    EXPECT_LT(in_memory(), files / 2);
    unmount();
}

// Whoever writes one small file after the other pays for those before: no more is dirty than may be, and so reclaim
// finds what it wants without a look at everything, each time.
TEST_P(ManyFiles, WrittenOnceAreNotDirtyAllAtOnce) {
    ASSERT_NO_FATAL_FAILURE(make_files());
    mount("cache=4M,noatime");
    const PageCache& pages = fs->volume().fs().pages;
    std::uint64_t most_dirty = 0, most_used = 0;
    for (int i = 0; i < files; ++i) {
        write(name(i), std::as_bytes(std::span("y", 1)), O_WRONLY);
        most_dirty = std::max(most_dirty, pages.dirty_bytes());
        most_used = std::max(most_used, pages.used_bytes());
    }
    EXPECT_LE(most_dirty, pages.dirty_limit() + pages.folio_size());
    EXPECT_LE(most_used, pages.limit() + pages.limit() / 32);
    EXPECT_LE(pages.scanned_folios(), std::uint64_t{files} * 16);
    unmount();
    mount("noatime");
    for (int i = 0; i < files; i += 7) {
        EXPECT_EQ(read(name(i)), std::vector<std::byte>{std::byte{'y'}}) << name(i);
    }
}

INSTANTIATE_TEST_SUITE_P(Plain, ManyFiles, testing::Values("-t ext4 -b 4096 -N 20000"));
INSTANTIATE_TEST_SUITE_P(Small, ManyCutFiles, testing::Values("-t ext4 -b 1024 -N 20000 -J size=16"));
INSTANTIATE_TEST_SUITE_P(
    Formats, Api,
    testing::Values("-t ext4 -b 4096", "-t ext2 -b 4096", "-t ext3 -b 4096", "-t ext4 -b 1024", "-t ext4 -b 2048",
                    "-t ext4 -O inline_data -b 4096", "-t ext4 -O ^extents,^64bit -b 4096",
                    "-t ext4 -O bigalloc -C 16384 -b 4096", "-t ext4 -O meta_bg,^resize_inode -b 4096",
                    "-t ext4 -O ^metadata_csum,uninit_bg -b 4096", "-t ext4 -O ea_inode,large_dir -b 4096",
                    "-t ext4 -O ^has_journal -b 4096", "-t ext4 -I 128 -b 4096", "-t ext4 -O orphan_file -b 4096",
                    "-t ext4 -O inline_data -b 1024 -I 512", "-t ext4 -O ^ext_attr,^large_file -b 1024",
                    "-t ext2 -r 0 -b 1024", "-t ext2 -O none -b 4096", "-t ext2 -b 65536", "-t ext3 -b 32768"));

}  // namespace
}  // namespace uext4::api_test

// A rename that replaces something, on a device that cannot be read: all or nothing.
#include "tests/faults/faulty_mount.h"

#include <linux/fs.h>

#include <map>

namespace uext4::faults {
namespace {

struct Case {
    const char* name;
    const char* from_dir;
    const char* from;
    const char* to_dir;
    const char* to;
    unsigned flags;
};
const Case cases[] = {
    {"OverAFile", "/a", "file", "/a", "other", 0},
    {"OverAFileElsewhere", "/a", "file", "/b", "file", 0},
    {"OverALinkedFile", "/a", "file", "/b", "linked", 0},
    {"OverAnEmptyDirectory", "/a", "dir", "/a", "empty", 0},
    {"OverAnEmptyDirectoryElsewhere", "/a", "dir", "/b", "empty", 0},
    {"ExchangeOfFiles", "/a", "file", "/b", "file", RENAME_EXCHANGE},
    {"ExchangeInOneDirectory", "/a", "file", "/a", "dir", RENAME_EXCHANGE},
    {"ExchangeOfDirectories", "/a", "dir", "/b", "dir", RENAME_EXCHANGE},
    {"ExchangeOfBoth", "/a", "file", "/b", "dir", RENAME_EXCHANGE},
    {"Whiteout", "/a", "file", "/b", "file", RENAME_WHITEOUT},
    {"WhiteoutOfADirectory", "/a", "dir", "/b", "empty", RENAME_WHITEOUT},
    {"WhiteoutInOneDirectory", "/a", "file", "/a", "other", RENAME_WHITEOUT},
    {"ToANewName", "/a", "file", "/a", "new", 0},
    {"ADirectoryToANewNameElsewhere", "/a", "dir", "/b", "new", 0},
    {"WhiteoutBehindANewName", "/a", "file", "/a", "new", RENAME_WHITEOUT},
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

void fill(FaultyMount& m) {
    auto top = m.fs->root();
    ASSERT_TRUE(top);
    for (const char* name : {"a", "b"}) {
        auto dir = m.fs->create(**top, name, S_IFDIR | 0755, 0, "", root, false);
        ASSERT_TRUE(dir);
        // Of several blocks, and hashed.
        for (int i = 0; i < 80; ++i)
            ASSERT_TRUE(
                m.fs->create(**dir, fmt::format("a name that takes room {}", i), S_IFREG | 0644, 0, "", root, false));
        for (const char* sub : {"dir", "empty"})
            ASSERT_TRUE(m.fs->create(**dir, sub, S_IFDIR | 0755, 0, "", root, false));
        for (const char* file : {"file", "other", "linked"}) {
            auto made = m.fs->create(**dir, file, S_IFREG | 0644, 0, "", root, false);
            ASSERT_TRUE(made);
            if (std::string(file) == "linked") {
                ASSERT_TRUE(m.fs->link(**made, **dir, "second", root, false));
            }
        }
    }
    m.open("/a/file");
    ASSERT_TRUE(m.open("/b/file")->write(0, std::vector<std::byte>(5000)));
    ASSERT_TRUE(m.open("/b/dir/inside"));
}

// Every name with its inode, its links and, of a directory, its parent.
std::map<std::string, std::string> tree(FileSystem& fs) {
    std::map<std::string, std::string> out;
    for (const std::string dir : {"/a", "/b", "/a/dir", "/b/dir", "/a/file", "/b/file"}) {
        auto inode = fs.resolve(dir, root);
        if (!inode || !(*inode)->is_directory()) continue;
        std::vector<std::string> names;
        EXPECT_TRUE(fs.read_directory(**inode, 0, [&](const DirectoryEntry& entry) {
            names.emplace_back(entry.name);
            return true;
        }));
        for (const std::string& name : names) {
            auto child = fs.lookup(**inode, name, root, false);
            if (!child) {
                out[dir + "/" + name] = child.error().what;
                continue;
            }
            struct stat st{};
            (*child)->fill_stat(st);
            out[dir + "/" + name] = fmt::format("inode {} mode {:o} links {}", st.st_ino, st.st_mode, st.st_nlink);
        }
    }
    return out;
}

class Rename : public testing::TestWithParam<std::tuple<const char*, Case>> {};

TEST_P(Rename, IsDoneOrNotWhicheverReadFails) {
    const auto& [format, c] = GetParam();
    auto image = fresh_image(format);
    {
        FaultyMount m(image);
        ASSERT_TRUE(m.mount());
        fill(m);
        ASSERT_TRUE(m.fs->unmount());
    }
    bool done = false;
    unsigned failed = 0;
    for (std::uint64_t skip = 0; !done; ++skip) {
        ASSERT_LT(skip, 100u);
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount());
        const auto before = tree(*m.fs);
        auto from_dir = m.fs->resolve(c.from_dir, root), to_dir = m.fs->resolve(c.to_dir, root);
        ASSERT_TRUE(from_dir && to_dir);
        // Inodes that are in memory need their blocks to be stored: those are read again.
        auto source = m.fs->lookup(**from_dir, c.from, root, false), target = m.fs->lookup(**to_dir, c.to, root, false);
        m.fs->volume().fs().buffers.invalidate_all_clean();
        const auto fault = m.faulty->fail_reads(EIO, DeviceFault::for_good, skip);
        const auto result = m.fs->rename(**from_dir, c.from, **to_dir, c.to, c.flags, root, false);
        const bool hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        const std::string what = fmt::format("reads fail after {}", skip);
        done = !hit;
        if (hit) {
            ++failed;
            ASSERT_FALSE(result) << what;
            EXPECT_EQ(result.error().code, EIO) << what << ": " << result.error().what;
            EXPECT_EQ(tree(*m.fs), before) << what;
            EXPECT_FALSE(m.fs->read_only()) << what;
        } else {
            ASSERT_TRUE(result) << result.error().what;
            EXPECT_NE(tree(*m.fs), before);
        }
        source = {}, target = {}, from_dir = {}, to_dir = {};
        m.fs->volume().wait_for_deletions();
        const auto now = tree(*m.fs);
        ASSERT_TRUE(m.fs->unmount()) << what;
        expect_sound(m.memory, what);
        m.fs.reset();
        auto again = FileSystem::mount_device(m.memory, {});
        ASSERT_TRUE(again);
        EXPECT_EQ(tree(**again), now) << what;
        if (HasFailure()) return;
    }
    EXPECT_GE(failed, 3u);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, Rename,
    testing::Combine(testing::Values("-b 1024", "-b 4096 -O inline_data -I 256", "-b 1024 -O orphan_file"),
                     testing::ValuesIn(cases)),
    [](const auto& one) { return fmt::format("{}{}", std::get<1>(one.param).name, one.index / std::size(cases)); });

}  // namespace
}  // namespace uext4::faults

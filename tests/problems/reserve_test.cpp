// Problem I: where only blocks that are reserved for root are left, nobody else gets one, through no door; root does.
#include "settled_image.h"

#include "format/acl.h"

#include <algorithm>

namespace uext4::problems {
namespace {

constexpr std::size_t tries = 20;

struct Door {
    const char* name;
    const char* mke2fs;  // besides the size of a block
    void (*before)(FileSystem& fs, const std::string& path);
    Result<void> (*pass)(FileSystem& fs, const std::string& path, const Credentials& who);
};

Result<void> in_words(const auto& result) { return result ? Result<void>() : fail(result.error()); }

Result<std::unique_ptr<OpenFile>> opened(FileSystem& fs, const std::string& path, const Credentials& who,
                                         int flags = 0) {
    return fs.open_path(path, O_RDWR | flags, 0666, who);
}

// A file of the user's, with some bytes.
void a_file(FileSystem& fs, const std::string& path) {
    auto file = fs.open_path(path, O_CREAT | O_RDWR, 0666, user);
    ASSERT_TRUE(file) << file.error().what;
    ASSERT_TRUE((*file)->write(0, bytes_of("twenty bytes of them")));
}

std::vector<std::byte> long_acl() {
    format::Acl acl{{format::AclTag::user_obj, 6, 0}};
    for (std::uint32_t id = 2000; id < 2100; ++id) acl.push_back({format::AclTag::user, 6, id});
    acl.push_back({format::AclTag::group_obj, 4, 0});
    acl.push_back({format::AclTag::mask, 6, 0});
    acl.push_back({format::AclTag::other, 4, 0});
    return format::encode_xattr_acl(acl);
}

// A directory of the user's, whose new files inherit more than there is room for in an inode.
void a_directory(FileSystem& fs, const std::string& path) {
    auto root_directory = fs.root();
    auto made = fs.create(**root_directory, path.substr(1), S_IFDIR | 0777, 0, {}, user, true);
    ASSERT_TRUE(made) << made.error().what;
    ASSERT_TRUE(fs.create(**made, "first", S_IFREG | 0666, 0, {}, user, true));
    ASSERT_TRUE(fs.set_xattr(**made, "system.posix_acl_default", long_acl(), 0, user, true));
}

Result<void> sets(FileSystem& fs, const std::string& path, const char* name, ConstBytes value, const Credentials& who) {
    const InodeRef inode = TRY(fs.resolve(path, who));
    return fs.set_xattr(*inode, name, value, 0, who, true);
}

Result<void> fallocates(FileSystem& fs, const std::string& path, const Credentials& who) {
    auto file = TRY(opened(fs, path, who));
    TRY(file->fallocate(FALLOC_FL_KEEP_SIZE, 0, 2 * page));
    return file->sync(false);
}

constexpr const char* inlined = "-I 256 -O inline_data";
const Door doors[] = {
    {"attribute", "", a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) {
         return sets(fs, path, "user.a", bytes_of(pattern(3000, 1)), who);
     }},
    {"large attribute", "-O ea_inode", a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) {
         return sets(fs, path, "user.a", bytes_of(pattern(20000, 1)), who);
     }},
    {"access list", "", a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) {
         return sets(fs, path, "system.posix_acl_access", long_acl(), who);
     }},
    {"inherited access list", "", a_directory,
     [](FileSystem& fs, const std::string& path, const Credentials& who) {
         return in_words(fs.open_path(path + "/new", O_CREAT | O_RDWR, 0666, who));
     }},
    {"directory", "", [](FileSystem&, const std::string&) {},
     [](FileSystem& fs, const std::string& path, const Credentials& who) -> Result<void> {
         const InodeRef top = TRY(fs.root());
         return in_words(fs.create(*top, path.substr(1), S_IFDIR | 0777, 0, {}, who, true));
     }},
    {"long symlink", "", [](FileSystem&, const std::string&) {},
     [](FileSystem& fs, const std::string& path, const Credentials& who) -> Result<void> {
         const InodeRef top = TRY(fs.root());
         return in_words(fs.create(*top, path.substr(1), S_IFLNK | 0777, 0, std::string(300, 'x'), who, true));
     }},
    {"truncate out of the inode", inlined, a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) -> Result<void> {
         auto file = TRY(opened(fs, path, who));
         TRY(file->truncate(1 << 20));
         return file->sync(false);
     }},
    {"fallocate out of the inode", inlined, a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) { return fallocates(fs, path, who); }},
    {"punch out of the inode", inlined, a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) -> Result<void> {
         auto file = TRY(opened(fs, path, who));
         TRY(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 5));
         return file->sync(false);
     }},
    {"write out of the inode", inlined, a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) -> Result<void> {
         auto file = TRY(opened(fs, path, who));
         (void)TRY(file->write(0, bytes_of(pattern(page, 1))));
         return file->sync(false);
     }},
    {"fallocate", "", a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) { return fallocates(fs, path, who); }},
    {"write", "", a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) -> Result<void> {
         auto file = TRY(opened(fs, path, who));
         (void)TRY(file->write(page, bytes_of(pattern(page, 1))));
         return file->sync(false);
     }},
    {"direct write", "", a_file,
     [](FileSystem& fs, const std::string& path, const Credentials& who) -> Result<void> {
         auto file = TRY(opened(fs, path, who, O_DIRECT));
         Aligned memory(pattern(page, 1));
         return in_words(file->write(page, memory.bytes()));
     }},
};

class Reserve : public SettledImage, public testing::WithParamInterface<std::tuple<std::size_t, const char*>> {
protected:
    const Door& door() const { return doors[std::get<0>(GetParam())]; }
    const char* mode() const { return std::get<1>(GetParam()); }
    static std::string path(std::size_t i) { return fmt::format("/t{}", i); }
    SpaceCounts counts() { return fs->volume().counts(); }
    // What the user can have is gone, to the last block.
    void fill() {
        auto file = open("/fill", O_CREAT | O_RDWR, root);
        std::uint64_t at = 0;
        for (int turn = 0; turn < 100 && counts().available_blocks != 0; ++turn) {
            const std::uint64_t n = counts().available_blocks;
            if (!file->fallocate(FALLOC_FL_KEEP_SIZE, at, n * page, &root)) break;
            at += n * page;
            ok(fs->sync());
        }
        ASSERT_EQ(counts().available_blocks, 0U);
    }
};

TEST_P(Reserve, IsForRootAlone) {
    SCOPED_TRACE(door().name);
    make(fmt::format("-b 4096 -J size=4 -N 512 -m 20 {}", door().mke2fs), mode(), "16M");
    ok(fs->set_attributes(**fs->root(), {.mode = 0777}, root, false));
    for (std::size_t i = 0; i < 2 * tries; ++i) door().before(*fs, path(i));
    ok(fs->sync());
    fill();
    const std::uint64_t before = counts().free_blocks;
    ASSERT_GT(before, 500U);
    for (std::size_t i = 0; i < tries; ++i) {
        const Result<void> done = door().pass(*fs, path(i), user);
        EXPECT_FALSE(done) << i;
        if (!done) {
            EXPECT_EQ(done.error().code, ENOSPC) << done.error().what;
        }
    }
    ok(fs->sync());
    EXPECT_EQ(counts().free_blocks, before) << "blocks of the reserve are gone";
    for (std::size_t i = tries; i < 2 * tries; ++i) {
        const Result<void> done = door().pass(*fs, path(i), root);
        EXPECT_TRUE(done) << done.error().what;
    }
    ok(fs->sync());
    EXPECT_LE(counts().free_blocks + tries, before) << "root's need no block: this tests nothing";
    settle();
}

INSTANTIATE_TEST_SUITE_P(Doors, Reserve,
                         testing::Combine(testing::Range(std::size_t{0}, std::size(doors)),
                                          testing::Values("data=ordered", "data=journal")),
                         [](const auto& p) {
                             std::string name = doors[std::get<0>(p.param)].name;
                             std::ranges::replace(name, ' ', '_');
                             return name + "_" + (std::get<1>(p.param) + 5);
                         });

}  // namespace
}  // namespace uext4::problems

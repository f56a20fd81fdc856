// Names, inodes and attributes that are made or taken away, on a device that cannot be read: all or nothing.
#include "tests/faults/faulty_mount.h"

#include <functional>

namespace uext4::faults {
namespace {

std::vector<std::byte> value(std::size_t size, int letter) { return {size, static_cast<std::byte>(letter)}; }

Result<void> in_folder(FaultyMount& m, const std::function<Result<void>(Inode&)>& change,
                       const std::string& folder = "/folder") {
    const InodeRef inode = TRY(m.fs->resolve(folder, root));
    return change(*inode);
}
Result<void> make(FaultyMount& m, const std::string& name, mode_t mode, const std::string& target = "",
                  const std::string& folder = "/folder") {
    return in_folder(
        m,
        [&](Inode& inode) -> Result<void> {
            TRY(m.fs->create(inode, name, mode, 0, target, root, false));
            return {};
        },
        folder);
}
Result<void> set(FaultyMount& m, const std::string& path, const std::string& name, std::size_t size) {
    return in_folder(
        m, [&](Inode& inode) { return m.fs->set_xattr(inode, name, value(size, 'v'), 0, root, false); }, path);
}

struct Change {
    const char* name;
    std::function<Result<void>(FaultyMount&)> make;
};
const Change changes[] = {
    {"File", [](FaultyMount& m) { return make(m, "a new name that takes some room in its block", S_IFREG | 0644); }},
    {"FileInAFullFolder", [](FaultyMount& m) { return make(m, std::string(250, 'n'), S_IFREG | 0644, "", "/full"); }},
    {"FileInAFolderOfOneBlock",
     [](FaultyMount& m) { return make(m, std::string(250, 'n'), S_IFREG | 0644, "", "/block"); }},
    {"FileInADeepFolder", [](FaultyMount& m) { return make(m, std::string(250, 'n'), S_IFREG | 0644, "", "/deep"); }},
    {"UnlinkInADeepFolder",
     [](FaultyMount& m) {
         return in_folder(
             m, [&](Inode& inode) { return m.fs->unlink(inode, fmt::format("{:0>250}", 250), root, false); }, "/deep");
     }},
    {"Folder", [](FaultyMount& m) { return make(m, "new", S_IFDIR | 0755); }},
    {"ShortLink", [](FaultyMount& m) { return make(m, "new", S_IFLNK | 0777, "there"); }},
    {"LongLink", [](FaultyMount& m) { return make(m, "new", S_IFLNK | 0777, std::string(900, 'l')); }},
    {"UnderADefaultAcl", [](FaultyMount& m) { return make(m, "new", S_IFREG | 0666, "", "/acl"); }},
    {"Unnamed",
     [](FaultyMount& m) {
         return in_folder(m, [&](Inode& inode) -> Result<void> {
             TRY(m.fs->create_tmpfile(inode, S_IFREG | 0644, 0, root, false));
             return {};
         });
     }},
    {"HardLink",
     [](FaultyMount& m) {
         return in_folder(m, [&](Inode& inode) -> Result<void> {
             const InodeRef file = TRY(m.fs->resolve("/f", root));
             return m.fs->link(*file, inode, "another", root, false);
         });
     }},
    {"Unlink",
     [](FaultyMount& m) {
         return in_folder(m, [&](Inode& inode) { return m.fs->unlink(inode, "has attributes", root, false); });
     }},
    {"Rmdir",
     [](FaultyMount& m) { return in_folder(m, [&](Inode& inode) { return m.fs->rmdir(inode, "sub", root, false); }); }},
    {"SmallAttribute", [](FaultyMount& m) { return set(m, "/f", "user.small", 20); }},
    {"Attribute", [](FaultyMount& m) { return set(m, "/f", "user.new", 400); }},
    {"SharedAttribute", [](FaultyMount& m) { return set(m, "/folder/has attributes", "user.more", 100); }},
    {"NoAttribute",
     [](FaultyMount& m) {
         return in_folder(
             m, [&](Inode& inode) { return m.fs->remove_xattr(inode, "user.shared", root, false); },
             "/folder/has attributes");
     }},
    {"Mode",
     [](FaultyMount& m) {
         return in_folder(
             m,
             [&](Inode& inode) {
                 AttributeChange change;
                 change.mode = 0600;
                 return m.fs->set_attributes(inode, change, root, false);
             },
             "/f");
     }},
    {"InlineGrows",
     [](FaultyMount& m) -> Result<void> {
         auto file = TRY(m.fs->open_path("/short", O_RDWR, 0, root));
         (void)TRY(file->write(30, value(3000, 'i')));
         return file->sync(false);
     }},
};
// Values in inodes of their own.
const Change of_values[] = {
    {"Value", [](FaultyMount& m) { return set(m, "/f", "user.large", 3000); }},
    {"ValueBesideOthers", [](FaultyMount& m) { return set(m, "/folder/big", "user.larger", 3500); }},
    {"SmallInPlaceOfAValue", [](FaultyMount& m) { return set(m, "/folder/big", "user.large", 30); }},
    {"NoValue",
     [](FaultyMount& m) {
         return in_folder(
             m, [&](Inode& inode) { return m.fs->remove_xattr(inode, "user.large", root, false); }, "/folder/big");
     }},
    {"UnlinkWithValues",
     [](FaultyMount& m) {
         return in_folder(m, [&](Inode& inode) { return m.fs->unlink(inode, "big", root, false); });
     }},
};
void PrintTo(const Change& c, std::ostream* out) { *out << c.name; }

void fill(FaultyMount& m) {
    for (const char* folder : {"folder", "full", "block", "deep", "acl"})
        ASSERT_TRUE(make(m, folder, S_IFDIR | 0755, "", "/"));
    ASSERT_TRUE(make(m, "sub", S_IFDIR | 0755));
    for (int i = 0; i < 60; ++i) ASSERT_TRUE(make(m, fmt::format("{:0>200}", i), S_IFREG | 0644, "", "/full"));
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(make(m, fmt::format("{:0>250}", i), S_IFREG | 0644, "", "/block"));
    // Its index has two levels, where directories have indexes.
    ASSERT_TRUE(make(m, "target", S_IFREG | 0644, "", "/"));
    auto deep = m.fs->resolve("/deep", root), target = m.fs->resolve("/target", root);
    ASSERT_TRUE(deep && target);
    for (int i = 0; i < 500; ++i) ASSERT_TRUE(m.fs->link(**target, **deep, fmt::format("{:0>250}", i), root, false));
    ASSERT_TRUE(m.open("/f")->write(0, value(5000, 'f')));
    ASSERT_TRUE(m.open("/short")->write(0, value(40, 's')));
    for (const char* name : {"has attributes", "shares them"}) {
        ASSERT_TRUE(make(m, name, S_IFREG | 0644));
        ASSERT_TRUE(set(m, std::string("/folder/") + name, "user.shared", 500));
    }
    ASSERT_TRUE(make(m, "big", S_IFREG | 0644));
    if (m.fs->volume().geometry().has_incompat(format::incompat::ea_inode))
        for (const char* name : {"user.large", "user.also"}) {
            ASSERT_TRUE(set(m, "/folder/big", name, 3000));
        }
    const unsigned char acl[] = {2, 0, 0,    0,    1,    0,    7,    0, 0xff, 0xff, 0xff, 0xff, 2,    0,    6,
                                 0, 1, 0,    0,    0,    4,    0,    5, 0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,
                                 7, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 5,    0,    0xff, 0xff, 0xff, 0xff};
    auto folder = m.fs->resolve("/acl", root);
    ASSERT_TRUE(folder);
    auto set_acl = m.fs->set_xattr(**folder, "system.posix_acl_default", std::as_bytes(std::span(acl)), 0, root, false);
    ASSERT_TRUE(set_acl) << set_acl.error().what;
}

class Names : public testing::TestWithParam<std::tuple<const char*, Change>> {};

TEST_P(Names, AreThereOrNotWhicheverReadFails) {
    const auto& [format, change] = GetParam();
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
        ASSERT_LT(skip, 200u);
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount());
        const std::string what = fmt::format("reads fail after {}", skip);
        std::vector<InodeRef> known;  // in memory, so that their blocks are read in the change
        for (const char* path : {"/", "/folder", "/full", "/block", "/deep", "/acl", "/f", "/short",
                                 "/folder/has attributes", "/folder/big"}) {
            auto inode = m.fs->resolve(path, root);
            ASSERT_TRUE(inode);
            known.push_back(*inode);
        }
        // What loses its name has nobody else who keeps it from being deleted at once.
        if (std::string_view(change.name).starts_with("Unlink")) known.clear();
        m.fs->volume().fs().buffers.invalidate_all_clean();
        const auto fault = m.faulty->fail_reads(EIO, DeviceFault::for_good, skip);
        auto result = change.make(m);
        m.fs->volume().wait_for_deletions();
        const bool hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        done = !hit;
        failed += hit;
        EXPECT_TRUE(result || hit) << result.error().what;
        EXPECT_FALSE(m.fs->read_only()) << what;
        if (!result) {
            EXPECT_EQ(result.error().code, EIO) << what << ": " << result.error().what;
            auto again = change.make(m);
            EXPECT_TRUE(again) << what << ": " << again.error().what;
        }
        known.clear();
        m.fs->volume().wait_for_deletions();
        auto closed = m.fs->unmount();
        EXPECT_TRUE(closed) << what << ": " << closed.error().what;
        expect_sound(m.memory, what);
        if (HasFailure()) return;
    }
    EXPECT_GE(failed, 1u);
}

INSTANTIATE_TEST_SUITE_P(Faults, Names,
                         testing::Combine(testing::Values("-b 1024", "-b 1024 -O inline_data -I 256",
                                                          "-b 1024 -O ^extents,^64bit,^dir_index -I 128",
                                                          "-b 1024 -O ea_inode,orphan_file -I 256"),
                                          testing::ValuesIn(changes)),
                         [](const auto& one) {
                             return fmt::format("{}{}", std::get<1>(one.param).name, one.index / std::size(changes));
                         });

INSTANTIATE_TEST_SUITE_P(Values, Names,
                         testing::Combine(testing::Values("-b 1024 -O ea_inode,orphan_file -I 256"),
                                          testing::ValuesIn(of_values)),
                         [](const auto& one) { return std::string(std::get<1>(one.param).name); });

}  // namespace
}  // namespace uext4::faults

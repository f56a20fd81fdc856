// Who asks: per mount and per call, with each capability by itself, in C and in C++. And devices of the caller's in
// which the file system does not lie at the start.
#include <uext4/uext4.hpp>

#include <gtest/gtest.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <string>
#include <vector>

namespace {

std::string scratch(const char* what) {
    return std::string("/dev/shm/uext4-capi-") + what + "-" + std::to_string(::getpid());
}
int shell(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()); }

class Identities : public testing::Test {
protected:
    void SetUp() override {
        path = scratch("identity");
        ASSERT_EQ(shell("mke2fs -q -F -t ext4 -b 4096 " + path + " 32M"), 0);
        ASSERT_EQ(uext4_mount(path.c_str(), nullptr, &fs), 0) << uext4_strerror();
        ASSERT_EQ(uext4_mkdir(fs, "/private", 0700), 0);
    }
    void TearDown() override {
        EXPECT_EQ(uext4_set_thread_identity(nullptr), 0);
        EXPECT_EQ(uext4_umount(fs), 0) << uext4_strerror();
        EXPECT_EQ(shell("e2fsck -fn " + path), 0);
        ::unlink(path.c_str());
    }
    static uext4_credentials with(std::uint64_t capabilities, uid_t uid = 1000) {
        uext4_credentials who{};
        who.size = sizeof who;
        who.uid = who.gid = uid;
        who.umask = 027;
        who.capabilities = capabilities;
        return who;
    }
    std::string path;
    uext4_fs* fs = nullptr;
};

TEST_F(Identities, EachCapabilityIsOne) {
    auto as = [&](std::uint64_t capabilities, auto&& call) {
        const uext4_credentials who = with(capabilities);
        EXPECT_EQ(uext4_set_thread_credentials(&who), 0) << uext4_strerror();
        const int result = call();
        EXPECT_EQ(uext4_set_thread_credentials(nullptr), 0);
        return result;
    };
    uext4_file* file = nullptr;
    ASSERT_EQ(uext4_open(fs, "/private/f", O_CREAT | O_RDWR, 0600, &file), 0);
    ASSERT_EQ(uext4_close(file), 0);
    ASSERT_EQ(uext4_mkdir(fs, "/fixed", 0755), 0);
    struct {
        const char* name;
        std::uint64_t capability;
        int refused;
        std::function<int()> call;
    } const all[] = {
        {"chown", UEXT4_CAP_CHOWN, -EPERM, [&] { return uext4_chown(fs, "/private", 0, 5); }},
        {"dac_override", UEXT4_CAP_DAC_OVERRIDE, -EACCES, [&] { return uext4_mkdir(fs, "/private/sub", 0755); }},
        {"dac_read_search", UEXT4_CAP_DAC_READ_SEARCH, -EACCES, [&] { return uext4_access(fs, "/private/f", R_OK); }},
        {"fowner", UEXT4_CAP_FOWNER, -EPERM, [&] { return uext4_chmod(fs, "/private", 0701); }},
        {"linux_immutable", UEXT4_CAP_LINUX_IMMUTABLE | UEXT4_CAP_FOWNER, -EPERM,
         [&] {
             unsigned flags = 0;
             if (const int r = uext4_getflags(fs, "/fixed", &flags)) return r;
             return uext4_setflags(fs, "/fixed", flags ^ 0x10u);
         }},
        {"mknod", UEXT4_CAP_MKNOD | UEXT4_CAP_DAC_OVERRIDE, -EACCES,
         [&] { return uext4_mknod(fs, "/node", S_IFCHR | 0600, makedev(1, 3)); }},
        {"sys_admin", UEXT4_CAP_SYS_ADMIN | UEXT4_CAP_DAC_OVERRIDE, -EPERM,
         [&] { return uext4_setxattr(fs, "/private", "trusted.a", "b", 1, 0); }},
    };
    for (const auto& one : all) {
        EXPECT_EQ(as(0, one.call), one.refused) << one.name << ": " << uext4_strerror();
        EXPECT_EQ(as(UEXT4_CAP_ALL & ~one.capability, one.call) != 0, one.capability != UEXT4_CAP_DAC_READ_SEARCH)
            << one.name;
        EXPECT_EQ(as(one.capability, one.call), 0) << one.name << ": " << uext4_strerror();
    }
}

TEST_F(Identities, ARootWithoutCapabilitiesIsNoRoot) {
    const uext4_credentials bare = with(0, 0), other = with(0, 1000);
    ASSERT_EQ(uext4_mkdir(fs, "/theirs", 0700), 0);
    ASSERT_EQ(uext4_chown(fs, "/theirs", 1000, 1000), 0);
    EXPECT_EQ(uext4_set_credentials(fs, &bare), 0);
    EXPECT_EQ(uext4_mkdir(fs, "/theirs/x", 0755), -EACCES);
    EXPECT_EQ(uext4_mkdir(fs, "/private/x", 0777), 0) << "its owner";
    // The thread's goes before the mount's, and another thread has the mount's.
    EXPECT_EQ(uext4_set_thread_credentials(&other), 0);
    EXPECT_EQ(uext4_mkdir(fs, "/theirs/x", 0777), 0);
    EXPECT_EQ(std::async(std::launch::async, [&] { return uext4_mkdir(fs, "/theirs/y", 0755); }).get(), -EACCES);
    EXPECT_EQ(uext4_set_thread_credentials(nullptr), 0);
    EXPECT_EQ(uext4_mkdir(fs, "/theirs/y", 0755), -EACCES);
    EXPECT_EQ(uext4_set_credentials(fs, nullptr), 0);
    EXPECT_EQ(uext4_mkdir(fs, "/theirs/y", 0755), 0);
    struct stat st{};
    EXPECT_EQ(uext4_stat(fs, "/theirs/x", &st), 0);
    EXPECT_EQ(st.st_mode & 07777, 0750u) << "the umask";
    EXPECT_EQ(st.st_uid, 1000u);
}

TEST_F(Identities, VersionsAndNonsense) {
    struct Later {
        uext4_credentials known;
        std::uint64_t more;
    } later{with(0), 0};
    later.known.size = sizeof later;
    EXPECT_EQ(uext4_set_thread_credentials(&later.known), 0) << "nothing new is asked for";
    later.more = 1;
    EXPECT_EQ(uext4_set_thread_credentials(&later.known), -E2BIG);
    EXPECT_EQ(uext4_mkdir(fs, "/private/x", 0755), -EACCES) << "what was set stays";
    uext4_credentials bad = with(0);
    bad.size = 8;
    EXPECT_EQ(uext4_set_thread_credentials(&bad), -EINVAL);
    bad = with(UINT64_C(1) << 12);
    EXPECT_EQ(uext4_set_thread_credentials(&bad), -EINVAL);
    EXPECT_EQ(uext4_set_credentials(fs, &bad), -EINVAL);
    bad = with(0);
    const gid_t group = 5;
    bad.groups = &group;
    bad.group_count = SIZE_MAX;
    EXPECT_EQ(uext4_set_credentials(fs, &bad), -EINVAL);
    EXPECT_EQ(uext4_set_credentials(nullptr, nullptr), -EINVAL);
    EXPECT_EQ(uext4_set_thread_credentials(nullptr), 0);
}

TEST(Cplusplus, IdentitiesPerMountAndPerCall) {
    const std::string path = scratch("cpp");
    ASSERT_EQ(shell("mke2fs -q -F -t ext4 -b 4096 " + path + " 32M"), 0);
    auto fs = uext4::FileSystem::mount(path);
    ASSERT_TRUE(fs) << fs.error().message;
    ASSERT_TRUE(fs->create_directory("/private", 0700));
    ASSERT_TRUE(fs->set_owner("/private", 1000, 7));
    ASSERT_TRUE(fs->set_mode("/private", 0770));
    auto code = [&](const char* name) {
        auto made = fs->create_directory(name);
        return made ? 0 : made.error().code;
    };
    ASSERT_TRUE(fs->set_identity({.uid = 2000, .gid = 2000}));
    EXPECT_EQ(code("/private/a"), EACCES);
    {
        auto member = uext4::ActingAs::begin({.uid = 2000, .gid = 2000, .groups = {7}, .umask = 077});
        ASSERT_TRUE(member) << member.error().message;
        EXPECT_EQ(code("/private/a"), 0);
        {
            auto outsider = uext4::ActingAs::begin({.uid = 3000, .gid = 3000});
            ASSERT_TRUE(outsider);
            EXPECT_EQ(code("/private/b"), EACCES);
            auto able = uext4::ActingAs::begin({.uid = 3000, .gid = 3000, .capabilities = UEXT4_CAP_DAC_OVERRIDE});
            ASSERT_TRUE(able);
            EXPECT_EQ(code("/private/b"), 0);
        }
        EXPECT_EQ(code("/private/c"), 0) << "the member's again";
        EXPECT_FALSE(uext4::ActingAs::begin({.capabilities = UINT64_C(1) << 40}));
        EXPECT_EQ(code("/private/d"), 0);
    }
    EXPECT_EQ(code("/private/e"), EACCES) << "the mount's again";
    ASSERT_TRUE(fs->act_as_root());
    EXPECT_EQ(code("/private/e"), 0);
    EXPECT_EQ(fs->status("/private/a")->st_mode & 07777, 0700u);
    EXPECT_TRUE(fs->unmount());
    EXPECT_EQ(shell("e2fsck -fn " + path), 0);
    ::unlink(path.c_str());
}

TEST(CDevice, OptionsSayWhereTheFileSystemLies) {
    const std::string path = scratch("offset");
    constexpr std::uint64_t offset = 1 << 20, size = 32 << 20;
    ASSERT_EQ(shell("rm -f " + path + "; truncate -s 33M " + path +
                    "; mke2fs -q -F -t ext4 -b 1024 -E offset=1048576 " + path + " 32M"),
              0);
    std::vector<char> memory(offset + size);
    std::FILE* image = std::fopen(path.c_str(), "rb");
    ASSERT_NE(image, nullptr);
    ASSERT_EQ(std::fread(memory.data(), 1, memory.size(), image), memory.size());
    std::fclose(image);
    ::unlink(path.c_str());
    const std::vector<char> before(memory.begin(), memory.begin() + offset);
    uext4_device device{};
    device.context = memory.data();
    device.size = memory.size();
    device.read = [](void* c, void* b, size_t n, uint64_t at) {
        std::memcpy(b, static_cast<char*>(c) + at, n);
        return 0;
    };
    device.write = [](void* c, const void* b, size_t n, uint64_t at) {
        std::memcpy(static_cast<char*>(c) + at, b, n);
        return 0;
    };
    uext4_fs* fs = nullptr;
    EXPECT_LT(uext4_mount_device(&device, nullptr, &fs), 0);
    for (const char* beyond : {"offset=64M", "offset=34603008"})
        EXPECT_EQ(uext4_mount_device(&device, beyond, &fs), -EINVAL) << beyond;
    ASSERT_EQ(uext4_mount_device(&device, "offset=1M", &fs), 0) << uext4_strerror();
    EXPECT_EQ(uext4_mkdir(fs, "/d", 0755), 0);
    EXPECT_EQ(uext4_umount(fs), 0);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), memory.begin())) << "what lies before it";
    // A backup, when the superblock is gone: in units of 1 KiB from the file system's start.
    std::memset(memory.data() + offset + 1024, 0, 1024);
    EXPECT_LT(uext4_mount_device(&device, "offset=1M,ro", &fs), 0);
    ASSERT_EQ(uext4_mount_device(&device, "offset=1M,sb=8193,ro", &fs), 0) << uext4_strerror();
    struct stat st{};
    EXPECT_EQ(uext4_stat(fs, "/d", &st), 0);
    EXPECT_EQ(uext4_umount(fs), 0);
}

}  // namespace

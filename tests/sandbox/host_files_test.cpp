// A verb that copies reaches the files of the host that are named, and no others, whatever it is made to ask for.
#include "device/file_device.h"
#include "sandbox/host_changer.h"
#include "sandbox/host_changes.h"
#include "sandbox/sandbox.h"
#include "tests/sandbox/sandboxed.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

namespace uext4::sandboxed {
namespace {

// The one socket that a process in the sandbox has: to the process that makes the changes.
int socket_of_changes() {
    for (int fd = 3; fd < 64; ++fd)
        if (struct stat info{}; ::syscall(SYS_fstat, fd, &info) == 0 && S_ISSOCK(info.st_mode)) return fd;
    return -1;
}

struct Asked {
    const char* what;
    ChangeRequest request;
    std::string folder, name, attribute{};
    bool whole = true;
    std::string other_folder{}, other_name = ".", value{};
};

// The answer; -1 where there is none.
int answer_to(int socket, Asked asked) {
    const auto add = [](std::uint32_t& size, const std::string& text) {
        size += static_cast<std::uint32_t>(text.size());
        return text;
    };
    ChangeRequest& request = asked.request;
    const std::string texts = add(request.at.folder_size, asked.folder) + add(request.at.name_size, asked.name) +
                              add(request.other.folder_size, asked.other_folder) +
                              add(request.other.name_size, asked.other_name) +
                              add(request.attribute_size, asked.attribute) + add(request.value_size, asked.value);
    std::string message(reinterpret_cast<const char*>(&request), sizeof request);
    message += texts;
    if (!asked.whole) message.pop_back();
    std::int32_t error = 0;
    if (::send(socket, message.data(), message.size(), MSG_NOSIGNAL) < 0) return -1;
    return ::recv(socket, &error, sizeof error, 0) == sizeof error ? error : -1;
}

ChangeRequest request(std::uint32_t kind, std::uint32_t place = 0, std::uint32_t mode = 04777) {
    ChangeRequest out;
    out.kind = kind;
    out.at.place = place;
    out.permissions = mode;
    out.uid = out.gid = ::geteuid();
    return out;
}

// With files of the host within reach everything else is shut as well, and so is what was not named.
class HostFilesTest : public Sandbox {
protected:
    void SetUp() override {
        Sandbox::SetUp();
        folder = path + "-folder";
        ASSERT_EQ(::mkdir(folder.c_str(), 0755), 0);
        ASSERT_EQ(::symlink(folder.c_str(), (folder + "/link").c_str()), 0);
    }
    void TearDown() override {
        std::filesystem::remove_all(folder);
        Sandbox::TearDown();
    }
    static bool has_landlock() {
        return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 2;
    }
    static std::vector<std::string> others_that_are_open(bool opens) {
        static const std::set<std::string> opening{"open", "openat", "creat"};
        static const std::set<std::string> of_files{"stat",
                                                    "lstat",
                                                    "newfstatat",
                                                    "newfstatat of a link",
                                                    "newfstatat of the current directory",
                                                    "newfstatat beside AT_EMPTY_PATH",
                                                    "statx",
                                                    "access",
                                                    "faccessat",
                                                    "faccessat2",
                                                    "readlink",
                                                    "readlinkat",
                                                    "statfs",
                                                    "getcwd",
                                                    "getxattr",
                                                    "listxattr"};
        std::vector<std::string> wrong;
        for (const Way& way : ways_out()) {
            if (of_files.contains(way.name) || (opens && opening.contains(way.name))) continue;
            const long result = way.go();
            if (result >= 0 || (errno != EPERM && way.name != std::string("clone3")))
                wrong.push_back(fmt::format("{} gave {} ({})", way.name, result, std::strerror(errno)));
        }
        if (::chroot("/") == 0 || ::sethostname("hostile", 7) == 0) wrong.emplace_back("a capability is left");
        return wrong;
    }
    // Opens that have to fail, as far as they have not.
    static void expect_shut(std::vector<std::string>& wrong, const std::string& place, int flags) {
        const int fd = ::open(place.c_str(), flags | O_CLOEXEC, 0600);
        if (fd < 0 && (errno == EACCES || errno == EPERM)) return;
        wrong.push_back(fmt::format("open of {} with {:o}: {}", place, flags, std::strerror(fd < 0 ? errno : 0)));
        if (fd >= 0) ::close(fd);
    }
    // No name is made or taken away by the process itself.
    void expect_names_shut(std::vector<std::string>& wrong, const std::string& there) const {
        const std::string made = folder + "/by itself";
        const auto shut = [&](int result, const char* what) {
            if (result == 0 || errno != EPERM) wrong.emplace_back(what);
        };
        shut(::mkdir(made.c_str(), 0700), "mkdir");
        shut(::unlink(there.c_str()), "unlink");
        shut(::rmdir(folder.c_str()), "rmdir");
        shut(::rename(there.c_str(), made.c_str()), "rename");
        shut(::renameat2(AT_FDCWD, there.c_str(), AT_FDCWD, made.c_str(), RENAME_NOREPLACE), "renameat2");
        shut(::link(there.c_str(), made.c_str()), "link");
        shut(::linkat(opened_before, "", AT_FDCWD, made.c_str(), AT_EMPTY_PATH), "linkat");
        shut(::symlink("x", made.c_str()), "symlink");
        shut(::mknod(made.c_str(), S_IFREG | 0600, 0), "mknod");
        shut(::mknod(made.c_str(), S_IFCHR | 0600, makedev(1, 3)), "mknod of a device");
        shut(::truncate(there.c_str(), 0), "truncate");
    }
    std::string folder;
};

TEST_F(HostFilesTest, SourcesAreReadAndNothingElse) {
    in_child([&]() -> std::vector<std::string> {
        HostFiles named;
        named.readable = {path, folder, "/dev/null", path + "-none"};
        if (auto entered = enter_sandbox(SandboxProfile::sources, named); !entered) return {entered.error().what};
        std::vector<std::string> wrong = others_that_are_open(true);
        struct stat info{};
        char text[4096];
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0 || ::read(fd, text, sizeof text) != sizeof text) wrong.emplace_back("the source cannot be read");
        if (::stat(path.c_str(), &info) != 0 || info.st_size != 1 << 20) wrong.emplace_back("it has no size");
        std::error_code error;
        if (std::filesystem::directory_iterator(folder, error) == std::filesystem::directory_iterator())
            wrong.emplace_back("a folder cannot be listed");
        for (const int flags : {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_RDONLY | O_CREAT, O_WRONLY | O_APPEND})
            expect_shut(wrong, path, flags);
        expect_shut(wrong, folder, O_TMPFILE | O_RDWR);
        expect_shut(wrong, folder + "/new", O_CREAT | O_RDWR);
        for (const char* place : {"/proc/sys/kernel/core_pattern", "/proc/self/mem", "/etc/shadow"})
            expect_shut(wrong, place, O_WRONLY);
        if (has_landlock())
            for (const char* place : {"/etc/passwd", "/proc/self/maps", "/dev/zero", "/"})
                expect_shut(wrong, place, O_RDONLY);
        if (::chmod(path.c_str(), 0640) == 0) wrong.emplace_back("chmod");
        if (::unlink((folder + "/link").c_str()) == 0) wrong.emplace_back("unlink");
        if (::mkdir((folder + "/made").c_str(), 0700) == 0) wrong.emplace_back("mkdir");
        return wrong;
    });
}

TEST_F(HostFilesTest, OnlyTheTargetIsWritten) {
    std::vector<std::string> others{
        "/proc/sys/kernel/core_pattern", "/proc/self/mem", "/etc/shadow", "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",     "/dev/null",      path,          path + "-new"};
    // A container may lack some: without the folder there is nothing to be refused.
    std::erase_if(others, [](const std::string& place) {
        return !std::filesystem::exists(std::filesystem::path(place).parent_path());
    });
    for (const bool give_away : {false, true}) {
        in_child([&]() -> std::vector<std::string> {
            HostFiles named;
            named.writable = {folder};
            named.whole_trees = true;
            named.may_chown = named.special_modes = give_away;
            if (auto entered = enter_sandbox(SandboxProfile::files, named); !entered) return {entered.error().what};
            std::vector<std::string> wrong = others_that_are_open(false);
            const std::string made = fmt::format("{}/made-{}", folder, give_away), below = made + "/below";
            const int fd = make_folder(made) == 0 ? open_contents(below, false) : -1;
            if (fd < 0 || ::write(fd, "x", 1) != 1 || change_mode(below, 0640) != 0 ||
                make_link(below, made + "-linked") != 0 || remove_file(below) != 0 ||
                make_symlink("below", below) != 0 || remove_file(below) != 0 || make_node(below, S_IFIFO, 0) != 0)
                wrong.push_back(fmt::format("the target cannot be written: {}", std::strerror(errno)));
            expect_names_shut(wrong, below);
            // A program that runs as somebody else, or a folder that keeps others' names, is nothing that a copy of
            // bytes makes.
            for (const mode_t special : {02750, 01700})
                if ((change_mode(made, special) == 0) != give_away) wrong.emplace_back("special bits");
            const bool node = make_node(made + "-device", S_IFCHR, makedev(1, 3)) == 0;
            if (node != (::geteuid() == 0)) wrong.emplace_back(node ? "mknod" : "mknod is refused");
            if (!give_away && change_owner(folder, ::geteuid(), ::getegid()) == 0) wrong.emplace_back("chown");
            for (const std::string& place : others) {
                expect_shut(wrong, place, O_WRONLY | O_CREAT);
                const auto refused = [&](int result, const char* what) {
                    if (result >= 0 || errno != EACCES) wrong.push_back(what + (" of " + place));
                };
                for (const bool follow : {false, true}) refused(open_contents(place, follow), "contents");
                refused(make_folder(place), "a folder");
                refused(make_symlink("x", place), "a link");
                refused(make_node(place, S_IFIFO, 0), "a pipe");
                refused(make_link(made + "-linked", place), "another name");
                refused(make_link(place, made + "-other"), "a name here");
                refused(remove_file(place), "removal");
            }
            expect_shut(wrong, folder, O_TMPFILE | O_RDWR);
            for (const char* place : {"/etc/passwd", "/proc/self/maps", "/"}) expect_shut(wrong, place, O_RDONLY);
            return wrong;
        });
    }
}

// No tree: nothing but these files, whatever lies beside them.
TEST_F(HostFilesTest, WithoutTreesFilesAreWrittenByTheirNames) {
    const std::string there = folder + "/there", made = folder + "/made", beside = folder + "/beside";
    std::ofstream(there) << "old";
    std::ofstream(beside) << "kept";
    ASSERT_EQ(::mkdir((folder + "/inner").c_str(), 0755), 0);
    in_child([&]() -> std::vector<std::string> {
        HostFiles named;
        named.writable = {made, there, folder, folder + "/inner", folder + "/none/x", "/dev/null", folder + "/made/"};
        if (auto entered = enter_sandbox(SandboxProfile::files, named); !entered) return {entered.error().what};
        std::vector<std::string> wrong = others_that_are_open(false);
        for (const std::string& place : {there, made, made, std::string("/dev/null")}) {
            const int fd = open_contents(place, false);
            if (fd < 0 || ::write(fd, "x", 1) != 1) wrong.push_back(fmt::format("{}: {}", place, std::strerror(errno)));
            ::close(fd);
        }
        for (const std::string& place : {there, made})
            if (change_mode(place, 0640) != 0) wrong.push_back(fmt::format("{}: {}", place, std::strerror(errno)));
        const auto refused = [&](const std::string& place, int error) {
            if (open_contents(place, false) >= 0 || errno != error)
                wrong.push_back(fmt::format("{}: {}", place, std::strerror(errno)));
        };
        for (const char* name : {"/beside", "/link/beside", "/inner", "/inner/x", ""}) refused(folder + name, EACCES);
        refused(folder + "/none/x", ENOENT);
        refused(there + "/x", ENOTDIR);
        refused(folder + "/" + std::string(300, 'x'), ENAMETOOLONG);
        refused("", ENOENT);
        if (change_mode(beside, 0600) == 0 || change_mode(folder, 0700) == 0) wrong.emplace_back("permissions");
        const int socket = socket_of_changes();
        for (const std::uint32_t kind : {ChangeRequest::mode, ChangeRequest::contents})
            for (std::uint32_t place = 0; place < 8; ++place)
                if (const int error = answer_to(socket, {"", request(kind, place, 0), "", "beside"}); error <= 0)
                    wrong.push_back(fmt::format("{} of {}: {}", kind, place, error));
        expect_names_shut(wrong, there);
        const auto refused_here = [&](int result, const char* what) {
            if (result == 0 || errno != EPERM) wrong.push_back(fmt::format("{}: {}", what, std::strerror(errno)));
        };
        refused_here(remove_file(there), "removal");
        refused_here(make_folder(made), "a folder");
        refused_here(make_symlink("x", made), "a link");
        refused_here(make_link(there, made), "another name");
        refused_here(make_node(made, S_IFIFO, 0), "a pipe");
        return wrong;
    });
    EXPECT_EQ(std::filesystem::file_size(beside), 4u);
}

// Who makes nodes of devices could have the disk behind one, if it were opened.
TEST_F(HostFilesTest, WhatIsMadeIsNotOpenedButForFiles) {
    const std::string file = folder + "/file", pipe = folder + "/pipe", named_pipe = path + "-pipe";
    std::ofstream(file) << "old";
    ASSERT_EQ(::mkfifo(named_pipe.c_str(), 0600), 0);
    const int reader = ::open(named_pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    // Somebody else, who changes what has a name meanwhile: to open the pipe would wait for its reader for ever.
    const std::string changing = folder + "/changing", spare = path + "-spare";
    std::ofstream(changing) << "old";
    ASSERT_EQ(::mkfifo(spare.c_str(), 0600), 0);
    const pid_t swapping = ::fork();
    ASSERT_GE(swapping, 0);
    if (swapping == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) ::renameat2(AT_FDCWD, changing.c_str(), AT_FDCWD, spare.c_str(), RENAME_EXCHANGE);
    }
    in_child([&]() -> std::vector<std::string> {
        HostFiles named;
        named.writable = {folder, file, "/dev/null", named_pipe};
        named.whole_trees = true;
        if (auto entered = enter_sandbox(SandboxProfile::files, named); !entered) return {entered.error().what};
        std::vector<std::string> wrong;
        const auto opened = [&](const std::string& place, bool follow, int error) {
            const int fd = open_contents(place, follow), got = fd < 0 ? errno : 0;
            if (got != error) wrong.push_back(fmt::format("{}: {}", place, std::strerror(got)));
            return fd;
        };
        // What was named.
        struct stat info{};
        for (const std::string& place : {std::string("/dev/null"), named_pipe})
            if (const int fd = opened(place, true, 0); ::write(fd, "x", 1) != 1) wrong.push_back("write to " + place);
        if (const int fd = opened(file, false, 0); ::write(fd, "new", 3) != 3) wrong.emplace_back("write to a file");
        // What is there now, by a name of its own, by the name of what was named, and by a link.
        const auto node = [&](const std::string& place) {
            return ::geteuid() == 0 ? make_node(place, S_IFCHR, makedev(1, 3)) : make_node(place, S_IFIFO, 0);
        };
        if (node(pipe) != 0 || remove_file(file) != 0 || node(file) != 0) wrong.emplace_back("mknod");
        make_symlink("pipe", folder + "/to it");
        for (const bool follow : {false, true}) {
            opened(pipe, follow, EACCES);
            opened(file, follow, EACCES);
            opened(folder + "/to it", follow, ELOOP);
            opened(folder, follow, EISDIR);
        }
        // What was named is no more what has its name.
        if (remove_file(named_pipe) != 0 || node(named_pipe) != 0) wrong.emplace_back("mknod of what was named");
        opened(named_pipe, true, EACCES);
        unsigned refused = 0;
        for (unsigned i = 0; i < 3000; ++i) {
            const int fd = open_contents(changing, false);
            if (fd < 0 && errno == EACCES) ++refused;
            else if (fd < 0 || ::syscall(SYS_fstat, fd, &info) != 0 || !S_ISREG(info.st_mode))
                wrong.push_back(fmt::format("{} of what changes: {}", fd, std::strerror(errno)));
            if (fd >= 0) ::close(fd);
        }
        if (refused == 0 || refused == 3000) wrong.push_back(fmt::format("nothing changed: {}", refused));
        return wrong;
    });
    ::kill(swapping, SIGKILL);
    ::waitpid(swapping, nullptr, 0);
    ::close(reader);
    ::unlink(spare.c_str());
    ::unlink(named_pipe.c_str());
}

// With -a, whatever a tree holds gets its owners, permissions, times and attributes; without, its permissions.
TEST_F(HostFilesTest, WhatIsMadeIsGivenItsAttributes) {
    const bool root = ::geteuid() == 0;
    for (const bool give_away : {false, true}) {
        in_child([&]() -> std::vector<std::string> {
            HostFiles named;
            named.writable = {folder, victim};  // a file as well: it is there and stays
            named.whole_trees = true;
            named.may_chown = named.attributes = give_away;
            if (::chdir(folder.c_str()) != 0) return {"chdir"};
            if (auto entered = enter_sandbox(SandboxProfile::files, named); !entered) return {entered.error().what};
            std::vector<std::string> wrong;
            const std::string tree = fmt::format("{}/tree-{}", folder, give_away);
            make_folder(tree);
            ::close(open_contents(tree + "/file", false));
            make_symlink(victim, tree + "/symlink");
            make_node(tree + "/fifo", S_IFIFO, 0);
            make_node(tree + "/socket", S_IFSOCK, 0);
            std::vector<std::string> names{tree, tree + "/.", tree + "/file", tree + "/fifo", tree + "/socket"};
            names.push_back(fmt::format("{}/./tree-{}//file", folder, give_away));
            if (root) {
                make_node(tree + "/device", S_IFCHR, makedev(1, 3));
                names.push_back(tree + "/device");
            }
            const timespec times[2] = {{1000, 1}, {2000, 2}};
            const std::uint32_t owner = root ? 12 : ::geteuid(), group = root ? 34 : ::getegid();
            for (const bool link : {false, true})
                for (const std::string& name : link ? std::vector{tree + "/symlink"} : names) {
                    const auto done = [&](int result, bool expected, const char* what) {
                        if ((result == 0) != expected)
                            wrong.push_back(fmt::format("{} of {}, {}: {}", what, name, give_away, result));
                    };
                    done(change_owner(name, owner, group), give_away, "owner");
                    done(change_mode(name, 0740), !link, "permissions");
                    done(change_times(name, times), give_away, "times");
                    if (root)
                        done(change_attribute(name, "trusted.name", std::as_bytes(std::span("value", 5))), give_away,
                             "an attribute");
                    struct stat now{};
                    if (::lstat(name.c_str(), &now) != 0) wrong.push_back(name + " is not there");
                    if (!link && (now.st_mode & 07777) != 0740) wrong.push_back(name + ": other permissions");
                    if (!give_away) continue;
                    if (now.st_uid != owner || now.st_gid != group) wrong.push_back(name + ": other owners");
                    if (now.st_atim.tv_sec != 1000 || now.st_mtim.tv_nsec != 2) wrong.push_back(name + ": other times");
                }
            // A folder that was named is changed itself, and a file that was.
            if (change_mode(folder, 0750) != 0 || change_mode(victim, victims.st_mode & 07777) != 0)
                wrong.push_back(fmt::format("what was named is not changed: {}", std::strerror(errno)));
            return wrong;
        });
        ASSERT_EQ(::stat(victim, &victims), 0);
        // Trusted attributes can be read out of the sandbox only.
        char value[8];
        if (root && give_away) {
            for (const char* name : {"", "/file", "/fifo", "/socket", "/device", "/symlink"})
                EXPECT_EQ(::lgetxattr((folder + "/tree-true" + name).c_str(), "trusted.name", value, sizeof value), 5)
                    << name;
        }
    }
}

// Owners alone are no capabilities of files; and a device that is named is written to, and stays what it is.
TEST_F(HostFilesTest, NoMoreIsChangedThanTheCommandSays) {
    const std::string file = folder + "/file", pipe = folder + "/pipe";
    std::ofstream(file) << "old";
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    for (const bool trees : {false, true}) {
        in_child([&]() -> std::vector<std::string> {
            HostFiles named;
            named.writable = {file, pipe};
            named.may_chown = true;
            named.attributes = named.whole_trees = trees;
            if (auto entered = enter_sandbox(SandboxProfile::files, named); !entered) return {entered.error().what};
            std::vector<std::string> wrong;
            const timespec times[2] = {{1000, 1}, {2000, 2}};
            if (change_owner(file, ::geteuid(), ::getegid()) != 0) wrong.emplace_back("the owner");
            if ((change_times(file, times) == 0) != trees) wrong.emplace_back("times");
            if (!trees && change_attribute(file, "security.capability", std::as_bytes(std::span("x", 1))) == 0)
                wrong.emplace_back("an attribute");
            for (std::uint32_t place = 0; place < 4; ++place)
                for (const std::uint32_t kind : {ChangeRequest::mode, ChangeRequest::owner})
                    (void)answer_to(socket_of_changes(),
                                    {"", request(kind, place, kind == ChangeRequest::mode ? 0666 : 0), "", "."});
            struct stat info{};
            if (::lstat(pipe.c_str(), &info) != 0 || (info.st_mode & 0777) != 0600) wrong.emplace_back("the pipe");
            if (change_mode(pipe, 0644) == 0 || change_owner(pipe, ::geteuid(), ::getegid()) == 0)
                wrong.emplace_back("the pipe by its name");
            return wrong;
        });
    }
}

// Somebody else moves a file of his own to the name of one that has just been written: it gets nothing of that one's.
TEST_F(HostFilesTest, AttributesGoToTheFileThatWasWritten) {
    const std::string file = folder + "/file", other = folder + "/other", away = folder + "/away";
    std::ofstream(other) << "somebody's";
    ASSERT_EQ(::chmod(other.c_str(), 0600), 0);
    int asked[2], done[2];
    ASSERT_TRUE(::pipe(asked) == 0 && ::pipe(done) == 0);
    const pid_t somebody = ::fork();
    ASSERT_GE(somebody, 0);
    if (somebody == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        char go;
        if (::read(asked[0], &go, 1) != 1 || ::rename(file.c_str(), away.c_str()) != 0 ||
            ::rename(other.c_str(), file.c_str()) != 0 || ::write(done[1], &go, 1) != 1)
            ::_exit(1);
        ::_exit(0);
    }
    in_child([&]() -> std::vector<std::string> {
        HostFiles named;
        named.writable = {folder};
        named.may_chown = named.attributes = named.whole_trees = named.special_modes = true;
        if (auto entered = enter_sandbox(SandboxProfile::files, named); !entered) return {entered.error().what};
        std::vector<std::string> wrong;
        const timespec times[2] = {{1000, 1}, {2000, 2}};
        const int fd = open_contents(file, false);
        char answer;
        if (::write(fd, "mine", 4) != 4 || ::close(fd) != 0 || ::write(asked[1], "x", 1) != 1 ||
            ::read(done[0], &answer, 1) != 1)
            wrong.emplace_back("nobody has moved them");
        if (change_owner(file, ::geteuid(), ::getegid()) != 0 || change_mode(file, 04755) != 0 ||
            change_times(file, times) != 0)
            wrong.emplace_back("attributes");
        struct stat info{};
        if (::lstat(file.c_str(), &info) != 0 || (info.st_mode & 07777) != 0600 || info.st_mtim.tv_sec == 2000)
            wrong.emplace_back("somebody's file has them");
        if (::lstat(away.c_str(), &info) != 0 || (info.st_mode & 07777) != 04755 || info.st_mtim.tv_sec != 2000)
            wrong.emplace_back("the file that was written has them not");
        return wrong;
    });
    ::waitpid(somebody, nullptr, 0);
    for (const int fd : {asked[0], asked[1], done[0], done[1]}) ::close(fd);
}

// Whoever has taken the process over asks for what it likes, with the calls or past them.
TEST_F(HostFilesTest, NothingBesideTheTargetIsChanged) {
    const std::string last = victims_name.substr(victims_name.rfind('/') + 1), beside = path + "-beside";
    const std::string link = folder + "/to the victim", way = folder + "/way out";
    ASSERT_EQ(::mkdir(beside.c_str(), 0755), 0);
    ASSERT_EQ(::symlink(victim, link.c_str()), 0);
    ASSERT_EQ(::symlink("/dev/shm", way.c_str()), 0);
    for (const bool give_away : {false, true}) {
        in_child([&]() -> std::vector<std::string> {
            HostFiles named;
            named.writable = {folder, path};
            named.whole_trees = true;
            named.may_chown = give_away;
            if (auto entered = enter_sandbox(SandboxProfile::files, named); !entered) return {entered.error().what};
            std::vector<std::string> wrong;
            const timespec times[2]{};
            for (const std::string& name : {victims_name, folder + "/../" + last, way + "/" + last, beside,
                                            std::string("/etc/passwd"), std::string("/"), folder + "/.."}) {
                if (change_mode(name, 04777) == 0) wrong.push_back("permissions of " + name);
                if (change_owner(name, ::geteuid(), ::getegid()) == 0) wrong.push_back("owner of " + name);
                if (change_times(name, times) == 0) wrong.push_back("times of " + name);
                if (change_attribute(name, "user.hostile", {}) == 0) wrong.push_back("an attribute of " + name);
                if (open_contents(name, true) >= 0) wrong.push_back("contents of " + name);
            }
            const int socket = socket_of_changes();
            constexpr std::uint32_t mode = ChangeRequest::mode, attribute = ChangeRequest::attribute;
            const std::string nul = std::string("a") + '\0' + "b";
            ChangeRequest long_folder = request(mode), long_value = request(attribute, 0, 0), huge = request(mode),
                          no_other = request(mode);
            long_folder.at.folder_size = 1u << 31;
            long_value.value_size = 1u << 20;
            huge.at.folder_size = huge.at.name_size = 1u << 31;
            no_other.other.place = 2;
            const Asked all[] = {
                {"nothing", request(mode), "", ""},
                {"upwards", request(mode), "..", last},
                {"upwards by a name", request(mode), "", ".."},
                {"down and upwards", request(mode), "x/../..", last},
                {"a path for a name", request(mode), "", "../" + last},
                {"the whole path", request(mode), "/dev/shm", last},
                {"the whole name", request(mode), "", victims_name},
                {"through a link", request(mode), "way out", last},
                {"through a link, with a slash", request(mode), "way out/", last},
                {"through links of /proc", request(mode), "proc/self/root/dev/shm", last},
                {"no such place", request(mode, 2), "", "link"},
                {"no place at all", request(mode, ~0u), "", "link"},
                {"no other place", no_other, "", "link"},
                {"below a file", request(mode, 1), "", last},
                {"above a file", request(mode, 1), "..", last},
                {"more than permissions", request(mode, 1, S_IFCHR | 0600), "", "."},
                {"a kind that there is not", request(17), "", "link"},
                {"NUL in a name", request(mode), "", nul},
                {"NUL in a folder", request(mode), nul, "link"},
                {"NUL in an attribute", request(attribute, 0, 0), "", "link", "user." + nul},
                {"NUL in a symlink", request(ChangeRequest::symlink, 0, 0), "", "new", "", true, "", ".", nul},
                {"a file as a node", request(ChangeRequest::node, 0, S_IFREG), "", "new"},
                {"a node with permissions", request(ChangeRequest::node, 0, S_IFIFO | 04777), "", "new"},
                {"too long a folder", long_folder, "", "link"},
                {"too long a value", long_value, "", "link", "user.x"},
                {"sizes that add up to nothing", huge, "", "link"},
                {"less than it says", request(mode), "", "link", "", false},
                {"the other one upwards", request(ChangeRequest::link, 0, 0), "", "new", "", true, "..", last},
                {"the other one through a link", request(ChangeRequest::link, 0, 0), "", "new", "", true, "way out",
                 last},
                {"the other one by its path", request(ChangeRequest::link, 0, 0), "", "new", "", true, "",
                 victims_name},
                {"the other one with NUL", request(ChangeRequest::link, 0, 0), "", "new", "", true, nul, nul},
                {"the folder as another one", request(ChangeRequest::link, 0, 0), "", "new"},
            };
            // Of other kinds as well: none of them names what may be changed.
            for (std::uint32_t kind = mode; kind <= ChangeRequest::removal; ++kind)
                for (Asked asked : all) {
                    if (asked.request.kind == mode && kind != mode) {
                        asked.request.kind = kind;
                        asked.request.permissions = kind == ChangeRequest::node ? S_IFIFO : 0;
                        if (std::string_view(asked.what) == "more than permissions") asked.request.permissions = 1;
                    }
                    if (const int error = answer_to(socket, asked); error <= 0)
                        wrong.push_back(fmt::format("{}, {}: {}", asked.what, kind, error));
                }
            for (const std::uint32_t kind : {mode, static_cast<std::uint32_t>(ChangeRequest::contents)})
                if (const int error = answer_to(socket, {"", request(kind, 0, 0), "", "to the victim"}); error <= 0)
                    wrong.push_back(fmt::format("what a link leads to, {}: {}", kind, error));
            char answer[4096];
            if (::send(socket, "x", 1, MSG_NOSIGNAL) != 1 || ::recv(socket, answer, sizeof answer, 0) != 4)
                wrong.emplace_back("a short message has no answer");
            if (change_mode(path, 0600) != 0) wrong.emplace_back("nothing is changed after all that");
            return wrong;
        });
    }
    std::filesystem::remove(beside);
}

// A name of somebody else's file in the target would be a way to change it.
TEST_F(HostFilesTest, NothingFromBesideGetsANameInTheTarget) {
    in_child([&]() -> std::vector<std::string> {
        HostFiles named;
        named.writable = {folder};
        named.may_chown = named.whole_trees = true;
        const int held = ::open(victim, O_PATH | O_CLOEXEC);
        if (auto entered = enter_sandbox(SandboxProfile::files, named); !entered) return {entered.error().what};
        std::vector<std::string> wrong;
        const std::string made = folder + "/made", by_proc = fmt::format("/proc/self/fd/{}", held);
        if (::linkat(held, "", AT_FDCWD, made.c_str(), AT_EMPTY_PATH) == 0) wrong.emplace_back("a descriptor");
        if (::linkat(AT_FDCWD, by_proc.c_str(), AT_FDCWD, made.c_str(), AT_SYMLINK_FOLLOW) == 0)
            wrong.emplace_back("a descriptor by /proc");
        for (const std::string& of : {by_proc, victims_name, folder + "/../" + victims_name.substr(9)})
            if (make_link(of, made) == 0 || errno != EACCES) wrong.push_back(of);
        return wrong;
    });
}

}  // namespace
}  // namespace uext4::sandboxed

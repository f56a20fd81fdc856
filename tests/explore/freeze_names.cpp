// Problem K: freeze against everything that changes names, attributes and the file system as a whole.
#include "tests/explore/freezing.h"

#include <fcntl.h>

namespace uext4::explore::freeze_names {
namespace {

namespace flag = format::inode_flag;
const Credentials root = Credentials::root(), somebody = Credentials::of(1000, 1000);

void prepare(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    for (const char* name : {"/gone", "/old", "/moves", "/a", "/b"})
        w.write(*w.open(name, O_CREAT | O_RDWR), 0, 100, 'a');
    for (const char* name : {"empty", "to"})
        w.expect(w.fs().create(*top, name, S_IFDIR | 0755, 0, "", root, false), "mkdir");
    auto b = w.expect(w.fs().resolve("/b", root), "b");
    w.expect(w.fs().set_attributes(*b, {.mode = 06755}, root, false), "chmod");
    w.expect(w.fs().set_xattr(*b, "user.old", std::as_bytes(std::span("value")), 0, root, false), "setxattr");
}

Shown judge(World& w) {
    Shown shown = show(w);
    std::string names;
    for (const auto& [path, node] : shown.tree) names += path + " ";
    w.require(names == " /a /b /dir /link /lost+found /mark0 /mark1 /new /node /symlink /to /to/moved ",
              "the names: " + names);
    const crash::Node &a = shown.tree["/a"], &b = shown.tree["/b"];
    w.require(a.mode == (S_IFREG | 0600) && a.uid == 7 && a.gid == 8, "mode or owner");
    w.require(a.mtime.tv_sec == 1000 && a.atime.tv_sec == 2000, "the times");
    w.require(a.xattrs.size() == 1 && a.xattrs.contains("user.a"), "the attribute that was set");
    w.require(a.links == 2 && a.inode == shown.tree["/link"].inode, "the link");
    w.require(b.mode == (S_IFREG | 0755) && b.xattrs.empty(), "what was taken from b");
    w.require(b.flags == format::inode_flag::nodump, "the flag");
    w.require(shown.tree["/symlink"].target == "a", "the symbolic link");
    w.require(shown.label == "new", "the label");
    return shown;
}

void run(World& w) {
    FileSystem& fs = w.fs();
    auto top = w.expect(fs.root(), "root"), to = w.expect(fs.resolve("/to", root), "to");
    auto a = w.expect(fs.resolve("/a", root), "a"), b = w.expect(fs.resolve("/b", root), "b");
    // Without a name, and so large that its deletion is not put off.
    auto unnamed = w.open("/unnamed", O_CREAT | O_RDWR);
    w.expect(unnamed->truncate(2 << 20), "truncate");
    w.expect(fs.unlink(*top, "unnamed", root, false), "unlink");
    Freezing freezing(w);
    auto step = [&](const char* what, auto make) {
        return Freezing::Change{what, [&w, what, make] { w.expect(make(), what); }};
    };
    auto make = [&](const char* what, const char* name, mode_t mode, dev_t device = 0, const char* target = "") {
        return step(
            what, [&, name, mode, device, target] { return fs.create(*top, name, mode, device, target, root, false); });
    };
    auto attributes = [&](const char* what, const AttributeChange& change) {
        return step(what, [&, change] { return fs.set_attributes(*a, change, root, false); });
    };
    std::vector<int> marks_at_cut;
    w.run({{"freeze",
            [&] {
                freezing.freeze_and_thaw();
                w.pause();
                freezing.freeze_and_thaw();
            }},
           {"names",
            [&] {
                freezing.change_all(
                    {step("unlink", [&] { return fs.unlink(*top, "gone", root, false); }),
                     step("rename", [&] { return fs.rename(*top, "old", *top, "new", 0, root, false); }),
                     step("rename", [&] { return fs.rename(*top, "moves", *to, "moved", 0, root, false); })});
            }},
           {"directories",
            [&] {
                freezing.change_all({make("mkdir", "dir", S_IFDIR | 0755),
                                     step("rmdir", [&] { return fs.rmdir(*top, "empty", root, false); }),
                                     step("link", [&] { return fs.link(*a, *top, "link", root, false); })});
            }},
           {"made",
            [&] {
                freezing.change_all(
                    {make("symlink", "symlink", S_IFLNK | 0777, 0, "a"), make("mknod", "node", S_IFCHR | 0644, 0x103),
                     step("O_TMPFILE", [&] { return fs.create_tmpfile(*top, S_IFREG | 0644, 0, root, false); })});
            }},
           {"attributes",
            [&] {
                const auto value = std::as_bytes(std::span("value"));
                freezing.change_all(
                    {attributes("chmod", {.mode = 0600}), attributes("chown", {.uid = 7, .gid = 8}),
                     attributes("utimens", {.atime = format::Timestamp{2000}, .mtime = format::Timestamp{1000}}),
                     step("setxattr", [&] { return fs.set_xattr(*a, "user.a", value, 0, root, false); })});
            }},
           {"others",
            [&] {
                freezing.change_all(
                    {step("removexattr", [&] { return fs.remove_xattr(*b, "user.old", root, false); }),
                     step("set-id bits", [&] { return fs.remove_suid(*b, somebody); }),
                     step("flag d", [&] { return fs.set_flags(*b, fs.get_flags(*b) | flag::nodump, root, false); }),
                     step("label", [&] { return fs.set_label("new"); })});
            }},
           {"let go",
            [&] {
                w.pause();
                unnamed.reset();  // nobody waits for the deletion, which waits for the thaw
            }},
           {"marks", [&] {
                for (int i = 0; i < 2; ++i) {
                    const std::string name = fmt::format("mark{}", i);
                    freezing.change("create", [&] { w.open("/" + name, O_CREAT | O_RDWR); });
                    w.expect(fs.sync(), "sync");
                    marks_at_cut.push_back(i + 1);
                    w.cut_power();
                }
            }}});
    top.reset(), to.reset(), a.reset(), b.reset();
    freezing.judge();
    // What was synced behind a thaw is there, whoever cuts.
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        for (int i = 0; i < marks_at_cut[n]; ++i)
            after.require(after.fs().resolve(fmt::format("/mark{}", i), root).has_value(), "a synced name is gone");
        ++n;
    });
    const Shown before = judge(w);
    w.remount();
    const std::string other = before.difference(judge(w));
    w.require(other.empty(), "a remount shows something else: " + other);
    w.unmount();
}

const Register registered({"freeze-names",
                           "K: names or attributes change while the file system is frozen, or are lost behind the thaw",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime,background", prepare, run});

}  // namespace
}  // namespace uext4::explore::freeze_names

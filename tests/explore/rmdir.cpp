// A directory goes, by rmdir or below a rename, while names are put into it: what has a name in it stays.
#include "tests/explore/scenario.h"

#include <sys/stat.h>

namespace uext4::explore::rmdir {
namespace {

const Credentials root = Credentials::root();

void prepare(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    for (const char* name : {"d", "e"})
        w.expect(w.fs().create(*top, name, S_IFDIR | 0755, 0, "", root, false), "mkdir");
    w.expect(w.fs().create(*top, "g", S_IFREG | 0644, 0, "", root, false), "create");
}

// ENOENT: the directory had gone. ENOTEMPTY: it had a name.
bool was_done(World& w, const Result<void>& result, int refused, const char* what) {
    w.allow(result, refused, what);
    return result.has_value();
}

void run(World& w, const std::function<Result<void>(Inode& top)>& take_away, bool replaced) {
    auto top = w.expect(w.fs().root(), "root");
    auto dir = w.expect(w.fs().resolve("/d", root), "resolve"), file = w.expect(w.fs().resolve("/g", root), "resolve");
    bool gone = false, made = false, moved = false, linked = false;
    w.run({{"away", [&] { gone = was_done(w, take_away(*top), ENOTEMPTY, "taking the directory away"); }},
           {"create",
            [&] {
                auto fresh = w.fs().create(*dir, "f", S_IFREG | 0644, 0, "", root, false);
                if (!fresh && fresh.error().code != ENOENT) w.wrong("create: " + fresh.error().what);
                made = fresh.has_value();
            }},
           {"link", [&] { linked = was_done(w, w.fs().link(*file, *dir, "l", root, false), ENOENT, "link"); }},
           {"move",
            [&] { moved = was_done(w, w.fs().rename(*top, "g", *dir, "m", 0, root, false), ENOENT, "rename"); }}});
    w.require(!gone || (!made && !moved && !linked), "a directory went with a name in it");
    w.require(gone || (made && moved && linked), "a name was refused, and the directory is still there");
    dir.reset(), top.reset(), file.reset();
    auto judge = [&] {
        for (const char* name : {"/d/f", "/d/l", "/d/m"})
            w.require(w.fs().resolve(name, root).has_value() == !gone, name);
        w.require(w.fs().resolve("/d", root).has_value() == (!gone || replaced), "the directory");
        w.require(w.fs().resolve("/g", root).has_value() == gone, "what was to move");
    };
    judge();
    w.remount();
    judge();
    w.unmount();
}

void run_rmdir(World& w) {
    run(w, [&](Inode& top) { return w.fs().rmdir(top, "d", root, false); }, false);
}

void run_rename(World& w) {
    run(w, [&](Inode& top) { return w.fs().rename(top, "e", top, "d", 0, root, false); }, true);
}

constexpr const char* format = "-t ext4 -b 1024 -N 64 -J size=1 8M";

const Register removed({"rmdir", "a name is put into a directory that is being removed", format, "noatime", prepare,
                        run_rmdir});
const Register replaced({"rename-over-directory", "a name is put into a directory that a rename replaces", format,
                         "noatime", prepare, run_rename});

}  // namespace
}  // namespace uext4::explore::rmdir

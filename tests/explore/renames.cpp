// Two renames across directories, each of which would put one directory under the other.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::renames {
namespace {

const Credentials root = Credentials::root();

void prepare(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    for (const char* name : {"a", "b"}) {
        auto dir = w.expect(w.fs().create(*top, name, S_IFDIR | 0755, 0, "", root, false), "mkdir");
        w.expect(w.fs().create(*dir, "sub", S_IFDIR | 0755, 0, "", root, false), "mkdir");
        w.expect(w.fs().create(*dir, "file", S_IFREG | 0644, 0, "", root, false), "create");
    }
}

void run(World& w) {
    auto move = [&](const char* from_dir, const char* from, const char* to_dir, const char* to) {
        auto a = w.fs().resolve(from_dir, root);
        auto b = w.fs().resolve(to_dir, root);
        if (!a || !b) return false;
        auto done = w.fs().rename(**a, from, **b, to, 0, root, false);
        if (!done && done.error().code != EINVAL && done.error().code != ENOENT && done.error().code != ENOTEMPTY)
            w.wrong("rename: " + done.error().what);
        return done.has_value();
    };
    bool first = false, second = false;
    w.run({{"down", [&] { first = move("/", "a", "/b/sub", "x"); }},
           {"up", [&] { second = move("/", "b", "/a/sub", "x"); }},
           {"files", [&] {
                move("/a", "file", "/b", "moved");
                move("/b", "file", "/a", "file");
            }}});
    w.require(first || second, "neither rename was done");
    w.require(!(first && second), "both renames were done: a loop");
    w.unmount();
}

const Register registered({"renames", "two renames across directories: deadlock, or a loop of directories",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::renames

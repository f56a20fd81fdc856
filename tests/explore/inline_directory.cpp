// A directory leaves the inode while it is read: names that stay are seen exactly once, and others once or not at all.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <set>

namespace uext4::explore::inline_directory {
namespace {

const Credentials root = Credentials::root();

using Names = std::multiset<std::string>;

void prepare(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    auto dir = w.expect(w.fs().create(*top, "d", S_IFDIR | 0755, 0, "", root, false), "mkdir");
    for (const char* name : {"one", "two", "three"})
        w.expect(w.fs().create(*dir, name, S_IFREG | 0644, 0, "", root, false), "create");
}

std::string new_name(int i) { return "a-rather-long-name-" + std::to_string(i); }

// Entry by entry, as a reader with a small buffer does.
Names list(World& w, Inode& dir) {
    Names seen;
    std::uint64_t cookie = 0;
    for (bool more = true; more;) {
        more = false;
        w.expect(w.fs().read_directory(dir, cookie,
                                       [&](const DirectoryEntry& e) {
                                           seen.emplace(e.name);
                                           cookie = e.next_cookie;
                                           more = true;
                                           return false;
                                       }),
                 "readdir");
    }
    return seen;
}

void run(World& w) {
    const Names old{".", "..", "one", "two", "three"};
    bool unlinked = false;
    auto dir = w.expect(w.fs().resolve("/d", root), "resolve");
    w.run({{"grow",
            [&] {
                for (int i = 0; i < 6; ++i)
                    w.expect(w.fs().create(*dir, new_name(i), S_IFREG | 0644, 0, "", root, false), "create");
            }},
           {"list",
            [&] {
                const Names seen = list(w, *dir);
                Names possible = old;
                for (int i = 0; i < 6; ++i) possible.insert(new_name(i));
                for (const std::string& name : seen) {
                    w.require(possible.contains(name), name + " was seen, and never made");
                    w.require(seen.count(name) == 1, name + " was seen " + std::to_string(seen.count(name)) + " times");
                }
                for (const std::string& name : old) w.require(seen.contains(name), name + " was not seen");
            }},
           {"unlink", [&] {
                const Result<void> result = w.fs().unlink(*dir, new_name(0), root, false);
                w.allow(result, ENOENT, "unlink");
                unlinked = result.has_value();
            }}});
    dir.reset();
    auto judge = [&](std::string_view what) {
        Names wanted = old;
        for (int i = unlinked ? 1 : 0; i < 6; ++i) wanted.insert(new_name(i));
        w.require(list(w, *w.expect(w.fs().resolve("/d", root), "resolve")) == wanted, what);
        for (const std::string& name : wanted)
            if (!name.starts_with('.')) w.require(w.read(*w.open("/d/" + name), 0, 1).empty(), name);
    };
    judge("the names");
    w.remount();
    judge("the names after a remount");
    w.unmount();
}

const Register registered({"inline-directory", "inline directory conversion against readdir: a name twice, or missing",
                           "-t ext4 -b 1024 -N 64 -O inline_data -I 256 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::inline_directory

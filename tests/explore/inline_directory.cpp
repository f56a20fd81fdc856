// A directory leaves the inode while it is read: names that stay are seen exactly once.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore {
namespace {

const Credentials root = Credentials::root();

void prepare(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    auto dir = w.expect(w.fs().create(*top, "d", S_IFDIR | 0755, 0, "", root, false), "mkdir");
    for (const char* name : {"one", "two", "three"})
        w.expect(w.fs().create(*dir, name, S_IFREG | 0644, 0, "", root, false), "create");
}

void run(World& w) {
    auto dir = w.expect(w.fs().resolve("/d", root), "resolve");
    w.run({{"grow",
            [&] {
                for (int i = 0; i < 6; ++i)
                    w.expect(w.fs().create(*dir, "a-rather-long-name-" + std::to_string(i), S_IFREG | 0644, 0, "", root,
                                           false),
                             "create");
            }},
           {"list",
            [&] {
                std::map<std::string, int> seen;
                // Entry by entry, as a reader with a small buffer does.
                std::uint64_t cookie = 0;
                for (bool more = true; more;) {
                    more = false;
                    w.expect(w.fs().read_directory(*dir, cookie,
                                                   [&](const DirectoryEntry& e) {
                                                       ++seen[std::string(e.name)];
                                                       cookie = e.next;
                                                       more = true;
                                                       return false;
                                                   }),
                             "readdir");
                }
                for (const char* name : {"one", "two", "three", ".", ".."})
                    w.require(seen[name] == 1,
                              std::string(name) + " was seen " + std::to_string(seen[name]) + " times");
            }},
           {"unlink", [&] { w.allow(w.fs().unlink(*dir, "a-rather-long-name-0", root, false), ENOENT, "unlink"); }}});
    dir.reset();
    w.unmount();
}

const Register registered({"inline-directory", "inline directory conversion against readdir: a name twice, or missing",
                           "-t ext4 -b 1024 -N 64 -O inline_data -I 256 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore

// Replacing a file by rename: whenever power is cut, the name has one content or the other, whole. And a file that has
// nothing to write has its new name when its fsync returns.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::fsync_rename {
namespace {

const Credentials root = Credentials::root();
constexpr std::size_t size = 6000;

void prepare(World& w) {
    w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a');
    w.write(*w.open("/old", O_CREAT | O_RDWR), 0, size, 'o');
}

void run(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    auto old = w.open("/f");
    auto kept = w.open("/old");
    bool replaced = false, renamed = false;
    std::vector<bool> was_replaced, was_renamed;
    w.run({{"replace",
            [&] {
                auto file = w.open("/tmp", O_CREAT | O_RDWR);
                w.write(*file, 0, size, 'b');
                w.expect(w.fs().rename(*top, "tmp", *top, "f", 0, root, false), "rename");
                w.expect(file->sync(false), "fsync");
                replaced = true;
            }},
           {"sync", [&] { w.expect(old->sync(false), "fsync of the old file"); }},
           {"rename",
            [&] {
                w.expect(w.fs().rename(*top, "old", *top, "new", 0, root, false), "rename");
                w.expect(kept->sync(false), "fsync");
                renamed = true;
            }},
           {"cut", [&] {
                for (int i = 0; i < 2; ++i) {
                    w.pause();
                    was_replaced.push_back(replaced);
                    was_renamed.push_back(renamed);
                    w.cut_power();
                }
            }}});
    top.reset();
    old.reset(), kept.reset();
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const bool has_replaced = was_replaced[n], has_renamed = was_renamed[n];
        ++n;
        const std::string bytes = after.read(*after.open("/f"), 0, size + 1);
        after.require(bytes.size() == size, "after the cut: the file is not whole");
        after.require_bytes("after the cut", bytes, has_replaced || bytes[0] == 'b' ? "b" : "a");
        const auto names = after.names("/");
        const bool at_new = std::ranges::count(names, "new") == 1, at_old = std::ranges::count(names, "old") == 1;
        after.require(at_new != at_old, "after the cut: two names, or none");
        after.require(at_new || !has_renamed, "after the cut: the new name is gone, although it was synced");
        after.require_bytes("after the cut, what was renamed",
                            after.read(*after.open(at_new ? "/new" : "/old"), 0, size), "o");
    });
    w.unmount();
}

const Register registered(
    {"fsync-rename",
     "fsync against rename: a replaced file is empty, short or mixed after a power cut, or a name is gone",
     "-t ext4 -b 4096 -N 64 -J size=4 24M",
     "noatime",
     prepare,
     run,
     {.cuts_lose = true}});

}  // namespace
}  // namespace uext4::explore::fsync_rename

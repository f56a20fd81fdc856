// Problem A's other half: attributes and a growing file push the contents out of the inode during writeback.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::inline_attribute {
namespace {

const Credentials root = Credentials::root();

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, 40, 'a'); }

void run(World& w) {
    auto file = w.open("/f");
    auto synced = w.open("/f");
    const std::string value(70, 'v');
    bool stored = false;
    w.run({{"write",
            [&] {
                w.write(*file, 40, 20, 'b');
                w.write(*file, 60, 200, 'b');
            }},
           {"attribute",
            [&] {
                auto set =
                    w.fs().set_xattr(file->inode(), "user.long", std::as_bytes(std::span(value)), 0, root, false);
                w.expect(std::move(set), "setxattr");
                stored = true;
            }},
           {"sync",
            [&] {
                w.expect(synced->sync(false), "fsync");
                w.expect(synced->sync(false), "fsync");
            }},
           {"cut", [&] { w.cut_power(); }}});
    auto judge = [&] {
        const std::string bytes = w.read(*w.open("/f"), 0, 4096);
        w.require(bytes.size() == 260, "the size");
        w.require_bytes("the old part", bytes.substr(0, 40), "a");
        w.require_bytes("the new part", bytes.substr(40), "b");
    };
    judge();
    file.reset(), synced.reset();
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, 4096);
        after.require(bytes.size() >= 40, "after the cut: the contents are gone");
        after.require_bytes("after the cut", bytes.substr(0, 40), "a");
        after.require_bytes("after the cut", bytes.substr(40), "b");
    });
    w.remount();
    judge();
    w.unmount();
}

const Register registered({"inline-attribute",
                           "A: what makes inline data leave the inode meets its writeback: deadlock, or bytes lost",
                           "-t ext4 -b 1024 -N 64 -O inline_data -I 256 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::inline_attribute

// A file that is open loses its last name while reclaim runs; then its last reference goes.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::unlink_open {
namespace {

const Credentials root = Credentials::root();

void prepare(World& w) {
    w.write(*w.open("/f", O_CREAT | O_RDWR), 0, 20000, 'a');
    w.write(*w.open("/big", O_CREAT | O_RDWR), 0, 160 * 1024, 'z');
}

void run(World& w) {
    auto file = w.open("/f");
    auto big = w.open("/big");
    auto top = w.expect(w.fs().root(), "root");
    (void)w.read(*big, 0, 128 * 1024);
    w.run({{"unlink", [&] { w.expect(w.fs().unlink(*top, "f", root, false), "unlink"); }},
           {"use",
            [&] {
                w.write(*file, 0, 9000, 'b');
                w.require_bytes("the open file", w.read(*file, 0, 20000).substr(0, 9000), "b");
                file.reset();
            }},
           {"reclaim", [&] { (void)w.read(*big, 32 * 1024, 128 * 1024); }}});
    w.require(!w.fs().resolve("/f", root), "the name is still there");
    big.reset();
    top.reset();
    w.fs().volume().wait_for_deletions();
    w.unmount();
}

const Register registered({"unlink-open",
                           "unlink of an open file against reclaim: freed twice, freed while used, or never",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,background,tiny-cache", prepare, run});

}  // namespace
}  // namespace uext4::explore::unlink_open

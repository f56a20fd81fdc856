// Problem K: freeze against everything. What is frozen is a clean image, and thaw lets all go on.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore {
namespace {

const Credentials root = Credentials::root();

void prepare(World& w) {
    for (const char* name : {"/f", "/g", "/h"}) w.write(*w.open(name, O_CREAT | O_RDWR), 0, 9000, 'a');
}

void run(World& w) {
    auto f = w.open("/f");
    auto top = w.expect(w.fs().root(), "root");
    w.run({{"freeze",
            [&] {
                w.expect(w.fs().freeze(), "freeze");
                w.cut_power();
                w.pause();
                w.cut_power();
                w.expect(w.fs().thaw(), "thaw");
            }},
           {"write",
            [&] {
                w.write(*f, 0, 5000, 'b');
                w.expect(f->sync(false), "fsync");
            }},
           {"names",
            [&] {
                w.expect(w.fs().unlink(*top, "g", root, false), "unlink");
                w.expect(w.fs().rename(*top, "h", *top, "i", 0, root, false), "rename");
            }},
           {"attributes",
            [&] {
                auto set = w.fs().set_xattr(*top, "user.a", std::as_bytes(std::span("value")), 0, root, false);
                w.expect(std::move(set), "setxattr");
                w.expect(w.fs().create(*top, "d", S_IFDIR | 0755, 0, "", root, false), "mkdir");
                w.expect(w.fs().sync(), "sync");
            }},
           {"space",
            [&] {
                w.expect(f->fallocate(0, 8000, 9000), "fallocate");
                w.expect(f->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1024, 1024), "punch");
            }},
           {"truncate", [&] { w.expect(w.fs().truncate(f->inode(), 4000, root, false), "truncate"); }}});
    f.reset();
    top.reset();
    w.compare_cuts_clean();
    w.unmount();
}

const Register registered({"freeze",
                           "K: something changes the device while it is frozen, or the thaw leaves somebody behind",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime,background", prepare, run});

}  // namespace
}  // namespace uext4::explore

// Orphans are made, deleted and cut off by power; the next mount finishes what is left.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore {
namespace {

const Credentials root = Credentials::root();

void prepare(World& w) {
    for (const char* name : {"/f", "/g"}) w.write(*w.open(name, O_CREAT | O_RDWR), 0, 30000, 'a');
}

void run(World& w) {
    auto f = w.open("/f");
    auto top = w.expect(w.fs().root(), "root");
    w.run({{"unlink",
            [&] {
                w.expect(w.fs().unlink(*top, "f", root, false), "unlink");
                w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                f.reset();
            }},
           {"other", [&] { w.expect(w.fs().unlink(*top, "g", root, false), "unlink"); }},
           {"cut", [&] {
                for (int i = 0; i < 2; ++i) {
                    w.pause();
                    w.cut_power();
                }
            }}});
    top.reset();
    // The mount ends while what is left to be deleted is being deleted, and the next one finds what is left of that.
    w.run({{"remount", [&] { w.reopen(); }}, {"cut", [&] {
                                                  for (int i = 0; i < 2; ++i) {
                                                      w.pause();
                                                      w.cut_power();
                                                  }
                                              }}});
    for (const char* name : {"/f", "/g"}) w.require(!w.fs().resolve(name, root), "an unlinked name is back");
    w.fs().volume().finish_deletions();
    w.require_settled();
    w.after_cut([&](World& after) {
        for (const char* name : {"/f", "/g"})
            if (after.fs().resolve(name, root)) after.require_bytes(name, after.read(*after.open(name), 0, 30000), "a");
    });
    w.unmount();
}

const Register registered({"orphans",
                           "orphan processing against remount: space leaked, freed twice, or a name to nothing",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime,background", prepare, run});

}  // namespace
}  // namespace uext4::explore

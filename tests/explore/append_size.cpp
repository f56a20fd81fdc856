// A file grows by pieces while it is written back: its size on disk never reaches over bytes that are not there.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore {
namespace {

constexpr std::size_t pieces[] = {700, 600, 4096, 5000};

void prepare(World& w) { w.open("/f", O_CREAT | O_RDWR); }

void run(World& w) {
    auto file = w.open("/f");
    auto other = w.open("/f");
    w.run({{"append",
            [&] {
                std::size_t at = 0;
                for (const std::size_t n : pieces) {
                    w.write(*file, at, n, 'w');
                    at += n;
                }
            }},
           {"writeback", [&] {
                for (int i = 0; i < 2; ++i) {
                    w.expect(write_back(other->inode()), "writeback");
                    w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                    w.cut_power();
                }
            }}});
    file.reset(), other.reset();
    w.after_cut(
        [&](World& after) { after.require_bytes("after the cut", after.read(*after.open("/f"), 0, 16384), "w"); });
    w.unmount();
}

const Register registered({"append-size",
                           "J, P4: the size on disk reaches over bytes that came while the file was written back",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore

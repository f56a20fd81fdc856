// Problem J: after a power cut a file shows its own bytes or is shorter, never what the block held before.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::append_cut {
namespace {

constexpr std::size_t size = 8192;

// The blocks that are free have been another file's.
void prepare(World& w) {
    {
        auto old = w.open("/old", O_CREAT | O_RDWR);
        w.write(*old, 0, 3 << 20, 'x');
        w.expect(old->sync(false), "fsync");
    }
    auto root = w.expect(w.fs().root(), "root");
    w.expect(w.fs().unlink(*root, "old", Credentials::root(), false), "unlink");
    w.open("/f", O_CREAT | O_RDWR);
}

void run(World& w) {
    auto file = w.open("/f");
    auto synced = w.open("/f");
    bool durable = false;
    std::vector<bool> was_durable;
    w.run({{"write",
            [&] {
                w.write(*file, 0, size, 'w');
                w.expect(file->sync(false), "fsync");
                durable = true;
            }},
           {"commit",
            [&] {
                w.pause();
                w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
            }},
           {"writeback", [&] { w.expect(write_back(synced->inode()), "writeback"); }},
           {"cut", [&] {
                for (int i = 0; i < 2; ++i) {
                    w.pause();
                    was_durable.push_back(durable);
                    w.cut_power();
                }
            }}});
    file.reset(), synced.reset();
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size + 1);
        after.require_bytes("after the cut", bytes, "w");
        if (was_durable[n++]) after.require(bytes.size() == size, "after the cut: synced bytes are gone");
    });
    w.unmount();
}

const Register registered({"append-cut", "J: a block is named before its data is on the device; P4, P8",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::append_cut

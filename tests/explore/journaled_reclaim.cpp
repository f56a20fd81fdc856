// Problem E: data=journal, a folio must belong to the transaction before reclaim may look at it.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::journaled_reclaim {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, size, 'a');
    auto big = w.open("/big", O_CREAT | O_RDWR);
    w.write(*big, 0, 160 * 1024, 'z');
}

void run(World& w) {
    auto file = w.open("/f");
    auto seen = w.open("/f");
    auto big = w.open("/big");
    // The cache is full of clean folios.
    (void)w.read(*big, 0, 128 * 1024);
    w.run({{"write", [&] { w.write(*file, 0, size, 'b'); }},
           {"reclaim",
            [&] {
                for (int i = 0; i < 2; ++i) (void)w.read(*big, 32 * 1024, 128 * 1024);
            }},
           {"commit", [&] { w.expect(w.fs().volume().fs().journal.commit_all(), "commit"); }}});
    w.require_bytes("what was written", w.read(*seen, 0, size), "b");
    w.expect(file->sync(false), "fsync");
    w.cut_power();
    file.reset(), seen.reset(), big.reset();
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        after.require(bytes.size() == size, "after the cut: the file is short");
        after.require_bytes("after the cut", bytes, "b");
    });
    w.unmount();
}

const Register registered({"journaled-reclaim",
                           "E: reclaim frees a folio that was unlocked before it joined the transaction",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,data=journal,tiny-cache", prepare, run});

}  // namespace
}  // namespace uext4::explore::journaled_reclaim

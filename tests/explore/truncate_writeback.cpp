// Truncate against writeback, commit and reads.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore {
namespace {

constexpr std::size_t size = 12288;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto file = w.open("/f");
    auto other = w.open("/f");
    auto synced = w.open("/f");
    w.run({{"write",
            [&] {
                w.write(*other, 4096, 4096, 'b');
                w.write(*other, 14000, 500, 'b');
            }},
           {"truncate", [&] { w.expect(file->truncate(6000), "truncate"); }},
           {"writeback", [&] { w.expect(synced->sync(true), "fdatasync"); }},
           {"read", [&] { w.require_bytes("a reader", w.read(*synced, 0, 16384), std::string_view("ab\0", 3)); }},
           {"commit", [&] { w.expect(w.fs().volume().fs().journal.commit_all(), "commit"); }},
           {"cut", [&] { w.cut_power(); }}});
    const std::string before = w.read(*file, 0, 16384);
    w.require(before.size() == 6000 || before.size() == 14500, "a size that nobody made");
    w.require_bytes("the front", before.substr(0, 4096), "a");
    file.reset(), other.reset(), synced.reset();
    w.after_cut([&](World& after) {
        after.require_bytes("after the cut", after.read(*after.open("/f"), 0, 16384), std::string_view("ab\0", 3));
    });
    w.remount();
    w.require(w.read(*w.open("/f"), 0, 16384) == before, "a remount shows other bytes");
    w.unmount();
}

const Register registered({"truncate-writeback", "truncate against writeback, commit and reads",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore

// Problem C, as on a mount: who reads past the cache keeps the blocks from being given to another file meanwhile.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::around_punch {
namespace {

constexpr std::size_t size = 128 << 10, half = size / 2;

// Nothing is free: what is punched out of /f is all that /other can get.
void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, size, 'a');
    w.expect(file->sync(false), "fsync");
    auto big = w.open("/big", O_CREAT | O_RDWR);
    std::uint64_t filled = 0;
    for (std::uint64_t free = 1; (free = w.fs().volume().counts().free_blocks) != 0; filled += free * 4096)
        w.expect(big->fallocate(0, filled, free * 4096), "fallocate");
    w.expect(big->sync(false), "fsync");
    w.open("/other", O_CREAT | O_RDWR).reset();
}

void run(World& w) {
    auto seen = w.open("/f"), punched = w.open("/f"), other = w.open("/other");
    for (auto* const file : {&seen, &punched, &other}) (*file)->set_kernel_cached(true);
    const auto read = [&] {
        for (int i = 0; i < 2; ++i) w.require_bytes("a reader", w.read(*seen, 0, size), std::string_view("a\0", 2));
    };
    w.run({{"read", read}, {"read too", read}, {"punch", [&] {
                                                    w.expect(punched->fallocate(
                                                                 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size),
                                                             "punch");
                                                    w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                                                    w.write(*other, 0, half, 'x');
                                                }}});
    w.require_bytes("the hole", w.read(*punched, 0, size), std::string_view("\0", 1));
    w.require_bytes("the other file", w.read(*other, 0, half), "x");
    seen.reset(), punched.reset(), other.reset();
    w.remount();
    w.require_bytes("the hole, from the device", w.read(*w.open("/f"), 0, size), std::string_view("\0", 1));
    w.require_bytes("the other file, from the device", w.read(*w.open("/other"), 0, half), "x");
    w.unmount();
}

const Register registered({"around-punch", "C: a read past the cache while the blocks are punched and given away",
                           "-t ext4 -b 4096 -N 64 -m 0 -J size=4 12M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::around_punch

// Problem G: zeroing over unwritten and delayed space must see what is dirty there, and only that.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::zero_range {
namespace {

constexpr std::size_t size = 16384;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.expect(file->fallocate(0, 0, size), "fallocate");
    w.write(*file, 0, 4096, 'a');
}

void run(World& w) {
    auto file = w.open("/f");
    auto other = w.open("/f");
    auto synced = w.open("/f");
    w.run({{"write",
            [&] {
                w.write(*file, 0, 4096, 'b');
                w.write(*file, 12288, 4096, 'c');
            }},
           {"zero", [&] { w.expect(other->fallocate(FALLOC_FL_ZERO_RANGE, 3000, 7000), "zero range"); }},
           {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
    auto judge = [&](std::string_view what) {
        const std::string bytes = w.read(*w.open("/f"), 0, size);
        w.require(bytes.size() == size, "the size");
        w.require_bytes(what, bytes.substr(0, 3000), "b");
        w.require_bytes(what, bytes.substr(3000, 1096), std::string_view("b\0", 2));
        w.require_bytes(what, bytes.substr(4096, 8192), std::string_view("\0", 1));
        w.require_bytes(what, bytes.substr(12288), "c");
        return bytes;
    };
    const std::string before = judge("from the cache");
    file.reset(), other.reset(), synced.reset();
    w.remount();
    w.require(judge("from the device") == before, "a remount shows other bytes");
    w.unmount();
}

const Register registered({"zero-range", "G: zeroing misses dirty bytes, or takes more than its range",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::zero_range

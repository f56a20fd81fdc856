// Problem C, as on a mount: large transfers of one whose reader and writer has a cache of his own go past ours, small
// ones through it, and all see one file.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::around_cache {
namespace {

constexpr std::size_t size = 128 << 10, half = 64 << 10;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

std::unique_ptr<OpenFile> opened(World& w) {
    auto file = w.open("/f");
    file->set_kernel_cached(true);
    return file;
}

void run(World& w) {
    auto large = opened(w), small = opened(w), seen = opened(w), synced = opened(w);
    // Small at first, so that a part of what is overwritten is cached and dirty.
    w.write(*small, 4096, 4096, 's');
    w.run({{"large",
            [&] {
                w.write(*large, 0, half, 'l');
                w.require_bytes("what was written", w.read(*large, 0, 4096), "l");
            }},
           {"small",
            [&] {
                w.write(*small, half, 4096, 'm');
                w.expect(small->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, half + 8192, 4096), "punch");
            }},
           {"read", [&] { w.require_bytes("a reader", w.read(*seen, 0, size), std::string_view("alsm\0", 5)); }},
           {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
    auto judge = [&](const std::string& bytes) {
        w.require(bytes.size() == size, "the size");
        w.require_bytes("the large write", bytes.substr(0, half), "l");
        w.require_bytes("the small write", bytes.substr(half, 4096), "m");
        w.require_bytes("what nobody wrote", bytes.substr(half + 4096, 4096), "a");
        w.require_bytes("the hole", bytes.substr(half + 8192, 4096), std::string_view("\0", 1));
        w.require_bytes("the end", bytes.substr(half + 12288), "a");
    };
    judge(w.read(*large, 0, size));
    w.expect(synced->sync(false), "fsync");
    w.cut_power();
    large.reset(), small.reset(), seen.reset(), synced.reset();
    w.after_cut([&](World& after) { judge(after.read(*after.open("/f"), 0, size)); });
    w.unmount();
}

const Register registered({"around-cache", "C: large transfers of a mount go past the cache, small ones through it",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::around_cache

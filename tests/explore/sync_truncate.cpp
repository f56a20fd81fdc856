// A sync beside a truncation that takes dirty blocks out of the cache: it does not return while no transaction has
// that, as a cut would show what was there before the write.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::sync_truncate {
namespace {

constexpr std::size_t block = 4096, size = 4 * block;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto changed = w.open("/f");
    auto synced = w.open("/f");
    w.write(*synced, block, 2 * block, 'b');
    w.run({{"truncate", [&] { w.expect(changed->truncate(block), "truncate"); }},
           {"fdatasync", [&] {
                w.expect(synced->sync(true), "fdatasync");
                w.quietly([&] { w.cut_power(); });
            }}});
    changed.reset(), synced.reset();
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size + 1);
        after.require(bytes.size() == size || bytes.size() == block, "after the cut, the size");
        after.require_bytes("after the cut", bytes.substr(0, block), "a");
        if (bytes.size() == size)
            after.require_bytes("after the cut, what was written", bytes.substr(block, 2 * block), "b");
    });
    w.unmount();
}

const Register registered(
    {"sync-truncate",
     "an fdatasync returns while what was written is in no cache, and the truncation in no transaction",
     "-t ext4 -b 4096 -N 64 -J size=4 24M",
     "noatime",
     prepare,
     run,
     {.cuts_lose = true}});

}  // namespace
}  // namespace uext4::explore::sync_truncate

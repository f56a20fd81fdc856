// Problem F: what was looked up without the folio's lock is stale by the time it is used.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::stale_mapping {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, size, 'a');
}

void run(World& w) {
    auto written = w.open("/f");
    auto seen = w.open("/f");
    auto synced = w.open("/f");
    bool done = false;
    w.run({{"write",
            [&] {
                w.write(*written, 0, size, 'b');
                done = true;
            }},
           {"read",
            [&] {
                for (int i = 0; i < 2; ++i) {
                    const bool before = !done;
                    w.require_bytes("what a reader sees", w.read(*seen, 0, size), before ? "ab" : "b");
                }
            }},
           {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
    w.require_bytes("what was written, from the cache", w.read(*seen, 0, size), "b");
    written.reset(), seen.reset(), synced.reset();
    w.remount();
    w.require_bytes("what was written, from the device", w.read(*w.open("/f"), 0, size), "b");
    w.unmount();
}

const Register registered({"stale-mapping",
                           "F: a mapping looked up before the folio was locked is used although it changed",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::stale_mapping

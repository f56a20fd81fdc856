// Problems B and G: a fault must not bring back what is zeroed, nor may the zeroing take a store that came behind it.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::mapped_zero {
namespace {

constexpr std::size_t page = 4096, size = 4 * page;
constexpr std::uint64_t from = 3000, end = 3 * page;
constexpr std::string_view zeros("\0", 1);

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto zeroing = w.open("/f"), synced = w.open("/f");
    // A page is stored to beside the zeroing: the one or the other came last, for all that was stored.
    auto judge = [&](std::string_view what, const std::string& bytes) {
        w.require(bytes.size() == size, "the size");
        w.require_bytes(what, bytes.substr(0, from), "a");
        w.require_bytes(what, bytes.substr(from, 2 * page - from), zeros);
        w.require_bytes(what, bytes.substr(2 * page, 100), std::string_view(bytes[2 * page] ? "s" : "\0", 1));
        w.require_bytes(what, bytes.substr(2 * page + 100, end - 2 * page - 100), zeros);
        w.require_bytes(what, bytes.substr(end, 100), "t");
        w.require_bytes(what, bytes.substr(end + 100), "a");
    };
    std::string seen;
    {
        Mapped mapped(w, "/f", size);
        w.run({{"zero",
                [&] {
                    w.expect(zeroing->fallocate(FALLOC_FL_ZERO_RANGE, from, end - from), "zero range");
                    w.require_bytes("a load by who zeroed", mapped.load(from, 2 * page - from), zeros);
                }},
               {"load",
                [&] {
                    for (int i = 0; i < 2; ++i) {
                        w.require_bytes("a load before the range", mapped.load(0, 64), "a");
                        w.require_bytes("a load in the range", mapped.load(page, 64), std::string_view("a\0", 2));
                    }
                }},
               {"store",
                [&] {
                    mapped.store(2 * page, 100, 's');
                    mapped.store(end, 100, 't');
                }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
        seen = mapped.load(0, size);
        judge("through the map", seen);
        w.require(w.read(*zeroing, 0, size) == seen, "a read shows other bytes than the map");
    }
    zeroing.reset(), synced.reset();
    w.remount();
    w.require(w.read(*w.open("/f"), 0, size) == seen, "a remount shows other bytes");
    w.require_settled();
    w.unmount();
}

const Register registered({"mapped-zero", "B, G: a fault brings back what is being zeroed, or a store is lost",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_zero

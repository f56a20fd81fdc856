// Whole pages written at once, over the end of the file and over what a map stores to, beside a writeback, a reader and
// reclaim: a page in the middle may be anybody's.
#include "tests/explore/mapped.h"

#include <fcntl.h>

namespace uext4::explore::mapped_run {
namespace {

constexpr std::size_t page = 4096, first_size = 2 * page + 900, size = 5 * page, stored_at = page + 100, length = 10,
                      cache = 64 << 10;

void prepare(World& w) {
    w.write(*w.open("/f", O_CREAT | O_RDWR), 0, first_size, 'a');
    w.write(*w.open("/big", O_CREAT | O_RDWR), 0, 2 * cache, 'z');
}

void run(World& w) {
    auto file = w.open("/f");
    auto other = w.open("/f");
    auto synced = w.open("/f");
    auto big = w.open("/big");
    {
        (void)w.read(*big, 0, cache);
        Mapped mapped(w, "/f", 2 * page);
        w.run({{"write",
                [&] {
                    w.write(*file, page, size - page, 'b');
                    w.write(*file, 0, 3 * page, 'c');
                }},
               {"store", [&] { mapped.store(stored_at, length, 'm'); }},
               {"read",
                [&] {
                    const std::string bytes = w.read(*other, 0, size);
                    w.require(bytes.size() >= first_size, "a reader sees a shorter file");
                    w.require_bytes("a reader", bytes, "abcm");
                }},
               {"reclaim", [&] { (void)w.read(*big, cache, cache); }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }},
               {"cut", [&] {
                    w.pause();
                    w.cut_power();
                }}});
        const std::string bytes = w.read(*file, 0, size + 1);
        w.require(bytes.size() == size, "the size");
        w.require_bytes("what was written last", bytes.substr(0, 3 * page), "cm");
        w.require_bytes("what was written first", bytes.substr(3 * page), "b");
        const std::string place = bytes.substr(stored_at, length);
        w.require(place == std::string(length, place[0]), "a torn store");
        w.require(bytes.substr(0, 2 * page) == mapped.load(0, 2 * page), "the map and a read differ");
    }
    const std::string before = w.read(*file, 0, size);
    file.reset(), other.reset(), synced.reset(), big.reset();
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size + 1);
        after.require(bytes.size() >= first_size, "after the cut: a shorter file");
        after.require_bytes("after the cut", bytes, "abcm");
    });
    w.remount();
    w.require(w.read(*w.open("/f"), 0, size + 1) == before, "a remount shows other bytes");
    w.unmount();
}

const Register registered({"mapped-run",
                           "E, H, J: pages that are written at once, beside stores, a writeback and reclaim",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,tiny-cache", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_run

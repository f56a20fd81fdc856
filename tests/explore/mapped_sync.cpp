// A sync beside a punch or a zeroing, of what was stored through a map when these had written back what was dirty: as
// with a truncation, it does not return while no transaction has what took that out of the cache. Where the tree finds
// no block for that, there will be zeros in place of it, and it does not return before they are on the device.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::mapped_sync {
namespace {

constexpr std::size_t page = 4096, size = 4 * page;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

// Four extents: there is no place for another one in the inode. Nothing is free.
void prepare_full(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, size, 'a');
    for (const std::size_t far : {2, 3, 4}) w.write(*file, far * size, page, 'z');
    w.expect(file->sync(false), "fsync");
    w.fill_but(0);
    w.require(w.fs().volume().counts().free_blocks == 0, "something is free");
}

template <int mode>
void run(World& w) {
    auto changed = w.open("/f");
    auto synced = w.open("/f");
    bool stored = false, was_stored = false;
    {
        Mapped mapped(w, "/f", size);
        w.run({{"store",
                [&] {
                    mapped.store(page, page, 'b');
                    stored = true;
                }},
               {"change",
                [&] { w.expect(changed->fallocate(mode | FALLOC_FL_KEEP_SIZE, page, 2 * page), "the change"); }},
               {"fdatasync", [&] {
                    w.pause();
                    was_stored = stored;
                    w.expect(synced->sync(true), "fdatasync");
                    w.quietly([&] { w.cut_power(); });
                }}});
    }
    changed.reset(), synced.reset();
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        after.require(bytes.size() == size, "after the cut, the size");
        after.require_bytes("after the cut", bytes.substr(0, page), "a");
        after.require_bytes("after the cut, what was stored", bytes.substr(page, page),
                            was_stored ? std::string_view("b\0", 2) : std::string_view("ab\0", 3));
    });
    w.unmount();
}

constexpr const char *about =
                         "an fdatasync returns while what was stored is in no cache, and its end in no transaction",
                     *image = "-t ext4 -b 4096 -N 64 -J size=4 24M",
                     *small = "-t ext4 -b 4096 -N 64 -m 0 -J size=4 12M";
const Register punched(
    {"mapped-sync-punch", about, image, "noatime", prepare, run<FALLOC_FL_PUNCH_HOLE>, {.cuts_lose = true}});
const Register zeroed(
    {"mapped-sync-zero", about, image, "noatime", prepare, run<FALLOC_FL_ZERO_RANGE>, {.cuts_lose = true}});
const Register punched_full(
    {"mapped-sync-punch-full", about, small, "noatime", prepare_full, run<FALLOC_FL_PUNCH_HOLE>, {.cuts_lose = true}});
const Register zeroed_full(
    {"mapped-sync-zero-full", about, small, "noatime", prepare_full, run<FALLOC_FL_ZERO_RANGE>, {.cuts_lose = true}});

}  // namespace
}  // namespace uext4::explore::mapped_sync

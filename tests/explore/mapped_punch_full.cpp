// Problems B and I: a range in the middle of an extent is punched, or zeroed, where the tree finds no block for the
// split. Its blocks stay and get zeros; what they held before a store is not seen behind that store.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::mapped_punch_full {
namespace {

constexpr std::size_t page = 4096, at = page + 100, length = 10;
constexpr std::string_view zero("\0", 1), stored_or_zero("m\0", 2);

// Four extents: there is no place for another one in the inode. Nothing is free.
void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, 4 * page, 'a');
    for (const std::size_t far : {8, 12, 16}) w.write(*file, far * page, page, 'z');
    w.expect(file->sync(false), "fsync");
    auto big = w.open("/big", O_CREAT | O_RDWR);
    std::uint64_t filled = 0;
    for (std::uint64_t free = 1; (free = w.fs().volume().counts().free_blocks) != 0; filled += free * page)
        w.expect(big->fallocate(0, filled, free * page), "fallocate");
    w.expect(big->sync(false), "fsync");
}

void run(World& w, int mode) {
    auto file = w.open("/f");
    auto seen = w.open("/f");
    {
        Mapped mapped(w, "/f", 4 * page);
        w.run({{"punch", [&] { w.expect(file->fallocate(mode | FALLOC_FL_KEEP_SIZE, page, page), "fallocate"); }},
               {"store",
                [&] {
                    for (int i = 0; i < 2; ++i) {
                        mapped.store(at, length, 'm');
                        w.require_bytes("a reader behind the store", w.read(*seen, at, length), stored_or_zero);
                        w.require_bytes("a load behind the store", mapped.load(at, length), stored_or_zero);
                    }
                }},
               {"commit", [&] { w.expect(w.fs().volume().fs().journal.commit_all(), "commit"); }}});
        const std::string bytes = w.read(*file, 0, 4 * page);
        w.require_bytes("before it", bytes.substr(0, page), "a");
        w.require_bytes("the range", bytes.substr(page, 100), zero);
        w.require_bytes("the store", bytes.substr(at, length), stored_or_zero);
        w.require_bytes("behind the store", bytes.substr(at + length, 2 * page - at - length), zero);
        w.require_bytes("behind it", bytes.substr(2 * page), "a");
        w.require(mapped.load(0, 4 * page) == bytes, "the map and a read differ");
    }
    const std::string before = w.read(*file, 0, 17 * page);
    file.reset(), seen.reset();
    w.remount();
    w.require(w.read(*w.open("/f"), 0, 17 * page) == before, "a remount shows other bytes");
    w.unmount();
}

constexpr const char* format = "-t ext4 -b 4096 -N 64 -m 0 -J size=4 12M";
const Register punched({"mapped-punch-full",
                        "B, I: a punch that finds no block for the tree shows what was stored over", format, "noatime",
                        prepare, [](World& w) { run(w, FALLOC_FL_PUNCH_HOLE); }});
const Register zeroed({"mapped-zero-full",
                       "B, I: a zeroing that finds no block for the tree shows what was stored over", format, "noatime",
                       prepare, [](World& w) { run(w, FALLOC_FL_ZERO_RANGE); }});

}  // namespace
}  // namespace uext4::explore::mapped_punch_full

// Problem C: a direct overwrite, while a map brings the same block into the cache, stores to it, and it is written back
// and gone again. Blocks were moved before, so whoever overwrites waits for a commit first.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::mapped_overwrite {
namespace {

constexpr std::size_t size = 8192, block = 4096;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, block, 'x');
    w.write(*file, block, size, 'a');
}

void run(World& w) {
    auto direct = w.open("/f", O_RDWR | O_DIRECT);
    auto synced = w.open("/f");
    w.expect(synced->fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, block), "collapse");
    auto judge = [&](std::string bytes) {
        w.require(bytes.size() == size, "the size");
        if (bytes[10] == 's') bytes[10] = 'd';
        w.require_bytes("what was overwritten", bytes.substr(0, block), "d");
        w.require_bytes("what nobody wrote", bytes.substr(block), "a");
    };
    {
        Mapped mapped(w, "/f", size);
        w.run({{"direct",
                [&] {
                    auto memory = std::make_unique<Aligned<block>>();
                    std::fill_n(memory->bytes, block, std::byte{'d'});
                    w.expect(direct->write(0, memory->bytes), "direct write");
                }},
               {"store",
                [&] {
                    mapped.store(10, 1, 's');
                    w.expect(synced->sync(true), "fdatasync");
                }},
               {"reclaim", [&] {
                    for (int i = 0; i < 3; ++i) {
                        w.pause();
                        reclaim_first(w, synced->inode());
                    }
                }}});
        judge(mapped.load(0, size));
    }
    direct.reset();
    judge(w.read(*synced, 0, size));
    synced.reset();
    w.remount();
    judge(w.read(*w.open("/f"), 0, size));
    w.unmount();
}

const Register registered({"mapped-overwrite",
                           "C: a direct overwrite is lost below a folio that came and went meanwhile; P6",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_overwrite

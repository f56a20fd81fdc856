// Problem C, on a device that fails: a direct overwrite, while a store through a map to the same block is written back
// to other blocks, as the device did not take the old ones, and the folio is gone again.
#include "tests/explore/mapped.h"

#include <fcntl.h>

namespace uext4::explore::direct_moved {
namespace {

constexpr std::size_t size = 8192, block = 4096;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto direct = w.open("/f", O_RDWR | O_DIRECT);
    auto synced = w.open("/f");
    auto memory = std::make_unique<Aligned<block>>();
    // The first write after a mount takes the long way, for the bits that it may have to remove. Not so the next.
    std::fill_n(memory->bytes, block, std::byte{'a'});
    w.expect(direct->write(0, memory->bytes), "direct write");
    std::fill_n(memory->bytes, block, std::byte{'d'});
    bool overwritten = false, lost = false;
    auto judge = [&](World& now, bool all_there) {
        std::string bytes = now.read(*now.open("/f"), 0, size);
        now.require(bytes.size() == size, "the size");
        if (bytes[10] == 's') bytes[10] = bytes[11];
        now.require_bytes("what was overwritten", bytes.substr(0, block), overwritten && all_there ? "d" : "ad");
        now.require_bytes("what nobody wrote", bytes.substr(block), "a");
    };
    {
        Mapped mapped(w, "/f", size);
        w.run({{"direct", [&] { overwritten = w.done(direct->write(0, memory->bytes), "direct write"); }},
               {"store", [&] {
                    w.done(mapped.try_store(10, 1, 's'), "a store through the map");
                    w.done(synced->sync(true), "fdatasync");
                    reclaim_first(w, synced->inode());
                }}});
        judge(w, true);
        lost = !mapped.end();
    }
    direct.reset(), synced.reset();
    const bool well = w.remount_after_errors();
    judge(w, well && !lost);
    w.require_settled();
    w.unmount();
}

const Register registered({"direct-moved",
                           "C: a direct overwrite is lost in blocks that the file has left, as the device failed there",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M",
                           "noatime",
                           prepare,
                           run,
                           {.writes = true, .times = 2, .where = MayFail::Where::beside_the_log}});

}  // namespace
}  // namespace uext4::explore::direct_moved

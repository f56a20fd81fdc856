// Problems C and I: a direct write for which there is no room behind what it has written already.
#include "tests/explore/mapped.h"

#include <fcntl.h>

namespace uext4::explore::mapped_direct_short {
namespace {

// A hole, a page that has blocks, and a hole for which there is no room.
constexpr std::size_t page = 4096, there = page, small = 2 * page, length = 16 * page;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, there, page, 'a');
    w.expect(file->truncate(length), "truncate");
    w.expect(file->sync(false), "fsync");
    w.fill_but(16);
}

void run(World& w) {
    auto direct = w.open("/f", O_RDWR | O_DIRECT), synced = w.open("/f");
    std::size_t written = 0;
    const auto judge = [&](const std::string& bytes) {
        w.require_bytes("before the store", bytes.substr(0, 100), "d");
        w.require_bytes("the store", bytes.substr(100, 4), "sd");
        w.require_bytes("what was written directly", bytes.substr(104, written - 104), "d");
        w.require_bytes("behind that", bytes.substr(written), std::string_view("\0", 1));
    };
    {
        Mapped mapped(w, "/f", length);
        mapped.load(0, 1);
        w.run({{"direct",
                [&] {
                    static Aligned<length> memory;
                    std::ranges::fill(memory.bytes, std::byte{'d'});
                    written = w.expect(direct->write(0, memory.bytes), "direct write");
                    w.require(written >= small, "what has room was not written");
                }},
               {"store", [&] { mapped.store(100, 4, 's'); }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
        judge(mapped.load(0, length));
        judge(w.read(*synced, 0, length));
    }
    direct.reset(), synced.reset();
    w.remount();
    judge(w.read(*w.open("/f"), 0, length));
    w.unmount();
}

const Register registered({"mapped-direct-short",
                           "C, I: a store into what a direct write has written, while it looks for room for the rest",
                           "-t ext4 -b 1024 -N 64 -m 0 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_direct_short

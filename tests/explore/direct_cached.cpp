// Problem C: direct and cached input and output of one file agree whenever nobody is writing.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::direct_cached {
namespace {

constexpr std::size_t size = 12288;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto direct = w.open("/f", O_RDWR | O_DIRECT);
    auto cached = w.open("/f");
    auto seen = w.open("/f");
    {
        // The first write after a mount takes the long way, for the bits that it may have to remove. Not so the next.
        auto memory = std::make_unique<Aligned<4096>>();
        std::fill_n(memory->bytes, 4096, std::byte{'a'});
        w.expect(direct->write(4096, memory->bytes), "direct write");
    }
    w.run({{"direct",
            [&] {
                auto memory = std::make_unique<Aligned<4096>>();
                std::fill_n(memory->bytes, 4096, std::byte{'d'});
                w.expect(direct->write(4096, memory->bytes), "direct write");
                w.expect(direct->read(4096, memory->bytes), "direct read");
                for (std::byte b : memory->bytes) w.require(b == std::byte{'d'}, "a direct read misses a direct write");
            }},
           {"cached",
            [&] {
                w.write(*cached, 0, 4096, 'c');
                w.write(*cached, 9000, 100, 'c');
            }},
           {"read", [&] { w.require_bytes("a reader", w.read(*seen, 0, size), "acd"); }},
           {"sync", [&] { w.expect(cached->sync(false), "fsync"); }}});
    const std::string bytes = w.read(*cached, 0, size);
    w.require_bytes("the first block", bytes.substr(0, 4096), "c");
    w.require_bytes("the direct block", bytes.substr(4096, 4096), "d");
    w.require_bytes("the part written last", bytes.substr(9000, 100), "c");
    direct.reset(), cached.reset(), seen.reset();
    w.remount();
    w.require(w.read(*w.open("/f"), 0, size) == bytes, "a remount shows other bytes");
    w.unmount();
}

const Register registered({"direct-cached", "C: direct and cached views of one file differ",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::direct_cached

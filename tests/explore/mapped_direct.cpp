// Problem C: direct input and output against a map of the same file.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore {
namespace {

constexpr std::size_t size = 8192;

struct Aligned {
    alignas(4096) std::byte bytes[4096];
};

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto direct = w.open("/f", O_RDWR | O_DIRECT);
    {
        Mapped mapped(w, "/f", size);
        w.run({{"direct",
                [&] {
                    auto memory = std::make_unique<Aligned>();
                    std::fill_n(memory->bytes, 4096, std::byte{'d'});
                    w.expect(direct->write(4096, memory->bytes), "direct write");
                    w.require_bytes("a load behind a direct write", mapped.load(4096, 64), "d");
                }},
               {"store", [&] { mapped.store(10, 4, 's'); }},
               {"load", [&] { w.require_bytes("a load", mapped.load(4096, 64), "ad"); }}});
        auto memory = std::make_unique<Aligned>();
        w.expect(direct->read(0, memory->bytes), "direct read");
        w.require(memory->bytes[10] == std::byte{'s'}, "a direct read misses a store");
        w.require_bytes("a load, later", mapped.load(4096, 4096), "d");
    }
    direct.reset();
    w.remount();
    w.require_bytes("the store", w.read(*w.open("/f"), 10, 4), "s");
    w.require_bytes("the direct write", w.read(*w.open("/f"), 4096, 4096), "d");
    w.unmount();
}

const Register registered({"mapped-direct",
                           "C: direct and mapped views of one file differ; P6",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M",
                           "noatime",
                           prepare,
                           run,
                           {{"shipped", "", 0, ""}}});

}  // namespace
}  // namespace uext4::explore

// Problem B: a fault must not bring a folio back into the range that is being punched.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore::mapped_punch {
namespace {

constexpr std::size_t size = 16384;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto punched = w.open("/f");
    {
        Mapped mapped(w, "/f", size);
        w.run({{"punch",
                [&] {
                    w.expect(punched->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192), "punch");
                    w.require_bytes("a load by the puncher", mapped.load(4096, 8192), std::string_view("\0", 1));
                }},
               {"load",
                [&] {
                    for (int i = 0; i < 2; ++i) {
                        w.require_bytes("a load before the hole", mapped.load(0, 64), "as");
                        w.require_bytes("a load in the hole", mapped.load(5000, 4000), std::string_view("a\0", 2));
                    }
                }},
               {"store", [&] { mapped.store(100, 10, 's'); }}});
        w.require_bytes("the punched range, later", mapped.load(4096, 8192), std::string_view("\0", 1));
        w.require_bytes("the same by read", w.read(*punched, 4096, 8192), std::string_view("\0", 1));
        w.require_bytes("the store", w.read(*punched, 100, 10), "s");
    }
    punched.reset();
    w.remount();
    w.require_bytes("after a remount", w.read(*w.open("/f"), 4096, 8192), std::string_view("\0", 1));
    w.require_bytes("the store, after a remount", w.read(*w.open("/f"), 100, 10), "s");
    w.unmount();
}

const Register registered({"mapped-punch", "B: a fault puts a page back into a range that is being punched; P5, P6",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_punch

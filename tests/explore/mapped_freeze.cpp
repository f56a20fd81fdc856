// Problem K: stores through maps stop at a freeze, and go on at the thaw.
#include "tests/explore/freezing.h"
#include "tests/explore/mapped.h"

#include <fcntl.h>

namespace uext4::explore::mapped_freeze {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    Freezing freezing(w);
    {
        Mapped mapped(w, "/f", size);
        mapped.store(0, 1, '0');
        w.run({{"freeze",
                [&] {
                    freezing.freeze_and_thaw();
                    mapped.resume();
                }},
               {"store",
                [&] {
                    freezing.store([&] { mapped.store(0, 4, '1'); });
                    freezing.store([&] { mapped.store(4096, 4, '2'); });
                }},
               {"load", [&] { w.require_bytes("a load", mapped.load(0, 4), "a01"); }}});
        w.require_bytes("the first store", w.read(mapped.file(), 0, 4), "1");
        w.require_bytes("the second store", w.read(mapped.file(), 4096, 4), "2");
    }
    freezing.judge();
    w.remount();
    w.require_bytes("the second store", w.read(*w.open("/f"), 4096, 4), "2");
    w.unmount();
}

const Register registered({"mapped-freeze", "K: a store reaches a frozen file, or is never let go; P11",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_freeze

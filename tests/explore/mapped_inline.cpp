// Problem A: a store through a map of a file whose contents are in the inode, while others hold the inode.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore::mapped_inline {
namespace {

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, 100, 'a'); }

void run(World& w) {
    auto other = w.open("/f");
    auto synced = w.open("/f");
    auto cut = w.open("/f");
    {
        Mapped mapped(w, "/f", 4096);
        w.run({{"store",
                [&] {
                    // As by a system call of the kernel, which cannot fault twice.
                    mapped.store(20, 5, 's', SimulatedMaps::Source::once);
                    mapped.store(10, 5, 's');
                }},
               {"write", [&] { w.write(*other, 100, 200, 'b'); }},
               // The other way round: calls that hold locks of the file when they meet those of its faults.
               {"copy", [&] { mapped.write_from(18, 5, 40); }},
               {"size", [&] { w.expect(cut->truncate(90), "truncate"); }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
        w.require_bytes("a load", mapped.load(20, 5), "s");
    }
    std::size_t size = 0;
    auto judge = [&] {
        const std::string bytes = w.read(*w.open("/f"), 0, 4096);
        // The write comes before the truncation, or behind it.
        w.require(bytes.size() == 90 || bytes.size() == 300, "a size that nobody made");
        w.require(size == 0 || bytes.size() == size, "a remount shows another size");
        size = bytes.size();
        w.require_bytes("what was there", bytes.substr(0, 10), "a");
        w.require_bytes("the first store", bytes.substr(10, 5), "s");
        w.require_bytes("the second store", bytes.substr(20, 5), "s");
        w.require_bytes("what was there", bytes.substr(25, 15) + bytes.substr(45, 45), "a");
        const std::string copy = bytes.substr(40, 5);
        w.require(copy == "aaaaa" || copy == "aasss", "the copy is none of a moment");
        if (size == 90) return;
        w.require_bytes("what was cut off", bytes.substr(90, 10), std::string_view("\0", 1));
        w.require_bytes("what was written", bytes.substr(100), "b");
    };
    judge();
    other.reset(), synced.reset(), cut.reset();
    w.remount();
    judge();
    w.unmount();
}

const Register registered({"mapped-inline",
                           "A: a store fault on inline data and calls on the file take their locks the other way round",
                           "-t ext4 -b 1024 -N 64 -O inline_data -I 256 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_inline

// Problem A: a store through a map of a file whose contents are in the inode, while others hold the inode.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore {
namespace {

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, 100, 'a'); }

void run(World& w) {
    auto other = w.open("/f");
    auto synced = w.open("/f");
    {
        Mapped mapped(w, "/f", 4096);
        w.run({{"store",
                [&] {
                    // As by a system call of the kernel, which cannot fault twice.
                    mapped.store(20, 5, 's', SimulatedMaps::Source::once);
                    mapped.store(10, 5, 's');
                }},
               {"write", [&] { w.write(*other, 100, 200, 'b'); }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
        w.require_bytes("a load", mapped.load(20, 5), "s");
    }
    auto judge = [&] {
        const std::string bytes = w.read(*w.open("/f"), 0, 4096);
        w.require(bytes.size() == 300, "the size");
        w.require_bytes("what was there", bytes.substr(0, 10), "a");
        w.require_bytes("the first store", bytes.substr(10, 5), "s");
        w.require_bytes("the second store", bytes.substr(20, 5), "s");
        w.require_bytes("what was written", bytes.substr(100), "b");
    };
    judge();
    other.reset(), synced.reset();
    w.remount();
    judge();
    w.unmount();
}

const Register registered({"mapped-inline",
                           "A: a store fault on inline data and write(2) take their locks the other way round",
                           "-t ext4 -b 1024 -N 64 -O inline_data -I 256 -J size=1 8M",
                           "noatime",
                           prepare,
                           run,
                           {{"shipped", "", 0, ""},
                            {"convert-in-fault", "fault_only_reserves", 500,
                             "the fault moves the data to a block itself, under its own locks"},
                            {"drop-and-retry", "fault_needs_no_retry", 500,
                             "the fault drops its locks, moves the data and asks for the access again"}}});

}  // namespace
}  // namespace uext4::explore

// Problem H: stores behind the end of the file, in its last page, while it shrinks and grows.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, 5000, 'a'); }

void run(World& w) {
    auto file = w.open("/f");
    auto synced = w.open("/f");
    {
        Mapped mapped(w, "/f", size);
        w.run({{"store",
                [&] {
                    for (int i = 0; i < 2; ++i) {
                        // In the page of the end, which may be behind it; past that page when the file is at its
                        // shortest.
                        auto done = mapped.try_store(5500, 10, 's');
                        if (!done && done.error().code != EFAULT) w.wrong("store: " + done.error().what);
                    }
                }},
               {"size",
                [&] {
                    w.expect(file->truncate(4500), "truncate");
                    w.expect(file->truncate(7000), "grow");
                }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }},
               {"cut", [&] {
                    w.pause();
                    w.cut_power();
                }}});
        // The hole that growing made may hold the last store, made when it was in the file, and else nothing.
        const std::string bytes = w.read(*file, 0, size);
        w.require(bytes.size() == 7000, "the size");
        w.require_bytes("what stays", bytes.substr(0, 4500), "a");
        w.require_bytes("behind the shortest end", bytes.substr(4500, 1000), std::string_view("\0", 1));
        w.require_bytes("behind the store", bytes.substr(5510), std::string_view("\0", 1));
        w.require(bytes == mapped.load(0, 7000), "the map and a read differ");
    }
    file.reset(), synced.reset();
    w.after_cut([&](World& after) {
        // What lies behind the end on the disk shows when the file grows.
        auto cut = after.open("/f");
        const std::string bytes = after.read(*cut, 0, size);
        after.expect(cut->truncate(size), "grow");
        after.require_bytes("behind the end, after the cut", after.read(*cut, bytes.size(), size),
                            std::string_view("\0", 1));
    });
    w.unmount();
}

const Register registered({"mapped-tail",
                           "H: a store behind the end of the file reaches the disk, or shows when the file grows; P4",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M",
                           "noatime",
                           prepare,
                           run,
                           {{"shipped", "", 0, ""},
                            {"no-zeroing", "zeroes_tails", 500, "the tail of the last block is not zeroed"}}});

}  // namespace
}  // namespace uext4::explore

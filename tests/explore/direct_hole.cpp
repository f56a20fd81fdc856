// A direct write into a hole: until its data is on the device, whoever reads sees zeros, and not what the new blocks
// held for the file that had them before.
#include "tests/explore/scenario.h"

#include <fcntl.h>

#include <algorithm>

namespace uext4::explore::direct_hole {
namespace {

constexpr std::size_t page = 4096, size = 4 * page, cached_size = 24 * page;

void prepare(World& w) {
    auto cached = w.open("/cached", O_CREAT | O_RDWR);
    w.write(*cached, 0, cached_size, 'c');
    cached.reset();
    // All that is free has had another file's bytes.
    auto other = w.open("/other", O_CREAT | O_RDWR);
    const auto counts = w.fs().volume().counts();
    w.write(*other, 0, (counts.free_blocks - 40) * page, 'x');
    w.expect(other->sync(false), "fsync");
    other.reset();
    auto top = w.expect(w.fs().root(), "root");
    w.expect(w.fs().unlink(*top, "other", Credentials::root(), false), "unlink");
    w.fs().volume().wait_for_deletions();
    w.expect(w.open("/f", O_CREAT | O_RDWR)->truncate(size), "truncate");
    w.expect(w.fs().sync(), "sync");
}

void run(World& w) {
    auto direct = w.open("/f", O_RDWR | O_DIRECT);
    auto cached = w.open("/f");
    auto others = w.open("/cached");
    // The cache is full of clean folios.
    (void)w.read(*others, 0, cached_size);
    w.run({{"direct",
            [&] {
                // Into the hole, and over what is then there.
                auto memory = std::make_unique<Aligned<2 * page>>();
                for (const char fill : {'d', 'e'}) {
                    std::fill_n(memory->bytes, sizeof memory->bytes, static_cast<std::byte>(fill));
                    w.expect(direct->write(page, memory->bytes), "direct write");
                }
            }},
           {"read",
            [&] {
                for (int i = 0; i < 2; ++i)
                    w.require_bytes("a reader", w.read(*cached, 0, size), std::string_view("de\0", 3));
            }},
           {"reclaim", [&] {
                for (std::size_t at = 0; at < cached_size; at += 8 * page) (void)w.read(*others, at, 2 * page);
            }}});
    const std::string bytes = w.read(*cached, 0, size);
    w.require_bytes("before it", bytes.substr(0, page), std::string_view("\0", 1));
    w.require_bytes("what was written", bytes.substr(page, 2 * page), "e");
    w.require_bytes("behind it", bytes.substr(3 * page), std::string_view("\0", 1));
    direct.reset(), cached.reset(), others.reset();
    w.remount();
    w.require(w.read(*w.open("/f"), 0, size) == bytes, "a remount shows other bytes");
    w.unmount();
}

const Register registered({"direct-hole",
                           "C, F: a reader beside a direct write into a hole sees what its blocks held before",
                           "-t ext4 -b 4096 -N 64 -m 0 -J size=4 16M", "noatime,tiny-cache", prepare, run});

}  // namespace
}  // namespace uext4::explore::direct_hole

// Problem I: no space in a store fault refuses that access, and nothing else.
#include "tests/explore/mapped.h"

#include <fcntl.h>

#include <optional>

namespace uext4::explore::mapped_full {
namespace {

constexpr std::size_t size = 65536;

void prepare(World& w) {
    w.expect(w.open("/f", O_CREAT | O_RDWR)->truncate(size), "truncate");
    w.fill_but(24);
}

void run(World& w) {
    bool stored[16] = {};
    auto synced = w.open("/f");
    {
        Mapped mapped(w, "/f", size);
        auto storing = [&](int first) {
            for (int i = first; i < first + 4; ++i) {
                auto done = mapped.try_store(static_cast<std::uint64_t>(i) * 4096, 4096, 's');
                if (!done && done.error().code != ENOSPC) w.wrong("store: " + done.error().what);
                stored[i] = done.has_value();
            }
        };
        w.run({{"low", [&] { storing(0); }}, {"high", [&] { storing(8); }}, {"sync", [&] {
                                                                                 w.expect(synced->sync(false), "fsync");
                                                                             }}});
    }
    synced.reset();
    w.remount();
    auto file = w.open("/f");
    int count = 0;
    for (int i = 0; i < 16; ++i) {
        const std::string bytes = w.read(*file, static_cast<std::uint64_t>(i) * 4096, 4096);
        w.require_bytes("a page", bytes, stored[i] ? std::string_view("s") : std::string_view("\0", 1));
        count += stored[i];
    }
    w.require(count >= 1, "no store found room");
    file.reset();
    w.unmount();
}

const Register registered({"mapped-full",
                           "I: no space in a store fault: deadlock, a lost page, or somebody else's error; P7",
                           "-t ext4 -b 1024 -N 64 -m 0 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_full

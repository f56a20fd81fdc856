// Problem B, with reads in the place of faults: a folio that is read in while its blocks go must not stay.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::punch_against_read {
namespace {

constexpr std::size_t size = 16384;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, size, 'a');
}

void run(World& w) {
    auto punched = w.open("/f");
    auto seen = w.open("/f");
    bool done = false;
    w.run({{"punch",
            [&] {
                w.expect(punched->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192), "punch");
                done = true;
                const std::string after = w.read(*punched, 4096, 8192);
                w.require_bytes("read by the puncher behind its punch", after, std::string_view("\0", 1));
            }},
           {"read", [&] {
                for (int i = 0; i < 2; ++i) {
                    const bool before = !done;
                    const std::string bytes = w.read(*seen, 0, size);
                    w.require(bytes.size() == size, "a short read");
                    w.require_bytes("the part that stays", bytes.substr(0, 4096), "a");
                    w.require_bytes("the punched part", bytes.substr(4096, 8192),
                                    before ? std::string_view("a\0", 2) : std::string_view("\0", 1));
                }
            }}});
    const std::string after = w.read(*seen, 4096, 8192);
    w.require_bytes("the punched range, later", after, std::string_view("\0", 1));
    punched.reset();
    seen.reset();
    w.unmount();
}

const Register registered({"punch-read", "B: a folio read in while its range is punched stays with the old bytes",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::punch_against_read

// Two syncs of one file, of which one finds what the other has on its way: neither returns before it is there.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::two_syncs {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto one = w.open("/f");
    auto other = w.open("/f");
    w.write(*one, 0, size / 2, 'b');
    bool durable = false;
    std::vector<bool> was_durable;
    w.run({{"fsync",
            [&] {
                w.expect(one->sync(false), "fsync");
                durable = true;
            }},
           {"fdatasync",
            [&] {
                w.expect(other->sync(true), "fdatasync");
                durable = true;
            }},
           {"cut", [&] {
                for (int i = 0; i < 3; ++i) {
                    w.pause();
                    was_durable.push_back(durable);
                    w.cut_power();
                }
            }}});
    one.reset(), other.reset();
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size + 1);
        after.require(bytes.size() == size, "after the cut, the size");
        after.require_bytes("after the cut", bytes.substr(0, size / 2), was_durable[n++] ? "b" : "ab");
        after.require_bytes("after the cut, what nobody wrote", bytes.substr(size / 2), "a");
    });
    w.unmount();
}

const Register registered({"two-syncs",
                           "fsync against fdatasync: one returns before what the other writes is there",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M",
                           "noatime",
                           prepare,
                           run,
                           {.cuts_lose = true}});

}  // namespace
}  // namespace uext4::explore::two_syncs

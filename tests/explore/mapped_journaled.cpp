// Problem D: data=journal, stores through a map while the folio's transaction is committed.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore::mapped_journaled {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto synced = w.open("/f");
    bool durable = false;
    std::vector<bool> was_durable;
    {
        Mapped mapped(w, "/f", size);
        mapped.store(0, 4, '0');
        w.run({{"store",
                [&] {
                    for (char c : {'1', '2'}) mapped.store(0, 4, c);
                    w.expect(synced->sync(false), "fsync");
                    durable = true;
                }},
               {"commit", [&] { w.expect(w.fs().volume().fs().journal.commit_all(), "commit"); }},
               {"writeback", [&] { w.expect(write_back(synced->inode()), "writeback"); }},
               {"cut", [&] {
                    w.pause();
                    was_durable.push_back(durable);
                    w.cut_power();
                }}});
        was_durable.push_back(durable);
        w.cut_power();
        w.require_bytes("a read", w.read(*synced, 0, 4), "2");
    }
    synced.reset();
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        after.require(bytes.size() == size, "after the cut: the size");
        after.require(bytes.substr(0, 4) == std::string(4, bytes[0]), "after the cut: a torn store");
        after.require_bytes("after the cut", bytes.substr(0, 4), was_durable[n++] ? "2" : "a012");
        after.require_bytes("after the cut", bytes.substr(4), "a");
    });
    w.remount();
    w.require_bytes("after a remount", w.read(*w.open("/f"), 0, 4), "2");
    w.unmount();
}

const Register registered({"mapped-journaled",
                           "D: a page of the committing transaction is changed through a map; P2, P3",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,data=journal", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_journaled

// Problems B and E: data=journal, a punch of parts of folios that a transaction has, while that is committed.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::mapped_punch_journaled {
namespace {

constexpr std::size_t size = 12288;
// All of the second folio, and parts of those beside it.
constexpr std::uint64_t from = 1024, end = 9216;
constexpr std::string_view zeros("\0", 1);

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto punched = w.open("/f"), synced = w.open("/f");
    bool punch_durable = false;
    std::vector<bool> was_durable;
    auto cut = [&] {
        was_durable.push_back(punch_durable);
        w.cut_power();
    };
    auto judge = [&](std::string_view what, const std::string& bytes) {
        w.require(bytes.size() == size, "the size");
        w.require_bytes(what, bytes.substr(0, 4), "s");
        w.require_bytes(what, bytes.substr(4, from - 4), "b");
        w.require_bytes(what, bytes.substr(from, end - from), zeros);
        w.require_bytes(what, bytes.substr(end, 4), "s");
        w.require_bytes(what, bytes.substr(end + 4), "b");
    };
    {
        Mapped mapped(w, "/f", size);
        w.write(*synced, 0, size, 'b');
        w.run({{"punch",
                [&] {
                    w.expect(punched->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, end - from), "punch");
                    w.require_bytes("a load by the puncher", mapped.load(from, end - from), zeros);
                    w.expect(punched->sync(false), "fsync");
                    punch_durable = true;
                }},
               {"store",
                [&] {
                    mapped.store(0, 4, 's');
                    mapped.store(end, 4, 's');
                }},
               {"load", [&] { w.require_bytes("a load", mapped.load(from, end - from), std::string_view("b\0", 2)); }},
               {"commit", [&] {
                    w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                    cut();
                }}});
        cut();
        judge("through the map", mapped.load(0, size));
        judge("from the cache", w.read(*punched, 0, size));
    }
    punched.reset(), synced.reset();
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        after.require(bytes.size() == size, "after the cut: the size");
        after.require_bytes("after the cut, before the hole", bytes.substr(0, from), "bs");
        const std::string range = bytes.substr(from, end - from);
        const bool is_hole = was_durable[n++] || range[0] == '\0';
        after.require_bytes("after the cut, the hole or all that was there", range, is_hole ? zeros : "b");
        after.require_bytes("after the cut, behind the hole", bytes.substr(end), "bs");
    });
    w.remount();
    judge("after a remount", w.read(*w.open("/f"), 0, size));
    w.require_settled();
    w.unmount();
}

const Register registered({"mapped-punch-journaled",
                           "B, E: what a punch clears is cleared in a transaction that is before it as well",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime,data=journal", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_punch_journaled

// Data whose write fails: tried again elsewhere, kept, told by every fsync; and an fsync that returned 0 kept its word.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::error_fsync {
namespace {

constexpr std::size_t size = 12288;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, 8192, 'a'); }

void run(World& w) {
    auto file = w.open("/f");
    auto other = w.open("/f");
    bool written = false, durable = false;
    std::vector<bool> was_durable;
    w.run({{"write",
            [&] {
                written = w.done_write(*file, 2000, size - 2000, 'b');
                // A second one must not say that all is well because the first has told of the error.
                for (int i = 0; i < 2; ++i) durable = (w.done(file->sync(false), "fsync") && written) || durable;
            }},
           {"sync",
            [&] {
                const bool before = written;  // what is written while it syncs, it promises nothing of
                durable = (w.done(other->sync(true), "fdatasync") && before) || durable;
            }},
           {"commit", [&] { w.done(w.fs().volume().fs().journal.commit_all(), "commit"); }},
           {"cut", [&] {
                for (int i = 0; i < 2; ++i) {
                    w.pause();
                    was_durable.push_back(durable);
                    w.cut_power();
                }
            }}});
    auto judge = [&](World& after, bool synced) {
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        after.require(bytes.size() >= 8192, "the file is shorter than it ever was");
        after.require_bytes("the front", bytes.substr(0, 2000), "a");
        after.require_bytes("what was written", bytes.substr(2000), synced ? "b" : "ab");
        if (synced) after.require(bytes.size() == size, "synced bytes are gone");
    };
    if (written && !w.fs().read_only()) judge(w, true);  // from the cache, whatever the device did
    const bool promised = durable;
    file.reset(), other.reset();
    const bool well = w.remount_after_errors();
    judge(w, promised || (well && written));
    w.require_settled();
    std::size_t n = 0;
    w.after_cut([&](World& after) { judge(after, was_durable[n++]); });
    w.unmount();
}

const Register registered({"error-fsync",
                           "failing data writes beside fsync: an fsync returns 0 and its data is not there",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M",
                           "noatime",
                           prepare,
                           run,
                           {.writes = true, .times = 6, .where = MayFail::Where::beside_the_log}});

}  // namespace
}  // namespace uext4::explore::error_fsync

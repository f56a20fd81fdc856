// Stores through a map on a device that fails: refused or kept, and what an fsync answered with 0 is there.
#include "tests/explore/mapped.h"

#include <fcntl.h>

namespace uext4::explore::error_mapped {
namespace {

constexpr std::size_t size = 12288;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, 4096, 'a');
    w.expect(file->truncate(size), "truncate");
}

void run(World& w) {
    auto synced = w.open("/f");
    auto other = w.open("/f");
    bool stored = false, durable = false, written_back = false;
    std::vector<bool> was_durable;
    {
        Mapped mapped(w, "/f", size);
        w.run({{"store",
                [&] {
                    bool all = true;
                    for (std::uint64_t at : {100, 4200, 8300})
                        all = w.done(mapped.try_store(at, 8, 's'), "a store through the map") && all;
                    stored = all;
                    for (int i = 0; i < 2; ++i) durable = (w.done(synced->sync(false), "fsync") && stored) || durable;
                }},
               {"writeback", [&] { w.done(write_back(other->inode()), "writeback"); }},
               {"write", [&] { w.done_write(*other, 4096, 100, 'w'); }},
               {"commit", [&] { w.done(w.fs().volume().fs().journal.commit_all(), "commit"); }},
               {"cut", [&] {
                    w.pause();
                    was_durable.push_back(durable);
                    w.cut_power();
                }}});
        written_back = mapped.end();
    }
    auto judge = [&](World& after, bool whole) {
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        after.require(bytes.size() == size, "the size");
        for (std::size_t at : {100, 4200, 8300})
            after.require_bytes("a store", bytes.substr(at, 8),
                                whole ? std::string_view("s") : std::string_view("as\0", 3));
        after.require_bytes("beside the stores", bytes.substr(200, 3896), "a");
        after.require_bytes("what was written", bytes.substr(4096, 100), std::string_view("w\0", 2));
        after.require_bytes("behind all", bytes.substr(8308), std::string_view("\0", 1));
    };
    synced.reset(), other.reset();
    const bool well = w.remount_after_errors();
    judge(w, durable || (well && stored && written_back));
    w.require_settled();
    std::size_t n = 0;
    w.after_cut([&](World& after) { judge(after, was_durable[n++]); });
    w.unmount();
}

const Register ordered({"error-mapped",
                        "stores through a map on a failing device: lost, or told durable when they are not",
                        "-t ext4 -b 4096 -N 64 -J size=4 24M",
                        "noatime",
                        prepare,
                        run,
                        {.reads = true, .writes = true, .times = 6, .where = MayFail::Where::beside_the_log}});
const Register journaled({"error-journaled",
                          "the same in data=journal, where the log, the way home and flushes fail",
                          "-t ext4 -b 4096 -N 64 -J size=4 24M",
                          "noatime,data=journal",
                          prepare,
                          run,
                          {.reads = true, .writes = true, .flushes = true, .times = 3}});

}  // namespace
}  // namespace uext4::explore::error_mapped

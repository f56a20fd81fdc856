// Blocks that a commit is about to free, on a full file system whose other files wait for them.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>

namespace uext4::explore::freed_given {
namespace {

constexpr std::size_t block = 1024, blocks = 8, size = blocks * block;

// What is free does not hold another one of its size.
void prepare(World& w) {
    for (const char* name : {"/removed", "/punched"}) {
        auto file = w.open(name, O_CREAT | O_RDWR);
        w.write(*file, 0, size, 'o');
        w.expect(file->sync(false), "fsync");
    }
    w.fill_but(blocks / 2);
}

void run(World& w) {
    auto punched = w.open("/punched");
    w.run({{"remove",
            [&] {
                w.expect(w.fs().unlink(**w.fs().root(), "removed", Credentials::root(), false), "unlink");
                w.fs().volume().wait_for_deletions();
                w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
            }},
           {"punch",
            [&] {
                w.expect(punched->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, block, size - block), "punch");
                w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
            }},
           {"write",
            [&] {
                static Aligned<size> bytes;
                std::ranges::fill(bytes.bytes, std::byte{'n'});
                auto file = w.open("/new", O_CREAT | O_RDWR | O_DIRECT);
                for (int i = 0; i < 2; ++i) {
                    auto n = file->write(i * size, bytes.bytes);
                    if (!n) w.allow(fail(n.error()), ENOSPC, "write");
                    w.pause();
                }
            }},
           {"cut", [&] {
                for (int i = 0; i < 2; ++i) {
                    w.pause();
                    w.cut_power();
                }
            }}});
    punched.reset();
    w.after_cut([&](World& after) {
        const auto names = after.names("/");
        if (std::ranges::find(names, "removed") != names.end())
            after.require_bytes("not removed", after.read(*after.open("/removed"), 0, size), "o");
        const std::string bytes = after.read(*after.open("/punched"), 0, size);
        const bool whole = bytes[block] != 0;
        after.require_bytes("before the punch", bytes.substr(0, block), "o");
        after.require_bytes(whole ? "not punched" : "punched", bytes.substr(block),
                            whole ? "o" : std::string_view("\0", 1));
    });
    w.unmount();
}

const Register registered({"freed-given",
                           "what is freed is given away, and comes back by a power cut with another's bytes",
                           "-t ext4 -b 1024 -N 64 -m 0 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::freed_given

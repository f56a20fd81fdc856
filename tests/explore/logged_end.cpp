// The last block of a file that cannot move goes through the log. What is written over it later is not lost by that,
// and nobody reads what it had before.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::logged_end {
namespace {

constexpr std::size_t block = 1024, before = block + 300, after = 2 * block;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, before, 'a');
    w.expect(file->sync(false), "fsync");
}

void run(World& w) {
    auto file = w.open("/f"), direct = w.open("/f", O_RDWR | O_DIRECT), reader = w.open("/f", O_RDONLY | O_DIRECT);
    // What the second block holds begins with one of these, and ends so: 'b' is the append, logged; then the cached
    // write over it, and the direct one.
    char durable = 'a', newest = 'a';
    struct Cut {
        char durable, newest;
    };
    std::vector<Cut> cuts;
    const auto cut = [&] {
        w.quietly([&] {
            w.cut_power();
            cuts.push_back({durable, newest});
        });
    };
    w.run({{"write",
            [&] {
                newest = 'b';
                w.write(*file, before, after - before, 'b');
                w.expect(file->sync(false), "fsync");
                durable = 'b';
                newest = 'c';
                w.write(*file, block, block, 'c');
                w.expect(file->sync(true), "fdatasync");  // which does not wait for who writes to the log
                durable = 'c';
                cut();
                newest = 'd';
                static Aligned<block> bytes;
                std::ranges::fill(bytes.bytes, std::byte{'d'});
                w.expect(direct->write(block, bytes.bytes), "direct write");
                w.expect(file->sync(true), "fdatasync");
                durable = 'd';
                cut();
            }},
           {"checkpoint",
            [&] {
                w.pause();
                w.expect(w.fs().volume().fs().journal.checkpoint_all(), "checkpoint");
            }},
           {"read",
            [&] {
                const char least = durable;
                alignas(4096) static std::byte bytes[block];
                const std::size_t n = w.expect(reader->read(block, bytes), "direct read");
                const char last = n == block ? static_cast<char>(bytes[block - 1]) : 'a';
                w.require(last >= least && last <= newest, "a direct read sees an older block");
            }},
           {"cut", [&] {
                w.pause();
                cut();
            }}});
    file.reset(), direct.reset(), reader.reset();
    std::size_t n = 0;
    w.after_cut([&](World& recovered) {
        const std::string bytes = recovered.read(*recovered.open("/f"), 0, after + 1);
        const Cut then = cuts[n++];
        const char last = bytes.size() == after ? bytes.back() : 'a';
        recovered.require(bytes.size() == before || bytes.size() == after, "after the cut: a size that nobody made");
        recovered.require(last >= then.durable, "after the cut: synced bytes are gone");
        recovered.require(last <= then.newest, "after the cut: bytes from later");
    });
    w.require(w.read(*w.open("/f"), block, block) == std::string(block, 'd'), "the file");
    w.remount();
    w.require(w.read(*w.open("/f"), block, block) == std::string(block, 'd'), "after a remount");
    w.unmount();
}

// What it was made unwritten for, and then written, is not lost below the image that is on its way home.
void run_zeroed(World& w) {
    auto file = w.open("/f");
    const std::size_t end = after + 2 * block;
    w.run({{"write",
            [&] {
                for (std::size_t at = before; at < end; at += block) {
                    w.write(*file, at, std::min(block, end - at), 'b');
                    w.expect(file->sync(false), "fsync");
                }
                w.expect(file->fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, block, block), "zero range");
                w.write(*file, block, block, 'e');
                w.expect(file->sync(false), "fsync");
            }},
           {"checkpoint", [&] {
                for (int i = 0; i < 2; ++i) {
                    w.pause();
                    w.expect(w.fs().volume().fs().journal.checkpoint_all(), "checkpoint");
                }
            }}});
    file.reset();
    w.remount();
    w.require(w.read(*w.open("/f"), block, block) == std::string(block, 'e'), "after a remount");
    w.unmount();
}

const Register zeroed({"logged-zeroed",
                       "J, P4: a last block that goes through the log comes home over what took its place",
                       "-t ext4 -b 1024 -O bigalloc -C 8192 -N 64 -J size=1 8M", "noatime", prepare, run_zeroed});

const Register registered({"logged-end",
                           "J, P4: a last block that goes through the log comes back over what was written to it later",
                           "-t ext4 -b 1024 -O bigalloc -C 8192 -N 64 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::logged_end

// What a cache above was refused is kept: dirty without a promise, beside syncs, others' writes and freed space.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <cerrno>

namespace uext4::explore::beyond_space {
namespace {

constexpr std::size_t piece = 4096;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, piece, 'o');
    w.expect(file->truncate(5 * piece), "truncate");
    w.expect(file->sync(false), "fsync");
    w.fill_but(4);
}

// As a mount does: what is refused goes beyond the space.
void write_late(World& w, OpenFile& file, std::uint64_t offset, char fill) {
    const std::string bytes(piece, fill);
    const ConstBytes in = std::as_bytes(std::span(bytes));
    auto count = file.write(offset, in);
    if (!count && count.error().code != ENOSPC) w.wrong("write: " + count.error().what);
    const std::size_t done = count.value_or(0);
    if (done < piece)
        w.require(w.expect(file.write_beyond_reserved_space(offset + done, in.subspan(done)), "beyond") == piece - done,
                  "a short one");
}

void run(World& w) {
    auto file = w.open("/f");
    bool written = false, asked = false, durable = false;
    w.run({{"late",
            [&] {
                write_late(w, *file, 2 * piece, 'a');
                write_late(w, *file, 0, 'b');
                write_late(w, *file, 6 * piece, 'c');
                written = true;
            }},
           {"sync",
            [&] {
                for (int i = 0; i < 100 && !written; ++i) w.pause();
                const bool all = written;
                const auto synced = file->sync(false);
                asked = true;
                w.allow(synced, ENOSPC, "fsync");
                durable = all && synced;
                if (durable) w.cut_power();
            }},
           {"free", [&] {
                for (int i = 0; i < 100 && !asked; ++i) w.pause();
                w.expect(w.open("/fill")->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 64 * 1024), "punch");
                const auto synced = w.fs().sync();
                w.allow(synced, ENOSPC, "sync");
            }}});
    const auto judge = [](World& x) {
        auto seen = x.open("/f");
        const std::string bytes = x.read(*seen, 0, 8 * piece);
        x.require(bytes.size() == 7 * piece, "the file has not its size");
        const std::string_view all = bytes;
        for (const auto& [at, fill] : {std::pair{0, "b"}, {2, "a"}, {6, "c"}})
            x.require_bytes("what was kept", all.substr(static_cast<std::size_t>(at) * piece, piece), fill);
        for (const std::size_t at : {1, 3, 4, 5})
            x.require_bytes("a hole", all.substr(at * piece, piece), std::string_view("\0", 1));
    };
    if (durable) w.after_cut(judge);
    judge(w);
    w.expect(file->sync(false), "fsync: there is space");
    file.reset();
    w.remount();
    judge(w);
    w.unmount();
}

const Register registered({"beyond-space",
                           "I: what a late write was refused is kept, and durable when an fsync says so",
                           "-t ext4 -b 1024 -N 64 -m 0 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::beyond_space

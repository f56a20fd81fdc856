// Problem C, on a device that fails: a direct read on its way to blocks that the file leaves meanwhile, as the device
// did not take what was written over them, and that another file would then get.
#include "tests/explore/mapped.h"

#include <fcntl.h>

#include <cerrno>

namespace uext4::explore::direct_read_moved {
namespace {

constexpr std::size_t block = 4096, room = 4;

std::uint64_t block_of(World& w, OpenFile& file) {
    std::uint64_t block_nr = 0;
    w.expect(
        for_each_extent(file.inode(), 0, block, [&](const Mapping& run) { return block_nr = run.block.value, false; }),
        "the extents");
    return block_nr;
}

// Where the other file goes on when that is free.
std::uint64_t end_of_other(World& w) {
    std::uint64_t end = 0;
    w.expect(for_each_extent(w.open("/other")->inode(), 0, 1 << 24,
                             [&](const Mapping& run) { return end = run.end(), true; }),
             "the extents");
    return end;
}

// The other file reaches up to this one; and there is room for a move, which claims what the tree may need, but for
// nobody after it who does not take what it left.
void prepare(World& w) {
    auto other = w.open("/other", O_CREAT | O_RDWR), file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*other, 0, block, 'o');
    w.expect(other->sync(false), "fsync");
    w.write(*file, 0, block, 'a');
    w.expect(file->sync(false), "fsync");
    const std::uint64_t between = block_of(w, *file) - block_of(w, *other);
    w.expect(other->fallocate(0, 0, between * block), "fallocate");
    w.fill_but(room);
}

void run(World& w) {
    auto direct = w.open("/f", O_RDONLY | O_DIRECT);
    auto other = w.open("/other", O_RDWR | O_DIRECT);
    auto others = std::make_unique<Aligned<block>>();
    std::fill_n(others->bytes, block, std::byte{'o'});
    const std::uint64_t end = end_of_other(w);
    bool lost = false, durable = false;
    const auto judge = [&](World& now, bool all_there) {
        const std::string bytes = now.read(*now.open("/f"), 0, block);
        now.require(bytes.size() == block, "the size");
        now.require_bytes("the file", bytes, durable && all_there ? "s" : "as");
    };
    {
        Mapped mapped(w, "/f", block);
        const auto read = [&] {
            auto memory = std::make_unique<Aligned<block>>();
            for (int i = 0; i < 2; ++i) {
                if (!w.done(direct->read(0, memory->bytes), "direct read")) continue;
                w.require_bytes("what was read past the cache", {reinterpret_cast<const char*>(memory->bytes), block},
                                "as");
            }
        };
        w.failing().fail_next_write_of(block_of(w, mapped.file()) * block);
        const auto store = [&] {
            w.done(mapped.try_store(0, block, 's'), "a store through the map");
            durable = w.done(mapped.file().sync(true), "fdatasync");
            const auto more = other->write(end, others->bytes);
            if (!more && more.error().code != ENOSPC) w.done(more, "a direct write to the other file");
        };
        w.run({{"read", read}, {"read too", read}, {"store", store}});
        judge(w, true);
        lost = !mapped.end();
    }
    direct.reset(), other.reset();
    const bool well = w.remount_after_errors();
    judge(w, well && !lost);
    w.require_settled();
    w.unmount();
}

const Register registered({"direct-read-moved",
                           "C: a direct read finds what another file has written to blocks that the file has left",
                           "-t ext4 -b 4096 -N 64 -m 0 -J size=4 24M",
                           "noatime",
                           prepare,
                           run,
                           {.writes = true, .times = 1, .where = MayFail::Where::beside_the_log}});

}  // namespace
}  // namespace uext4::explore::direct_read_moved

// The log is full and begins anew while there is work: what is committed goes home beside a transaction that changes
// the same blocks, or changes and frees them, and whoever wants to begin the next one waits for room.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::log_full {
namespace {

const Credentials root = Credentials::root();

constexpr std::uint32_t touched = 170;  // of a log of 1,023 blocks, a quarter of which one transaction may take

struct Mark {
    BufferRef block;
    std::byte& byte;
};
// In a block of the inode tables of its own, in an inode that nobody uses.
Mark mark(World& w, std::uint32_t inode) {
    FsContext& fs = w.fs().volume().fs();
    const auto place = w.expect(fs.allocator.locate_inode(InodeNr(inode)), "place");
    BufferRef block = w.expect(fs.buffers.read(place.block, "inode table"), "read");
    std::byte& byte = block->data()[place.offset + 200];
    return {std::move(block), byte};
}

// One change of many blocks; the power may be cut in its middle.
void change(World& w, std::uint32_t first_inode, int round) {
    Handle handle = w.expect(w.fs().volume().fs().journal.start(touched + 8), "start");
    for (std::uint32_t i = 0; i < touched; ++i) {
        const Mark m = mark(w, first_inode + 4 * i);
        w.expect(handle.get_write_access(m.block), "write access");
        m.byte = static_cast<std::byte>(round);
        if (i == touched / 2) w.cut_power();
    }
}

// Blocks that are changed and, in the same transaction, freed: that change is never committed.
constexpr std::uint32_t freed_inode = 1601;
constexpr int freed = 3;
constexpr std::byte committed{1}, never_committed{9};

void change_and_free(World& w, int i) {
    Journal& journal = w.fs().volume().fs().journal;
    const Mark m = mark(w, freed_inode + 8 * static_cast<std::uint32_t>(i));
    {
        Handle handle = w.expect(journal.start(8), "start");
        w.expect(handle.get_write_access(m.block), "write access");
        m.byte = committed;
    }
    w.expect(journal.commit_all(), "commit");
    {
        Handle handle = w.expect(journal.start(8), "start");
        w.expect(handle.get_write_access(m.block), "write access");
        m.byte = never_committed;
        w.expect(handle.revoke(m.block->block()), "forget");
    }
    w.pause();
    w.cut_power();
}

void expect_whole(World& w, std::uint32_t first_inode) {
    const std::byte first = mark(w, first_inode).byte;
    for (std::uint32_t i = 1; i < touched; ++i)
        w.require(mark(w, first_inode + 4 * i).byte == first, "after the cut, a part of a change");
}

void prepare(World&) {}

void run(World& w) {
    Journal& journal = w.fs().volume().fs().journal;
    auto top = w.expect(w.fs().root(), "root");
    const auto fill = [&](std::uint32_t first_inode, int round) {
        change(w, first_inode, round);
        w.expect(journal.commit_all(), "commit");
    };
    fill(101, 1);
    fill(801, 1);
    w.run({{"one",
            [&] {
                for (int i = 2; i < 5; ++i) fill(101, i);
            }},
           {"other",
            [&] {
                for (int i = 2; i < 5; ++i) fill(801, i);
            }},
           {"names",  // each takes a block that no transaction had before
            [&] {
                for (int i = 0; i < 5; ++i)
                    w.expect(w.fs().create(*top, "n" + std::to_string(i), S_IFDIR | 0755, 0, "", root, false),
                             "create");
            }},
           {"freed", [&] {
                for (int i = 0; i < freed; ++i) change_and_free(w, i);
            }}});
    top.reset();
    w.after_cut([&](World& after) {
        expect_whole(after, 101);
        expect_whole(after, 801);
        for (std::uint32_t i = 0; i < freed; ++i)
            after.require(mark(after, freed_inode + 8 * i).byte != never_committed,
                          "after the cut, a change that no transaction has committed");
        auto directory = after.expect(after.fs().root(), "root");
        bool there = true;
        for (int i = 0; i < 5; ++i) {
            const bool is = after.fs().lookup(*directory, "n" + std::to_string(i), root, false).has_value();
            after.require(there || !is, "after the cut, a name is there and one that was made before is not");
            there = is;
        }
    });
    w.unmount();
}

const Register registered({"log-full",
                           "the log begins anew: what goes home beside a running transaction, and room for the next",
                           "-t ext4 -b 1024 -N 2048 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::log_full

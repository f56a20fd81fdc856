// Ranges that go, and what lies behind them that moves: against writeback, reads and maps.
#include "tests/explore/mapped.h"
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore {
namespace {

constexpr std::size_t block = 4096, size = 4 * block;

std::string blocks(std::string_view letters) {
    std::string out;
    for (const char c : letters) out.append(block, c);
    return out;
}

void commit(World& w) { w.expect(w.fs().volume().fs().journal.commit_all(), "commit"); }

// The first block is on the device, the others are in the cache.
void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, block, 'a'); }

void end(World& w, const std::string& wanted, std::string_view may_show) {
    auto judge = [&](std::string_view what) { w.require(w.read(*w.open("/f"), 0, size + 1) == wanted, what); };
    judge("from the cache");
    w.after_cut([&](World& cut) { cut.require_bytes("after a cut", cut.read(*cut.open("/f"), 0, size), may_show); });
    w.remount();
    judge("from the device");
    w.require_settled();
    w.unmount();
}

void punch(World& w) {
    {
        auto punching = w.open("/f"), synced = w.open("/f"), written = w.open("/f");
        w.write(*written, block, 3 * block, 'b');
        w.run({{"punch",
                [&] {
                    w.expect(punching->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, block, 2 * block),
                             "punch");
                    w.require_bytes("the hole", w.read(*punching, block, 2 * block), std::string_view("\0", 1));
                }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }},
               {"writeback", [&] {
                    w.expect(write_back(written->inode()), "writeback");
                    commit(w);
                    w.cut_power();
                }}});
    }
    end(w, blocks({"a\0\0b", 4}), {"ab\0", 3});
}

void collapse(World& w) {
    {
        auto collapsing = w.open("/f"), synced = w.open("/f"), written = w.open("/f");
        for (std::size_t i = 1; i < 4; ++i) w.write(*written, i * block, block, static_cast<char>('a' + i));
        w.run(
            {{"collapse", [&] { w.expect(collapsing->fallocate(FALLOC_FL_COLLAPSE_RANGE, block, block), "collapse"); }},
             {"read",
              [&] {
                  for (int i = 0; i < 2; ++i) {
                      const std::string bytes = w.read(*synced, 2 * block, block);
                      w.require_bytes("the block that moves", bytes, "cd");
                      w.require(bytes.empty() || bytes.front() == bytes.back(), "a mixture of two blocks");
                  }
              }},
             {"writeback",
              [&] {
                  w.expect(write_back(written->inode()), "writeback");
                  commit(w);
                  w.cut_power();
              }},
             {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
    }
    end(w, blocks("acd"), {"abcd\0", 5});
}

void insert(World& w) {
    {
        auto inserting = w.open("/f"), synced = w.open("/f"), written = w.open("/f");
        w.write(*written, block, block, 'b');
        w.run({{"insert", [&] { w.expect(inserting->fallocate(FALLOC_FL_INSERT_RANGE, block, block), "insert"); }},
               {"append", [&] { w.write(*written, 3 * block, block, 'd'); }},
               {"sync", [&] {
                    w.expect(synced->sync(false), "fsync");
                    commit(w);
                    w.cut_power();
                }}});
        // The append comes before the insertion, and moves as well, or after it.
        const std::string bytes = w.read(*written, 0, 2 * size);
        w.require(bytes == blocks({"a\0bd", 4}) || bytes == blocks({"a\0b\0d", 5}), "neither order");
        w.expect(written->truncate(3 * block), "truncate");
    }
    end(w, blocks({"a\0b", 3}), {"abd\0", 4});
}

void prepare_written(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    for (std::size_t i = 0; i < 4; ++i) w.write(*file, i * block, block, static_cast<char>('a' + i));
}

void collapse_mapped(World& w) {
    {
        auto collapsing = w.open("/f"), synced = w.open("/f");
        Mapped map(w, "/f", 3 * block);
        w.run({{"collapse",
                [&] {
                    w.expect(collapsing->fallocate(FALLOC_FL_COLLAPSE_RANGE, block, block), "collapse");
                    w.require_bytes("what moved", map.load(block, block), "c");
                }},
               {"load",
                [&] {
                    for (int i = 0; i < 2; ++i) {
                        w.require_bytes("page 1", map.load(block, 64), "bc");
                        w.require_bytes("page 2", map.load(2 * block, 64), "cd");
                    }
                }},
               {"store", [&] { map.store(0, 8, 's'); }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
        w.require_bytes("the store", w.read(*collapsing, 0, 8), "s");
        w.require_bytes("page 1 later", map.load(block, block), "c");
        w.require_bytes("page 2 later", map.load(2 * block, block), "d");
    }
    w.remount();
    w.require(w.read(*w.open("/f"), 0, size) == std::string(8, 's') + blocks("acd").substr(8), "after a remount");
    w.require_settled();
    w.unmount();
}

void insert_mapped(World& w) {
    std::string seen;
    {
        auto inserting = w.open("/f"), synced = w.open("/f");
        Mapped map(w, "/f", 5 * block);
        w.run({{"insert",
                [&] {
                    w.expect(inserting->fallocate(FALLOC_FL_INSERT_RANGE, block, block), "insert");
                    w.require_bytes("what was inserted", map.load(block, block), std::string_view("\0", 1));
                    w.require_bytes("what moved", map.load(2 * block, block), "b");
                }},
               {"load",
                [&] {
                    for (int i = 0; i < 2; ++i) {
                        w.require_bytes("page 1", map.load(block, 64), std::string_view("b\0", 2));
                        w.require_bytes("page 2", map.load(2 * block, 64), "cb");
                    }
                }},
               // In its old place or in its new one, and the page that it was made to stays as it is but for that.
               {"store",
                [&] {
                    map.store(0, 8, 's');
                    map.store(3 * block, 8, 't');
                }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
        seen = map.load(0, 5 * block);
        const bool before = seen[4 * block] == 't';
        std::string wanted = blocks({"a\0bcd", 5});
        wanted.replace(0, 8, 8, 's').replace((before ? 4 : 3) * block, 8, 8, 't');
        w.require(seen == wanted, "neither order of the store and the insertion");
        w.require(w.read(*inserting, 0, 6 * block) == seen, "a read shows other bytes than the map");
    }
    w.remount();
    w.require(w.read(*w.open("/f"), 0, 6 * block) == seen, "after a remount");
    w.require_settled();
    w.unmount();
}

constexpr const char* blocks_of_4k = "-t ext4 -b 4096 -N 64 -J size=4 24M";

const Register punched({"punch-writeback", "B: a punch against the writeback of what is dirty there", blocks_of_4k,
                        "noatime", prepare, punch});
const Register collapsed({"collapse-writeback", "what moves is read, or written back, in its old place", blocks_of_4k,
                          "noatime", prepare, collapse});
const Register journaled({"collapse-journaled", "the same in data=journal", blocks_of_4k, "noatime,data=journal",
                          prepare, collapse});
const Register inserted({"insert-writeback", "an append meets what is moving away from under it", blocks_of_4k,
                         "noatime", prepare, insert});
const Register mapped({"mapped-collapse", "B: a fault brings in what a collapse has moved, or a store is lost",
                       blocks_of_4k, "noatime", prepare_written, collapse_mapped});
const Register mapped_behind({"mapped-insert", "B: a fault brings in what an insertion has moved, or a store is lost",
                              blocks_of_4k, "noatime", prepare_written, insert_mapped});

}  // namespace
}  // namespace uext4::explore

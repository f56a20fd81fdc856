// Ranges that go, and what lies behind them that moves: against writeback, reads and maps.
#include "tests/explore/mapped.h"
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>

namespace uext4::explore::shift_range {
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

// b, c, ...: a block each.
void write_letters(World& w, OpenFile& file, std::size_t first, std::size_t end) {
    for (std::size_t i = first; i < end; ++i) w.write(file, i * block, block, static_cast<char>('a' + i));
}

// The bodies do a few operations on what is there, a letter each. Which were done is a set of letters.
struct Progress {
    std::string begun, done, durable;
    void run(std::string_view operation, const std::function<void()>& body) {
        begun += operation;
        body();
        done += operation;
    }
    // What was done before it is on the device after it.
    void sync(const std::function<void()>& body) {
        const std::string before = done;
        body();
        durable += before;
    }
};

// Others go on while the device is copied.
Progress cut(World& w, const Progress& now) {
    const std::string durable = now.durable;
    w.cut_power();
    return {now.begun, now.done, durable};
}

// The file after some of the operations, in the order that they had.
struct Layout {
    std::string operations, letters;
};

// A layout has every block in its place: a mixture of two is none of them. One in which something is missing that was
// durable is too old, and one with what nobody had begun too new.
void require_one_of(World& w, const std::vector<Layout>& layouts, const Progress& progress) {
    const std::string bytes = w.read(*w.open("/f"), 0, 2 * size);
    std::string letters;
    for (std::size_t at = 0; at < bytes.size(); at += block) letters += bytes[at] == 0 ? '0' : bytes[at];
    w.require(std::ranges::any_of(layouts,
                                  [&](const Layout& layout) {
                                      const auto within = [](std::string_view some, std::string_view all) {
                                          return std::ranges::all_of(some, [&](char c) { return all.contains(c); });
                                      };
                                      return within(progress.durable, layout.operations) &&
                                             within(layout.operations, progress.begun) &&
                                             bytes == blocks(layout.letters);
                                  }),
              "after a cut, the blocks of no moment since the last sync: " + letters);
}

// Which blocks a cut may find. Everything is written back and on the device when the shift begins (settle()), and a
// step of it is a leaf of the tree. Here there is one: what a collapse removes, the shift and the size are changed in
// one handle, which begins another transaction only where a leaf's step is not the last, or where there is no room for
// the step in a whole transaction. So are the insertion, whose size is in its first step, and the punch. Thus all of it
// is there or nothing.
void end(World& w, const std::string& wanted, const std::vector<Layout>& layouts, const Progress& at_cut) {
    auto judge = [&](std::string_view what) { w.require(w.read(*w.open("/f"), 0, 2 * size) == wanted, what); };
    judge("from the cache");
    w.after_cut([&](World& cut) { require_one_of(cut, layouts, at_cut); });
    w.remount();
    judge("from the device");
    w.require_settled();
    w.unmount();
}

void punch(World& w) {
    Progress progress, at_cut;
    {
        auto punching = w.open("/f"), synced = w.open("/f"), written = w.open("/f");
        write_letters(w, *written, 1, 4);
        w.run({{"punch",
                [&] {
                    progress.run("p", [&] {
                        w.expect(punching->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, block, 2 * block),
                                 "punch");
                    });
                    w.require_bytes("the hole", w.read(*punching, block, 2 * block), std::string_view("\0", 1));
                }},
               {"sync", [&] { progress.sync([&] { w.expect(synced->sync(false), "fsync"); }); }},
               {"writeback", [&] {
                    progress.sync([&] {
                        w.expect(write_back(written->inode()), "writeback");
                        commit(w);
                    });
                    at_cut = cut(w, progress);
                }}});
    }
    end(w, blocks({"a\0\0d", 4}), {{"", "abcd"}, {"p", {"a\0\0d", 4}}}, at_cut);
}

void collapse(World& w) {
    Progress progress, at_cut;
    {
        auto collapsing = w.open("/f"), synced = w.open("/f"), written = w.open("/f");
        write_letters(w, *written, 1, 4);
        w.run({{"collapse",
                [&] {
                    progress.run("c", [&] {
                        w.expect(collapsing->fallocate(FALLOC_FL_COLLAPSE_RANGE, block, block), "collapse");
                    });
                }},
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
                    progress.sync([&] {
                        w.expect(write_back(written->inode()), "writeback");
                        commit(w);
                    });
                    at_cut = cut(w, progress);
                }},
               {"sync", [&] { progress.sync([&] { w.expect(synced->sync(false), "fsync"); }); }}});
    }
    end(w, blocks("acd"), {{"", "abcd"}, {"c", "acd"}}, at_cut);
}

void insert(World& w) {
    Progress progress, at_cut;
    std::vector<Layout> layouts;
    {
        auto inserting = w.open("/f"), synced = w.open("/f"), written = w.open("/f");
        write_letters(w, *written, 1, 2);
        w.run({{"insert",
                [&] {
                    progress.run(
                        "i", [&] { w.expect(inserting->fallocate(FALLOC_FL_INSERT_RANGE, block, block), "insert"); });
                }},
               {"append", [&] { progress.run("hd", [&] { w.write(*written, 3 * block, block, 'd'); }); }},
               {"sync", [&] {
                    progress.sync([&] {
                        w.expect(synced->sync(false), "fsync");
                        commit(w);
                    });
                    at_cut = cut(w, progress);
                }}});
        // The append comes before the insertion, and moves as well, or after it. Before it, it leaves a hole, which may
        // be in the file on the device before what was written behind: h.
        const std::string bytes = w.read(*written, 0, 2 * size);
        if (bytes == blocks({"a\0bd", 4})) {
            layouts = {{"", "ab"}, {"i", {"a\0b", 3}}, {"ihd", {"a\0bd", 4}}};
        } else {
            w.require(bytes == blocks({"a\0b\0d", 5}), "neither order");
            layouts = {{"", "ab"}, {"h", {"ab\0", 3}}, {"hd", {"ab\0d", 4}}, {"hdi", {"a\0b\0d", 5}}};
        }
        w.expect(written->truncate(3 * block), "truncate");
    }
    end(w, blocks({"a\0b", 3}), layouts, at_cut);
}

void prepare_written(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    write_letters(w, *file, 0, 4);
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
}  // namespace uext4::explore::shift_range

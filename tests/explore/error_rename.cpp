// Reads that fail beside renames which replace something: each is done as a whole or not at all.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/fs.h>

#include <array>

namespace uext4::explore::error_rename {
namespace {

const Credentials root = Credentials::root();

struct Move {
    const char* name;  // in /a
    const char* onto;  // in /b
    unsigned flags;
    mode_t type;
};
constexpr std::array moves{Move{"file", "old", 0, S_IFREG}, Move{"dir", "empty", 0, S_IFDIR},
                           Move{"from", "to", RENAME_EXCHANGE, S_IFDIR},
                           Move{"covered", "under", RENAME_WHITEOUT, S_IFREG}};

void prepare(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    for (const char* name : {"a", "b"}) {
        auto dir = w.expect(w.fs().create(*top, name, S_IFDIR | 0755, 0, "", root, false), "mkdir");
        for (const Move& move : moves)
            w.expect(w.fs().create(*dir, name[0] == 'a' ? move.name : move.onto, move.type | 0755, 0, "", root, false),
                     "create");
    }
}

// The inode of a name, 0 without it. Of a directory the parent must be the one that it was found in.
std::uint64_t number_of(World& w, std::string_view directory, std::string_view name) {
    auto parent = w.expect(w.fs().resolve(directory, root), "a directory");
    auto found = w.fs().lookup(*parent, name, root, false);
    if (!found && found.error().code == ENOENT) return 0;
    auto inode = w.expect(std::move(found), "lookup");
    if (inode->is_directory())
        w.require(w.expect(w.fs().volume().names().parent_of(*inode), "the parent") == parent->number(),
                  "\"..\" names another directory");
    w.require(w.expect(w.fs().attributes(*inode), "attributes").st_nlink == (inode->is_directory() ? 2 : 1), "links");
    return inode->number().value;
}

struct Pair {
    std::uint64_t in_a = 0, in_b = 0;
    bool operator==(const Pair&) const = default;
};
Pair pair_of(World& w, const Move& move) { return {number_of(w, "/a", move.name), number_of(w, "/b", move.onto)}; }

void run(World& w) {
    std::array<Pair, moves.size()> before;
    for (std::size_t i = 0; i < moves.size(); ++i) before[i] = pair_of(w, moves[i]);
    auto a = w.expect(w.fs().resolve("/a", root), "a");
    auto b = w.expect(w.fs().resolve("/b", root), "b");
    std::array<bool, moves.size()> moved{};
    auto rename = [&](std::size_t i) {
        moved[i] = w.done(w.fs().rename(*a, moves[i].name, *b, moves[i].onto, moves[i].flags, root, false), "rename");
    };
    auto forget = [&] { w.fs().volume().fs().buffers.invalidate_all_clean(); };
    w.run({{"files", [&] { forget(), rename(0), forget(), rename(3); }},
           {"directories", [&] { forget(), rename(1), rename(2); }},
           {"forget", [&] {
                for (int i = 0; i < 4; ++i) {
                    w.pause();
                    forget();
                }
            }}});
    auto judge = [&] {
        std::string seen;
        for (std::size_t i = 0; i < moves.size(); ++i) {
            const Pair now = pair_of(w, moves[i]), was = before[i];
            const unsigned flags = moves[i].flags;
            if (!moved[i]) w.require(now == was, "a rename that failed changed something");
            else if (flags == RENAME_EXCHANGE) w.require(now == Pair{was.in_b, was.in_a}, "an exchange by halves");
            else w.require(now.in_b == was.in_a && now.in_a != was.in_a, "a rename by halves");
            if (moved[i]) w.require((now.in_a == 0) == (flags == 0), "the old name");
            seen += fmt::format("{} {}, ", now.in_a, now.in_b);
        }
        return seen;
    };
    w.end_after_failed_reads(judge, [&] { a.reset(), b.reset(); });
}

const Register registered({"error-rename",
                           "failing reads beside renames that replace something: a rename by halves",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M",
                           "noatime,background",
                           prepare,
                           run,
                           {.reads = true, .times = 4}});

}  // namespace
}  // namespace uext4::explore::error_rename

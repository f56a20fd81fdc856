// Names that all workers change at once. Every operation is kept with when it began, when it returned, and what; the
// checker then looks for an order of their steps that explains every answer.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace uext4::stress {

// A place: a root directory, a name in it, and maybe a name below that one.
struct Place {
    std::int8_t root = 0, name = 0, below = -1;
    bool operator==(const Place&) const = default;
};
inline constexpr int roots = 2, names = 3, names_below = 2;

enum class Kind : std::uint8_t { nothing, directory, file, link, device };

enum class Act : std::uint8_t {
    make_directory,
    make_link,
    make_device,
    place,  // a file of the worker's own is renamed there
    link,
    unlink,
    rmdir,
    rename,
    look,  // lstat
    read_link,
};

struct Operation {
    std::uint64_t began = 0, returned = 0;  // of one clock
    std::uint32_t object = 0;               // the identity of what is made
    std::uint32_t found = 0;                // the identity that look and read_link saw; 0 where it does not show
    Act act = Act::look;
    Place at, to;
    unsigned flags = 0;         // of rename
    int result = 0;             // 0 or a negative errno
    Kind kind = Kind::nothing;  // that look saw
};

// A directory as it is at the end: a directory's identity is not seen, of everything else there is one.
struct Tree {
    std::map<int, Tree> entries;  // by number of the name; at the top by number of the root
    Kind kind = Kind::directory;
    std::uint32_t object = 0;
    bool operator==(const Tree&) const = default;
};

struct Verdict {
    std::string problem;     // empty: there is such an order
    std::size_t most = 0;    // configurations at once
    std::vector<Tree> ends;  // what the tree may be afterwards
};

// Operations in any order. `limit` bounds the configurations at once; more is a problem, too.
Verdict explain(std::vector<Operation> history, std::size_t limit = 400000);

std::string text_of(const Operation& operation);

}  // namespace uext4::stress

// A worker's own names: nobody else changes them, so each answer is known before the call; but they lie in directories
// in which all workers make, move and remove theirs.
#pragma once

#include "tests/stress/calls.h"

#include <sys/stat.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace uext4::stress {

// What all workers know of the directories that they share.
struct Shared {
    std::vector<std::string> directories;
    unsigned stable = 0;       // names s0000 and on in each, which stay
    unsigned name_length = 0;  // of all names there, at least

    std::string padded(std::string name) const;
    std::string stable_name(unsigned number) const;
};

struct Node {
    mode_t mode = 0;  // with its type
    unsigned links = 1;
    std::string bytes;  // a file's contents, a link's target
    dev_t device = 0;
    std::map<std::string, std::string> xattrs;
    std::map<std::string, std::shared_ptr<Node>> children;  // of a directory: the worker's names in it
};

inline bool is_directory(const Node& node) { return S_ISDIR(node.mode); }

class Owned {
public:
    Owned(Calls& calls, const Shared& shared, unsigned worker, std::uint64_t seed);
    ~Owned();

    bool step();         // one operation; false: problem
    bool compare_all();  // everything, contents included
    bool clear();        // removes all of it
    // What should be there, for others to compare: a line for each name, and a file in `folder` for contents.
    void write_down(const std::string& folder) const;

    std::string problem;
    std::string trace;  // the operation under way

private:
    struct Spot {  // a name, taken or free
        std::shared_ptr<Node> parent;
        std::string name, path;
        std::shared_ptr<Node> node() const;
    };
    struct Held {
        File file;
        std::shared_ptr<Node> node;
    };

    unsigned below(unsigned bound) { return static_cast<unsigned>(random_() % bound); }
    Spot pick();
    Spot pick_taken();
    bool expect(int got, int wanted);
    bool says(const std::string& what);

    bool create();
    bool make_other();
    bool make_unnamed();
    bool link();
    bool remove();
    bool remove_directory();
    bool rename();
    int rename_answer(const Spot& from, const Spot& to, unsigned flags, bool& unclear) const;
    bool write();
    bool truncate();
    bool chmod();
    bool xattr();
    bool look();
    bool list();
    bool list_shared(const std::string& path, const Node& node);
    bool hold();

    bool put(const Spot& spot, std::shared_ptr<Node> node);
    void take(const Spot& spot);
    bool compare(const std::string& path, const Node& node);
    bool compare_status(const struct stat& status, const Node& node);
    bool compare_bytes(File file, const Node& node);
    bool change_bytes(File file, Node& node);
    bool compare_below(const std::string& path, const Node& node);
    bool clear_below(const std::string& path, Node& node);

    Calls& calls_;
    const Shared& shared_;
    unsigned worker_;
    std::mt19937_64 random_;
    std::vector<std::pair<std::string, std::shared_ptr<Node>>> tops_;
    std::vector<Held> held_;
    unsigned made_ = 0;
};

}  // namespace uext4::stress

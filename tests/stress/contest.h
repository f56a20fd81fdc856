// One worker's part in the names that all workers change at once, and a look at them when all is over.
#pragma once

#include "tests/stress/calls.h"
#include "tests/stress/contested.h"

#include <random>
#include <string>
#include <vector>

namespace uext4::stress {

inline constexpr unsigned clusters = 3;  // each has a history of its own

std::string path_of(const std::string& base, unsigned cluster, Place place);
std::string directory_of(const std::string& base, unsigned cluster, int root);

class Contest {
public:
    Contest(Calls& calls, std::string base, unsigned worker, std::uint64_t seed);
    // One operation. False: `problem`, which no order of operations could explain.
    bool step(unsigned& cluster, Operation& operation);
    bool finish();  // takes away what was prepared and not used
    bool is_spent() const { return next_ >= 4095; }
    std::string problem;

private:
    Place place();
    bool prepare();
    void call(const std::string& path, const std::string& to, Operation& operation);
    void look(const std::string& path, Operation& operation);

    Calls& calls_;
    std::string base_;
    unsigned worker_;
    std::mt19937_64 random_;
    unsigned next_ = 0;
    std::string prepared_;
    std::uint32_t prepared_object_ = 0;
};

struct Seen {
    Tree tree;
    std::string problem;
};
Seen look_at_all(Calls& calls, const std::string& base, unsigned cluster);
// In the lines of Owned::write_down.
void write_down(const Tree& tree, const std::string& base, unsigned cluster, const std::string& folder);

}  // namespace uext4::stress

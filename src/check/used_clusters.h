// Which clusters are in use. A group costs something only where one of its clusters is: runs in order, as long as they
// are few, and a bit for each cluster from then on.
#pragma once

#include "base/bytes.h"

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace uext4 {

class UsedClusterSet {
public:
    explicit UsedClusterSet(std::uint32_t per_group) : per_group_(per_group) {}

    // By number: those of group 0, then those of group 1, and so on.
    bool test(std::uint64_t cluster) const;
    bool add(std::uint64_t cluster);  // false: it was there
    bool any_in(std::uint64_t group) const { return groups_.contains(group); }
    // Sets the bits of the group's clusters, as a bitmap on disk has them.
    void put_bits(std::uint64_t group, Bytes bitmap) const;

private:
    // Pairs of the first cluster and the one behind the last, or 32 bits each. Runs take an eighth of the bits at most,
    // so that one more of them is never much to move.
    struct Group {
        std::vector<std::uint32_t> words;
        bool bits = false;
        bool test(std::uint32_t i) const;
        bool add(std::uint32_t i, std::uint32_t all);
        bool add_to_runs(std::uint32_t i);
        void become_bits(std::uint32_t all);
        std::size_t run_from(std::uint32_t i) const;  // the first run that ends behind i
    };

    std::uint32_t per_group_;
    std::unordered_map<std::uint64_t, Group> groups_;
    Group* last_ = nullptr;  // of groups_
    std::uint64_t last_number_ = 0;
};

}  // namespace uext4

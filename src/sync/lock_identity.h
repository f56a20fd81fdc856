// What a lock is known by: its rank, its name, the key among those of its rank.
#pragma once

#include "sync/held_resource.h"
#include "sync/rank.h"

#include <cstdint>

namespace uext4 {

class LockIdentity {
public:
    // Only while nobody holds or wants it: an object that gets its number after it was made.
    void set_order(std::uint64_t order) { order_ = order; }
    // The inode whose lock it is, for reports, where the order does not say it. Before anybody wants it.
    void set_inode([[maybe_unused]] std::uint64_t inode) {
#if UEXT4_CHECKS
        inode_ = inode;
#endif
    }

    Rank rank() const { return rank_; }
    const char* name() const { return name_; }
    std::uint64_t order() const { return order_; }

protected:
    LockIdentity(Rank rank, const char* name, std::uint64_t order) : name_(name), order_(order), rank_(rank) {}
    HeldResource known_as(const void* address) const {
        HeldResource me{.address = address, .name = name_};
        if (order_ != 0) me.number = order_;
#if UEXT4_CHECKS
        me.inode = inode_;
#endif
        return me;
    }

    const char* name_;
    std::uint64_t order_;
    Rank rank_;

private:
#if UEXT4_CHECKS
    std::uint64_t inode_ = 0;
#endif
};

}  // namespace uext4

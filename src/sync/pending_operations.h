// Pieces of work that have been begun by several: who needs them done waits for those that there are, and not for what
// begins meanwhile, which may never end. Guarded by its owner's lock, as the owner's condition tells of each end.
#pragma once

#include "sync/resource_tracking.h"

#include <cstdint>
#include <map>
#include <optional>
#include <source_location>

namespace uext4 {

class PendingOperations {
public:
    // A piece that the calling thread has begun; reports name it `name`. Its number.
    std::uint64_t begin(const char* name, std::source_location where) {
        const auto it = pieces_.emplace(++begun_, name).first;
        note_held(known_as(*it), where);
        return begun_;
    }
    void end(std::uint64_t number) {
        const auto it = pieces_.find(number);
        note_released(known_as(*it).address);
        pieces_.erase(it);
    }
    std::uint64_t begun() const { return begun_; }  // the newest one's number
    // The oldest that is not over, if it is none that began after `last`.
    std::optional<HeldResource> oldest(std::uint64_t last) const {
        if (pieces_.empty() || pieces_.begin()->first > last) return std::nullopt;
        return known_as(*pieces_.begin());
    }

private:
    using Pieces = std::map<std::uint64_t, const char*>;
    static HeldResource known_as(const Pieces::value_type& piece) { return {&piece, piece.second, piece.first}; }

    std::uint64_t begun_ = 0;
    Pieces pieces_;
};

}  // namespace uext4

// What a thread holds and others wait for, as a report names it: a lock, a folio's writeback, a closed gate.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace uext4 {

struct HeldResource {
    const void* address = nullptr;  // by which holder and waiter are found to mean the same; null: nobody holds it
    const char* name = "";
    std::optional<std::uint64_t> number{};  // which of those with the name
    std::uint64_t inode = 0;                // whose it is; 0 where that says nothing

    // "folio" 3 of inode 12
    std::string text() const;
};

}  // namespace uext4

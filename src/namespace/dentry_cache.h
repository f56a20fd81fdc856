// Names that were looked up: which inode a name in a directory stands for, or that there is none. A table of fixed
// size, which forgets a name when another one takes its place. Names of more than `longest` bytes are not kept.
//
// The directory's `rw` keeps a name as it is: insert() and find() want it held in any mode, erase() exclusively. What
// changes an entry of a directory calls erase() before; so what the table says of a name is what the directory says.
//
// A place is read without a lock: its sequence is odd while somebody writes, and has changed when it was written since.
#pragma once

#include "base/numbers.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace uext4 {

class DentryCache {
public:
    static constexpr std::size_t max_name = 40, ways = 4;

    // `places`: a power of two, at least `ways`. Memory is taken when a name is first noted.
    explicit DentryCache(std::size_t places) : slot_count_(places) {}
    ~DentryCache();
    DentryCache(const DentryCache&) = delete;

    // Nothing where the name is not known; no inode (0) where there is no such entry.
    std::optional<InodeNr> find(InodeNr directory, std::string_view name) const;
    void insert(InodeNr directory, std::string_view name, InodeNr inode);
    void erase(InodeNr directory, std::string_view name);

private:
    struct Key {
        std::uint64_t directory;
        std::array<std::uint64_t, max_name / 8> name;  // with zeros behind it, which no name has
        bool operator==(const Key&) const = default;
    };
    struct Slot;
    static bool is_cacheable(InodeNr directory, std::string_view name);
    static Key key_of(InodeNr directory, std::string_view name);
    static std::uint64_t hash_of(const Key& key);
    // The first of the `ways` places that may have the name.
    Slot* slots_of(Slot* all, std::uint64_t hash) const;
    Slot* table() const { return table_.load(std::memory_order_acquire); }
    Slot* allocate_table();

    const std::size_t slot_count_;
    std::atomic<Slot*> table_{nullptr};
};

}  // namespace uext4

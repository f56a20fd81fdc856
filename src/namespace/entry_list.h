// A validated run of directory entries in memory: a leaf block without its checksum tail, or a part of the inline area.
// The entries fill the bytes exactly; one with inode 0 is free space.
#pragma once

#include "base/bytes.h"
#include "base/numbers.h"
#include "base/result.h"

#include <cstdint>
#include <optional>
#include <string_view>

namespace uext4 {

// One entry as it lies in its list.
struct ListedEntry {
    std::uint32_t offset = 0;
    std::uint32_t length = 0;  // of the record
    InodeNr inode;             // none: free space
    std::uint8_t type = 0;     // as on disk
    std::string_view name;     // points into the list

    bool used() const { return static_cast<bool>(inode); }
};

// Bytes that a name needs.
constexpr std::uint32_t record_size(std::size_t name_size) {
    return static_cast<std::uint32_t>(round_up(8 + name_size, 4));
}

class EntryList {
public:
    // `block_size` tells how record lengths are encoded.
    EntryList(ConstBytes bytes, std::uint32_t block_size) : bytes_(bytes), block_size_(block_size) {}

    std::uint32_t size() const { return static_cast<std::uint32_t>(bytes_.size()); }
    // The record at `offset`; nothing at the end or where the list is malformed (validation excludes that).
    std::optional<ListedEntry> at(std::uint32_t offset) const;
    std::optional<ListedEntry> find(std::string_view name) const;
    bool has_names_after(std::uint32_t offset) const;  // a used entry at or after `offset`
    // Is there room for a name of that size at or after `from`?
    bool fits(std::size_t name_size, std::uint32_t from = 0) const;
    // The offset of the record that ends at `offset`; none where that is the first one from `from` on.
    std::optional<std::uint32_t> previous(std::uint32_t offset, std::uint32_t from) const;
    // The offset of the first record that has it.
    std::optional<std::uint32_t> find_space(std::size_t name_size, std::uint32_t from = 0) const;

    // Visits the records in order until `visit` returns false.
    template <class Visit>
    void for_each(Visit&& visit) const {
        for (auto entry = at(0); entry; entry = at(entry->offset + entry->length))
            if (!visit(*entry)) return;
    }

private:
    // The offset of the first record at or after `offset` that is wanted; none where the list is malformed before it.
    template <class Wanted>
    std::optional<std::uint32_t> first(std::uint32_t offset, Wanted wanted) const;

    ConstBytes bytes_;
    std::uint32_t block_size_;
};

// The same with changes; the caller has the bytes' write access.
class MutableEntryList {
public:
    MutableEntryList(Bytes bytes, std::uint32_t block_size) : bytes_(bytes), block_size_(block_size) {}
    EntryList view() const { return {bytes_, block_size_}; }

    // One record of free space over all.
    void clear();
    // Puts the name into the first free space at or after `from` that holds it; false when none does.
    bool insert(std::string_view name, InodeNr inode, std::uint8_t type, std::uint32_t from = 0);
    // At the record at `offset`, which find_space() found.
    void insert_at(std::uint32_t offset, std::string_view name, InodeNr inode, std::uint8_t type);
    // Joins the record with the one before it, or leaves it as free space when it is the first at or after `from`.
    void remove(std::uint32_t offset, std::uint32_t from = 0);
    void set_inode(std::uint32_t offset, InodeNr inode, std::uint8_t type);
    // Writes a record; for building lists.
    void write_entry(std::uint32_t offset, std::uint32_t length, std::string_view name, InodeNr inode,
                     std::uint8_t type);
    // The record at `offset` gets another length.
    void set_record_length(std::uint32_t offset, std::uint32_t length);

private:
    Bytes bytes_;
    std::uint32_t block_size_;
};

}  // namespace uext4

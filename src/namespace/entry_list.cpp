#include "namespace/entry_list.h"

#include "format/directory.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

constexpr std::uint32_t header_size = 8;

}  // namespace

std::optional<ListedEntry> EntryList::at(std::uint32_t offset) const {
    if (offset > size() || size() - offset < header_size) return {};
    const auto& disk = view_as<format::DirEntryDisk>(bytes_, offset);
    const std::uint32_t length = format::decode_rec_len(disk.rec_len, block_size_);
    const std::uint32_t name_size = disk.name_len;
    if (length < header_size || length > size() - offset || header_size + name_size > length) return {};
    ListedEntry entry;
    entry.offset = offset;
    entry.length = length;
    entry.inode = InodeNr(disk.inode);
    entry.type = disk.file_type;
    entry.name = {reinterpret_cast<const char*>(bytes_.data()) + offset + header_size, name_size};
    return entry;
}

template <class Wanted>
std::optional<std::uint32_t> EntryList::first(std::uint32_t offset, Wanted wanted) const {
    const std::byte* const bytes = bytes_.data();
    const bool plain = block_size_ < 65536;
    for (const std::uint32_t end = size(); offset <= end && end - offset >= header_size;) {
        const auto& disk = *reinterpret_cast<const format::DirEntryDisk*>(bytes + offset);
        const std::uint32_t length = plain ? disk.rec_len.get() : format::decode_rec_len(disk.rec_len, block_size_);
        if (length < header_size + disk.name_len || length > end - offset) return {};
        if (wanted(disk, length)) return offset;
        offset += length;
    }
    return {};
}

std::optional<std::uint32_t> EntryList::previous(std::uint32_t offset, std::uint32_t from) const {
    return first(from, [&](const format::DirEntryDisk& disk, std::uint32_t length) {
        const auto at = static_cast<std::uint32_t>(reinterpret_cast<const std::byte*>(&disk) - bytes_.data());
        return at + length == offset;
    });
}

std::optional<ListedEntry> EntryList::find(std::string_view name) const {
    const auto found = first(0, [&](const format::DirEntryDisk& disk, std::uint32_t) {
        return disk.name_len == name.size() && disk.inode != 0 &&
               std::memcmp(reinterpret_cast<const std::byte*>(&disk) + header_size, name.data(), name.size()) == 0;
    });
    return found ? at(*found) : std::nullopt;
}

bool EntryList::has_names_after(std::uint32_t offset) const {
    for (auto entry = at(offset); entry; entry = at(entry->offset + entry->length))
        if (entry->used()) return true;
    return false;
}

bool EntryList::fits(std::size_t name_size, std::uint32_t from) const {
    return find_space(name_size, from).has_value();
}

std::optional<std::uint32_t> EntryList::find_space(std::size_t name_size, std::uint32_t from) const {
    const std::uint32_t needed = record_size(name_size);
    return first(from, [needed](const format::DirEntryDisk& disk, std::uint32_t length) {
        const std::uint32_t taken = disk.inode != 0 ? record_size(disk.name_len) : 0;
        return length >= taken && length - taken >= needed;
    });
}

void MutableEntryList::write_entry(std::uint32_t offset, std::uint32_t length, std::string_view name, InodeNr inode,
                                   std::uint8_t type) {
    auto& disk = view_as<format::DirEntryDisk>(bytes_, offset);
    disk.inode = static_cast<std::uint32_t>(inode.value);
    disk.rec_len = format::encode_rec_len(length, block_size_);
    disk.name_len = static_cast<std::uint8_t>(name.size());
    disk.file_type = type;
    const ConstBytes text = bytes_of_string(name.data(), name.size());
    const Bytes place = bytes_.subspan(offset + header_size, text.size());
    std::ranges::copy(text, place.begin());
    // Zeros up to the record's alignment, so that no byte of another name stays behind it.
    const std::uint32_t end = offset + std::min(length, record_size(name.size()));
    std::fill(bytes_.begin() + offset + header_size + text.size(), bytes_.begin() + end, std::byte{0});
}

void MutableEntryList::set_record_length(std::uint32_t offset, std::uint32_t length) {
    view_as<format::DirEntryDisk>(bytes_, offset).rec_len = format::encode_rec_len(length, block_size_);
}

void MutableEntryList::clear() {
    if (bytes_.size() < header_size) return;
    std::ranges::fill(bytes_, std::byte{0});
    write_entry(0, static_cast<std::uint32_t>(bytes_.size()), {}, InodeNr(), 0);
}

bool MutableEntryList::insert(std::string_view name, InodeNr inode, std::uint8_t type, std::uint32_t from) {
    const auto offset = view().find_space(name.size(), from);
    if (offset) insert_at(*offset, name, inode, type);
    return offset.has_value();
}

void MutableEntryList::insert_at(std::uint32_t offset, std::string_view name, InodeNr inode, std::uint8_t type) {
    const auto entry = view().at(offset);
    const std::uint32_t taken = entry->used() ? record_size(entry->name.size()) : 0;
    if (taken) set_record_length(offset, taken);
    write_entry(offset + taken, entry->length - taken, name, inode, type);
}

void MutableEntryList::remove(std::uint32_t offset, std::uint32_t from) {
    const auto before = view().previous(offset, from);
    const auto entry = view().at(offset);
    if (!entry || (!before && offset != from)) return;
    const std::uint32_t used = std::min(entry->length, record_size(entry->name.size()));
    std::fill_n(bytes_.begin() + offset, used, std::byte{0});
    if (before) set_record_length(*before, offset - *before + entry->length);
    else write_entry(offset, entry->length, {}, InodeNr(), 0);
}

void MutableEntryList::set_inode(std::uint32_t offset, InodeNr inode, std::uint8_t type) {
    auto& disk = view_as<format::DirEntryDisk>(bytes_, offset);
    disk.inode = static_cast<std::uint32_t>(inode.value);
    disk.file_type = type;
}

}  // namespace uext4

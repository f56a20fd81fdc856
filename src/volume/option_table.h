// Every word that -o may hold, in one table: the parsers go by it, `uext4 mount --help` prints it, and docs/MOUNT.md
// has the same rows (a test compares them).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace uext4 {

enum class OptionTarget : std::uint8_t {
    image,    // taken by the library, the verbs and a mount
    mount,    // taken by a mount only
    nothing,  // accepted, and changes nothing: it is always so, or it is for mount(8)
    refused   // known to the kernel, and an error here
};

struct MountOption {
    std::string_view names;  // one, or several of one meaning with blanks between; "x-*" is all that begins with x-
    std::string_view unit;   // of what follows '='; empty: nothing may; in brackets: it may be missing
    std::string_view default_value;  // the value, or what is so, without the option
    std::string_view meaning;
    OptionTarget use;

    bool takes_value() const { return !unit.empty(); }
    bool needs_value() const { return !unit.empty() && !unit.starts_with('['); }
};

std::span<const MountOption> option_table();
// Null where no row has that name.
const MountOption* find_option(std::string_view name);
// ", did you mean 'noatime'?"; empty where no name is near.
std::string similar_option(std::string_view name);
// Calls visit(name) for each name of a row.
template <class Visit>
void for_each_name(const MountOption& row, Visit visit) {
    for (std::string_view left = row.names; !left.empty();) {
        const std::size_t blank = left.find(' ');
        visit(left.substr(0, blank));
        left.remove_prefix(blank == std::string_view::npos ? left.size() : blank + 1);
    }
}

}  // namespace uext4

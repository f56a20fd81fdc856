#include "cli/flags.h"

#include "cli/session.h"

namespace uext4::cli {

namespace {

namespace f = format::inode_flag;

struct Flag {
    char letter;
    std::uint32_t bit;
};
constexpr Flag flag_letters[] = {
    {'s', f::secrm},       {'u', f::unrm},   {'S', f::sync},    {'D', f::dirsync},  {'i', f::immutable},
    {'a', f::append},      {'d', f::nodump}, {'A', f::noatime}, {'c', f::compr},    {'j', f::journal_data},
    {'I', f::index},       {'t', f::notail}, {'T', f::topdir},  {'e', f::extents},  {'P', f::projinherit},
    {'N', f::inline_data}, {'V', f::verity}, {'E', f::encrypt}, {'F', f::casefold}, {'x', f::dax}};

}  // namespace

std::uint32_t flag_of(char letter) {
    for (const Flag& flag : flag_letters)
        if (flag.letter == letter) return flag.bit;
    fail_with(exit_failure, fmt::format("'{}' is no flag", letter));
}

std::string flags_text(std::uint32_t bits) {
    std::string out;
    for (const Flag& flag : flag_letters) out += bits & flag.bit ? flag.letter : '-';
    return out;
}

std::string letters_of(std::uint32_t bits) {
    std::string out = flags_text(bits);
    std::erase(out, '-');
    return out;
}

}  // namespace uext4::cli

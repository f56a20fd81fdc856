// The pages of a private map that are its own since something was stored to them: what they hold, as far as it is
// known.
#pragma once

#include "tests/exercise/model.h"

#include <array>
#include <bitset>
#include <cstddef>
#include <map>
#include <vector>

namespace uext4::exercise {

class PrivatePages {
public:
    // Bytes of the map from `at` on, stored to a map whose first byte is the file's `origin`. What a page has besides
    // is the file's, `file`, now; nothing is known of what it has behind the file's end.
    void store(std::size_t at, Bytes in, std::size_t origin, const std::vector<std::byte>& file);
    // The file ends at this byte of the map: pages behind it are the file's again.
    void cut(std::size_t at);
    // Into `shown`, which has what the map would show from `at` on were it the file: what it shows. What is not known
    // is taken from `got`.
    void cover(std::size_t at, std::span<std::byte> shown, Bytes got) const;

private:
    static constexpr std::size_t page = 4096;
    struct Copy {
        std::array<std::byte, page> bytes{};
        std::bitset<page> known;
    };
    std::map<std::size_t, Copy> copies_;  // by the number of the page in the map
};

}  // namespace uext4::exercise

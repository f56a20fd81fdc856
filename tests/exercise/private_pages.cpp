#include "tests/exercise/private_pages.h"

#include <algorithm>

namespace uext4::exercise {

void PrivatePages::store(std::size_t at, Bytes in, std::size_t origin, const std::vector<std::byte>& file) {
    for (std::size_t done = 0; done < in.size();) {
        const std::size_t number = (at + done) / page, from = (at + done) % page;
        const std::size_t n = std::min(page - from, in.size() - done);
        const auto [it, fresh] = copies_.try_emplace(number);
        Copy& copy = it->second;
        if (fresh) {
            const std::size_t start = origin + number * page;
            const std::size_t there = start < file.size() ? std::min(page, file.size() - start) : 0;
            for (std::size_t i = 0; i < there; ++i) {
                copy.bytes[i] = file[start + i];
                copy.known.set(i);
            }
        }
        for (std::size_t i = 0; i < n; ++i) {
            copy.bytes[from + i] = in[done + i];
            copy.known.set(from + i);
        }
        done += n;
    }
}

void PrivatePages::cut(std::size_t at) { copies_.erase(copies_.lower_bound((at + page - 1) / page), copies_.end()); }

void PrivatePages::cover(std::size_t at, std::span<std::byte> shown, Bytes got) const {
    for (auto it = copies_.lower_bound(at / page); it != copies_.end() && it->first * page < at + shown.size(); ++it) {
        const auto& [number, copy] = *it;
        for (std::size_t i = 0; i < page; ++i) {
            const std::size_t place = number * page + i;
            if (place < at || place >= at + shown.size()) continue;
            shown[place - at] = copy.known[i] ? copy.bytes[i] : got[place - at];
        }
    }
}

}  // namespace uext4::exercise

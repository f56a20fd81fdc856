// Strings of the program.
#pragma once

#include "mmap/map_registry.h"

#include <linux/limits.h>

#include <cstring>
#include <string>

namespace uext4::capi {

// First of all a copy, where the program has maps: a fault in one needs what is held while the string is used. No path
// and no name that is valid is longer than what is copied.
class CallerString {
public:
    CallerString(const char* given) : text_(given) {
        if (!given || !MapRegistry::instance().has_regions()) return;
        copy_.assign(given, ::strnlen(given, PATH_MAX));
        text_ = copy_.c_str();
    }
    CallerString(const CallerString&) = delete;
    CallerString& operator=(const CallerString&) = delete;

    explicit operator bool() const { return text_ != nullptr; }
    const char* operator*() const { return text_; }

private:
    std::string copy_;
    const char* text_;
};

}  // namespace uext4::capi

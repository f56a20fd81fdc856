// Formats that a user gives, of directives like %-10s: for `stat -c` and `find -printf`.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace uext4::cli {

struct Directive {
    std::string flags;  // of "-+ #0'"
    std::size_t width = 0;
    std::optional<std::size_t> precision;
    std::string letters;  // one letter, or two where the first is one of `long_letters`

    bool has(char flag) const { return flags.find(flag) != std::string::npos; }
    // `text` in the width that was asked for. Numbers may have zeros in front.
    std::string padded(std::string text, bool number) const;
};

class UserFormat {
public:
    // Backslashes are escapes where `escapes` is set. `long_letters`: directives that have a second letter. Ends the
    // verb for a format that does not end, and for an escape that is none.
    UserFormat(std::string text, bool escapes, std::string long_letters)
        : text_(std::move(text)), escapes_(escapes), long_letters_(std::move(long_letters)) {}
    std::string expand(const std::function<std::string(const Directive&)>& value) const;

private:
    Directive directive(std::size_t& at) const;
    char escape(std::size_t& at, bool& ends) const;

    std::string text_;
    bool escapes_;
    std::string long_letters_;
};

}  // namespace uext4::cli

#include "cli/format_text.h"

#include "cli/session.h"

namespace uext4::cli {

namespace {

constexpr std::size_t widest = 4096;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

std::string Directive::padded(std::string text, bool number) const {
    if (number && has('+') && !text.starts_with('-')) text.insert(0, "+");
    else if (number && has(' ') && !text.starts_with('-')) text.insert(0, " ");
    if (text.size() >= width) return text;
    const std::size_t missing = width - text.size();
    if (has('-')) return text + std::string(missing, ' ');
    if (!number || !has('0')) return std::string(missing, ' ') + text;
    const bool sign = text.starts_with('-') || text.starts_with('+') || text.starts_with(' ');
    return text.insert(sign ? 1 : 0, std::string(missing, '0'));
}

std::string UserFormat::expand(const std::function<std::string(const Directive&)>& value) const {
    std::string out;
    bool ends = false;
    for (std::size_t at = 0; at < text_.size() && !ends;) {
        const char c = text_[at++];
        if (c == '\\' && escapes_) {
            const char escaped = escape(at, ends);
            if (!ends) out += escaped;
        } else if (c != '%') {
            out += c;
        } else if (at < text_.size() && text_[at] == '%') {
            out += text_[at++];
        } else {
            out += value(directive(at));
        }
    }
    return out;
}

Directive UserFormat::directive(std::size_t& at) const {
    Directive out;
    const auto number = [&] {
        std::size_t n = 0;
        for (; at < text_.size() && is_digit(text_[at]); ++at) n = n * 10 + static_cast<std::size_t>(text_[at] - '0');
        if (n > widest) fail_with(exit_failure, fmt::format("format '{}': a width above {}", text_, widest));
        return n;
    };
    for (; at < text_.size() && std::string_view("-+ #0'").find(text_[at]) != std::string_view::npos; ++at)
        out.flags += text_[at];
    out.width = number();
    if (at < text_.size() && text_[at] == '.') {
        ++at;
        out.precision = number();
    }
    if (at < text_.size()) out.letters = text_[at++];
    if (!out.letters.empty() && long_letters_.find(out.letters[0]) != std::string::npos && at < text_.size())
        out.letters += text_[at++];
    if (out.letters.empty()) fail_with(exit_failure, fmt::format("format '{}': a letter follows the %", text_));
    return out;
}

char UserFormat::escape(std::size_t& at, bool& ends) const {
    if (at == text_.size()) return '\\';
    if (text_[at] >= '0' && text_[at] <= '7') {
        int value = 0;
        for (int n = 0; n < 3 && at < text_.size() && text_[at] >= '0' && text_[at] <= '7'; ++n)
            value = value * 8 + (text_[at++] - '0');
        return static_cast<char>(value);
    }
    switch (const char c = text_[at++]) {
        case 'a': return '\a';
        case 'b': return '\b';
        case 'f': return '\f';
        case 'n': return '\n';
        case 'r': return '\r';
        case 't': return '\t';
        case 'v': return '\v';
        case 'c': ends = true; return 0;
        case '\\':
        case '"': return c;
        default: fail_with(exit_failure, fmt::format("format '{}': \\{} is no escape", text_, c));
    }
}

}  // namespace uext4::cli

#include "cli/mode_change.h"

#include "cli/arguments.h"
#include "cli/session.h"

#include <string_view>

namespace uext4::cli {

namespace {

// A change like u+rwX,g-w,o=g.
class ModeChange {
public:
    ModeChange(const std::string& text, std::uint16_t mode, bool directory)
        : text_(text), mode_(mode & 07777), directory_(directory) {}

    std::uint16_t all() {
        do clause();
        while (next_is(",") && ++at_);
        if (at_ != text_.size()) bad();
        return mode_;
    }

private:
    bool next_is(std::string_view letters) const {
        return at_ < text_.size() && letters.find(text_[at_]) != std::string_view::npos;
    }
    [[noreturn]] void bad() const { fail_with(exit_failure, "mode '" + text_ + "' is neither octal nor like u+rw"); }

    void clause() {
        unsigned who = 0;
        for (; next_is("ugoa"); ++at_)
            who |= text_[at_] == 'u' ? 04700u : text_[at_] == 'g' ? 02070u : text_[at_] == 'o' ? 01007u : 07777u;
        if (!next_is("+-=")) bad();
        while (next_is("+-=")) operation(text_[at_++], who == 0 ? 07777u : who, who == 0);
    }

    void operation(char operation, unsigned who, bool everybody) {
        const bool digits = everybody && next_is("01234567");
        const unsigned what = (digits ? octal() : permissions()) & who;
        unsigned mode = mode_;
        if (operation == '-') {
            mode &= ~what;
        } else {
            // A directory's set-id bits go only when they are named.
            if (operation == '=') mode &= ~(directory_ && !digits ? who & ~06000u : who);
            mode |= what;
        }
        mode_ = static_cast<std::uint16_t>(mode);
    }

    unsigned octal() {
        unsigned what = 0;
        for (; next_is("01234567") && what <= 07777; ++at_) what = what * 8 + static_cast<unsigned>(text_[at_] - '0');
        if (what > 07777) bad();
        return what;
    }

    // Letters, or a single one of ugo: what those have.
    unsigned permissions() {
        if (next_is("ugo")) {
            const char whose = text_[at_++];
            return (mode_ >> (whose == 'u' ? 6 : whose == 'g' ? 3 : 0) & 7u) * 0111u;
        }
        unsigned what = 0;
        for (; next_is("rwxXst"); ++at_) {
            switch (text_[at_]) {
                case 'r': what |= 0444; break;
                case 'w': what |= 0222; break;
                case 'x': what |= 0111; break;
                case 'X': what |= directory_ || (mode_ & 0111) ? 0111u : 0u; break;
                case 's': what |= 06000; break;
                default: what |= 01000;
            }
        }
        return what;
    }

    const std::string& text_;
    std::uint16_t mode_;
    bool directory_;
    std::size_t at_ = 0;
};

}  // namespace

std::uint16_t new_mode(std::uint16_t old, const std::string& text, bool directory) {
    if (!is_numeric(text)) return ModeChange(text, old, directory).all();
    // A directory's set-id bits stay unless a fifth digit says that all bits are meant.
    const bool keeps = directory && text.size() < 5;
    return static_cast<std::uint16_t>(mode_of(text) | (keeps ? old & 06000 : 0));
}

}  // namespace uext4::cli

#include "cli/options.h"

#include <string_view>

namespace uext4::cli {

namespace {

bool has_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

OptionWord read_long_option(const CLI::App& verb, const std::string& word) {
    const std::size_t equals = word.find('=');
    const CLI::Option* option = verb.get_option_no_throw(word.substr(0, equals));
    OptionWord out;
    if (!option) out.unknown = word.substr(0, equals);
    else if (has_value(*option)) out.takes = option;
    if (out.takes && equals != std::string::npos) out.value = equals + 1;
    return out;
}

bool is_change(std::string_view verb, const std::string& word) {
    const std::string_view letters = verb == "chmod"    ? "rwxXstugoa,+-=01234567"
                                     : verb == "chattr" ? "suSDiadAcjItTePNVEF"
                                                        : "";
    return word.size() > 1 && word[0] == '-' && word[1] != '-' &&
           word.find_first_not_of(letters, 1) == std::string::npos;
}

}  // namespace

CLI::Option* add_plain_flag(CLI::App* verb, const char* name, const std::string& help) {
    return verb->add_flag(name, help);
}

bool looks_like_option(const std::string& word) { return word.size() > 1 && word[0] == '-'; }

bool begins_find_expression(const std::string& word) {
    return looks_like_option(word) || word == "(" || word == ")" || word == "!" || word == ",";
}

OptionWord read_option(const CLI::App& verb, const std::string& word) {
    if (word.starts_with("--")) return read_long_option(verb, word);
    OptionWord out;
    for (std::size_t i = 1; i < word.size(); ++i) {
        const std::string name{'-', word[i]};
        const CLI::Option* option = verb.get_option_no_throw(name);
        if (!option) {
            out.unknown = name;
            return out;
        }
        if (!has_value(*option)) continue;
        out.takes = option;
        if (i + 1 < word.size()) out.value = i + 1;
        return out;
    }
    return out;
}

namespace {

// Of find: its options are short; of a word like "-name" the first letters may be options all the same.
bool is_no_option(const CLI::App& verb, const std::string& word) {
    if (!looks_like_option(word)) return true;
    return !word.starts_with("--") && word.size() > 2 && !read_option(verb, word).unknown.empty();
}

}  // namespace

void protect_words(const CLI::App& verb, std::vector<std::string>& words) {
    const std::string& name = verb.get_name();
    if (name != "chmod" && name != "chattr" && name != "find") return;
    for (std::size_t i = 1; i < words.size() && words[i] != "--"; ++i) {
        if (name == "find" ? is_no_option(verb, words[i]) : is_change(name, words[i])) {
            words.insert(words.begin() + static_cast<std::ptrdiff_t>(i), "--");
            return;
        }
        if (!looks_like_option(words[i])) continue;
        const OptionWord option = read_option(verb, words[i]);
        if (option.takes && !option.value) ++i;
    }
}

std::optional<std::string> unknown_option(const CLI::App& verb, const std::vector<std::string>& words) {
    for (std::size_t i = 1; i < words.size() && words[i] != "--"; ++i) {
        if (!looks_like_option(words[i])) continue;
        const OptionWord option = read_option(verb, words[i]);
        if (!option.unknown.empty()) return option.unknown;
        if (option.takes && !option.value) ++i;
    }
    return {};
}

}  // namespace uext4::cli

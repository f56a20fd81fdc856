// The options of a verb as its table has them: which words of a command line are options, and which are their values.
#pragma once

#include <CLI/CLI.hpp>

#include <optional>
#include <string>
#include <vector>

namespace uext4::cli {

// A flag of which only the place among the others counts.
CLI::Option* add_plain_flag(CLI::App* verb, const char* name, const std::string& help);

// One word that begins with a minus, as "-l", "-lh", "-d1", "--json" or "--size=1M".
struct OptionWord {
    std::string unknown;                          // the first option in it that the verb does not have
    const CLI::Option* takes = nullptr;           // the option of the word that has a value
    std::optional<std::string::size_type> value;  // where the value begins in the word; else the next word is the value
};
OptionWord read_option(const CLI::App& verb, const std::string& word);
// "-" alone is none: verbs take it for standard input or output.
bool looks_like_option(const std::string& word);

// Whether a word that stands behind the places of find begins the expression.
bool begins_find_expression(const std::string& word);

// Puts "--" where no options follow any more: before the change of chmod and chattr that begins with a minus, and
// before the places and the expression of find. `words` begin with the verb's name.
void protect_words(const CLI::App& verb, std::vector<std::string>& words);
// The option that the verb does not have, if there is one. `words` begin with the verb's name.
std::optional<std::string> unknown_option(const CLI::App& verb, const std::vector<std::string>& words);

}  // namespace uext4::cli

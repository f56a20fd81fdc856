// The words of this process's command line as places: the grammar of place.h over the files that there are.
#pragma once

#include "cli/place.h"

#include <sys/stat.h>

#include <optional>
#include <string>
#include <vector>

namespace uext4::cli {

// Before anything is opened: what the words name on the host is looked at. In the sandbox it cannot be asked about.
void look_at_words(const std::vector<std::string>& words);
// From now on the words are those of a shell. For processes that serve one shell and nothing else.
void read_words_in_shell(ShellWords shell);
// Null outside of a shell.
const ShellWords* shell_words();

// Each of these ends the verb for a word that the grammar does not allow, or that this build cannot open.

// Of any kind but `prefixed`. `before`: the operand before it, if there is one.
Place any_place(const std::string& word, const Place* before = nullptr);
std::vector<Place> any_places(const std::vector<std::string>& words);
// In an image; IMAGE alone is its root. `standard`: standard input and output as well.
Place image_place(const std::string& word, const Place* before = nullptr, bool standard = false);
std::vector<Place> image_places(const std::vector<std::string>& words, bool standard = false);
// For verbs that work on a whole image: its name.
std::string whole_image(const std::string& word);
// For verbs that stay in one image: all of them name a path in it.
std::vector<Place> places_in_one_image(const std::vector<std::string>& words, const char* verb);

// What there is to say of a path of the host that looks like one in an image, and names nothing.
std::optional<std::string> missing_image(const std::string& word);

// Whether two names, of whatever spelling, are of one image (or of one partition of it).
bool same_image(const std::string& a, const std::string& b);
// Whether a file of the host is the image, or holds it.
bool is_image(const std::string& image, const struct stat& file);
std::optional<struct stat> status_of_image(const std::string& image);
bool is_one_file(const struct stat& a, const struct stat& b);

}  // namespace uext4::cli

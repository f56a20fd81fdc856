// The grammar of words: what a word of a command line names. docs/COMMAND.md has it as a table.
//
// This is the only place that splits a word. It is a function of the word, of its context and of which files there are;
// place_words.h has it for the words of this process.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace uext4::cli {

struct Place {
    enum class Kind : std::uint8_t {
        host,      // a path of the host
        image,     // a path in an image that is a file or a block device
        prefixed,  // an image or archive that is named with a prefix (nbd:, qcow2:, oci:, ...)
        standard   // "-": standard input or output
    };
    // Of an image: its name with the prefix and the partition that the word gives. Empty for the other kinds.
    std::string image;
    std::string path;  // in the image (empty if the word has none), or of the host
    Kind kind = Kind::host;
};

// In a shell, a word that begins with this is on the host, and bare words are paths of this image, from this directory.
inline constexpr std::string_view host_prefix = "host:";
struct ShellWords {
    std::string image, directory;
};

struct WordContext {
    const Place* before = nullptr;      // the operand before the word; null for the first one
    const ShellWords* shell = nullptr;  // null outside of a shell
};

// Whether a name of the host is a file that may be an image: it exists and is no directory.
using IsFile = std::function<bool(const std::string& name)>;

// Ends the verb, with a hint, for a word that the grammar does not allow.
Place parse_place(const std::string& word, const WordContext& context, const IsFile& is_file);

// A prefix with its colon, what it names, and how to get at that without it.
struct Prefix {
    std::string_view text, names, instead;
};
// The one that a word begins with, or null.
const Prefix* prefix_of(std::string_view word);
// What there is to say of a word that begins with a prefix, where a build has nothing that opens it.
std::string not_available(const std::string& word);

}  // namespace uext4::cli

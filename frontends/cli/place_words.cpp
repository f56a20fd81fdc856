#include "cli/place_words.h"

#include "cli/failure.h"
#include "cli/session.h"
#include "device/partition.h"
#include "sandbox/sandbox.h"

#include <algorithm>
#include <filesystem>
#include <map>

namespace uext4::cli {

bool is_one_file(const struct stat& a, const struct stat& b) {
    if (S_ISBLK(a.st_mode)) return S_ISBLK(b.st_mode) && a.st_rdev == b.st_rdev;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

namespace {

std::optional<ShellWords> shell;

// What the words of the command line lead to: in the sandbox no name of the host can be asked about any more.
std::map<std::string, std::optional<struct stat>> looked_at;

bool look(const std::string& path, struct stat& st) {
    if (in_sandbox() && host_reach().reach == SandboxProfile::image) {
        const auto it = looked_at.find(path);
        if (it == looked_at.end() || !it->second) return false;
        st = *it->second;
        return true;
    }
    const bool there = ::stat(path.c_str(), &st) == 0;
    looked_at[path] = there ? std::optional(st) : std::nullopt;
    return there;
}

bool is_file(const std::string& path) {
    struct stat st{};
    return look(path, st) && !S_ISDIR(st.st_mode);
}

Place parse(const std::string& word, const Place* before) {
    return parse_place(word, {before, shell ? &*shell : nullptr}, is_file);
}

std::size_t first_separator(const std::string& word) { return std::min(word.find(":/"), word.find(":<")); }

bool is_there(const std::string& path) {
    struct stat st{};
    std::error_code ignored;
    return look(path, st) || std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
}

}  // namespace

void look_at_words(const std::vector<std::string>& words) {
    for (const std::string& word : words) try {
            struct stat ignored{};
            const Place place = parse(word, nullptr);
            look(parse_image_name(place.image.empty() ? place.path : place.image).path, ignored);
            if (place.kind == Place::Kind::host) (void)missing_image(place.path);
        } catch (const Failure&) {
            // The verb says so, if it takes the word for a place.
        }
}

void read_words_in_shell(ShellWords words) { shell = std::move(words); }
const ShellWords* shell_words() { return shell ? &*shell : nullptr; }

std::optional<std::string> missing_image(const std::string& word) {
    if (is_there(word)) return {};
    const std::size_t separator = first_separator(word);
    if (separator != std::string::npos && separator > 0) {
        const std::string image = word.substr(0, separator);
        struct stat st{};
        if (!look(image, st)) return image + ": there is no such image";
        return image + ": is a directory, and no image";  // or it would be the image
    }
    const std::size_t colon = word.find(':');
    if (colon == std::string::npos || colon == 0 || !is_file(word.substr(0, colon))) return {};
    return fmt::format("{}: a path in an image begins with a slash: {}:/{}", word, word.substr(0, colon),
                       word.substr(colon + 1));
}

Place any_place(const std::string& word, const Place* before) {
    Place place = parse(word, before);
    if (place.kind == Place::Kind::prefixed) fail_with(exit_failure, not_available(place.image));
    return place;
}

std::vector<Place> any_places(const std::vector<std::string>& words) {
    std::vector<Place> out;
    out.reserve(words.size());  // the next one looks at the last one
    for (const std::string& word : words) out.push_back(any_place(word, out.empty() ? nullptr : &out.back()));
    return out;
}

Place image_place(const std::string& word, const Place* before, bool standard) {
    if (shell && word.starts_with(host_prefix)) fail_with(exit_failure, word + ": is on the host, where only cp goes");
    Place place = any_place(word, before);
    switch (place.kind) {
        case Place::Kind::standard:
            if (standard) return place;
            fail_with(exit_failure, "-: this verb works in an image, and has no use for standard input and output");
        case Place::Kind::host: {
            const std::size_t separator = first_separator(word);
            if (!missing_image(word)) return {word, "/", Place::Kind::image};
            if (separator == std::string::npos) fail_with(exit_failure, *missing_image(word));
            // It is opened, which says what is wrong with it.
            return {word.substr(0, separator), word.substr(separator + 1), Place::Kind::image};
        }
        default: return place;
    }
}

std::vector<Place> image_places(const std::vector<std::string>& words, bool standard) {
    std::vector<Place> out;
    out.reserve(words.size());
    for (const std::string& word : words)
        out.push_back(image_place(word, out.empty() ? nullptr : &out.back(), standard));
    return out;
}

std::string whole_image(const std::string& word) {
    const Place place = image_place(word);
    if (place.path != "/")
        fail_with(exit_failure, fmt::format("{}: this verb works on a whole image, and a path follows it", word));
    return place.image;
}

std::vector<Place> places_in_one_image(const std::vector<std::string>& words, const char* verb) {
    std::vector<Place> out = any_places(words);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const Place& place = out[i];
        if (place.kind == Place::Kind::standard)
            fail_with(exit_failure,
                      fmt::format("-: {} takes paths of an image, and not standard input and output", verb));
        if (place.kind == Place::Kind::host) {
            if (const std::optional<std::string> missing = missing_image(place.path)) fail_with(exit_failure, *missing);
            if (i == 0)
                fail_with(exit_failure, fmt::format("{}: names no path in an image: write IMAGE:/path", words[i]));
            const std::string path = (place.path.starts_with('/') ? "" : "/") + place.path;
            fail_with(exit_failure,
                      fmt::format("{}: is a path of the host, and {} stays in the image: write {} for a path in "
                                  "it; cp copies to the host",
                                  words[i], verb, shell ? path : ":" + path));
        }
        if (!same_image(place.image, out[0].image))
            fail_with(exit_failure, fmt::format("{} and {}: both sides must be in one image (cp copies between images)",
                                                words[0], words[i]));
    }
    return out;
}

bool same_image(const std::string& a, const std::string& b) {
    if (a == b) return true;
    const ImageName first = parse_image_name(a), second = parse_image_name(b);
    struct stat one{}, other{};
    return first.partition == second.partition && look(first.path, one) && look(second.path, other) &&
           is_one_file(one, other);
}

std::optional<struct stat> status_of_image(const std::string& image) {
    struct stat st{};
    if (::stat(parse_image_name(image).path.c_str(), &st) != 0) return {};
    return st;
}

bool is_image(const std::string& image, const struct stat& file) {
    const std::optional<struct stat> st = status_of_image(image);
    return st && is_one_file(*st, file);
}

}  // namespace uext4::cli

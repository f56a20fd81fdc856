// cat
#include "cli/cat.h"
#include "cli/listing.h"
#include "cli/verbs.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>

namespace uext4::cli {

namespace {

constexpr std::size_t piece = std::size_t{1} << 20;

void print_bytes(const std::byte* bytes, std::size_t n) {
    if (std::fwrite(bytes, 1, n, stdout) != n) fail_with(exit_failure, "");  // told at the verb's end
}

void print_standard_input() {
    std::vector<std::byte> buffer(piece);
    for (;;) {
        const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail_with(exit_failure, fmt::format("standard input: {}", std::strerror(errno)));
        if (n == 0) return;
        print_bytes(buffer.data(), static_cast<std::size_t>(n));
    }
}

}  // namespace

void print_file(Session& s, const std::string& path) {
    InodeRef inode = s.resolve(path);
    std::unique_ptr<OpenFile> file =
        value_or_fail(s.fs().open(inode, O_RDONLY | O_NOATIME, operator_identity(), false), s.at(path));
    std::vector<std::byte> buffer(piece);
    for (std::uint64_t at = 0;;) {
        const std::size_t n = value_or_fail(file->read(at, buffer), s.at(path));
        if (n == 0) break;
        print_bytes(buffer.data(), n);
        at += n;
    }
}

namespace {

struct CatOptions {
    std::vector<std::string> places;
    CommonOptions o;
};

void cat(const CatOptions& o) {
    const std::vector<Place> places = image_places(o.places, true);
    std::vector<Place> in_images = places;
    std::erase_if(in_images, [](const Place& place) { return place.kind == Place::Kind::standard; });
    Listing listing("cat", in_images, false, o.o);
    for (const Place& place : places) {
        if (place.kind == Place::Kind::standard) listing.attempt("standard input", print_standard_input);
        else listing.at(place, print_file);
    }
    listing.finish();
}

}  // namespace

void add_cat_verb(CLI::App& app) {
    auto s = std::make_shared<CatOptions>();
    CLI::App* v = app.add_subcommand("cat", "Prints files, one after the other");
    v->footer("Examples: uext4 cat disk.img:/etc/hostname   uext4 cat disk.img:/a - disk.img:/b");
    v->add_option("PLACES", s->places, "IMAGE:/path, or - for standard input")->required();
    add_common(v, s->o, true, false);
    v->callback([s] { cat(*s); });
}

}  // namespace uext4::cli

// truncate.
#include "cli/arguments.h"
#include "cli/listing.h"
#include "cli/verbs.h"

#include <fcntl.h>

#include <algorithm>

namespace uext4::cli {

namespace {

// "1M", or a change of the size that a file has: "+1M", "-1M", "<1M" (at most), ">1M" (at least), "/1M" and "%1M" (the
// multiple of it below and above).
struct SizeChange {
    char operation = '=';
    std::uint64_t bytes = 0;

    explicit SizeChange(const std::string& text) {
        const bool changes = !text.empty() && std::string_view("+-<>/%").find(text.front()) != std::string_view::npos;
        if (changes) operation = text.front();
        bytes = size_of(changes ? text.substr(1) : text);
        if (bytes == 0 && (operation == '/' || operation == '%'))
            fail_with(exit_failure, fmt::format("size '{}': there is no multiple of 0", text));
    }

    std::uint64_t of(std::uint64_t size, const std::string& at) const {
        constexpr std::uint64_t most = std::uint64_t{1} << 63;  // no file is as large, and no sum of two overflows
        if (bytes >= most)
            fail_with(exit_failure, fmt::format("{}: {} bytes are more than a file can have", at, bytes));
        switch (operation) {
            case '+': return size + bytes;
            case '-': return size - std::min(size, bytes);
            case '<': return std::min(size, bytes);
            case '>': return std::max(size, bytes);
            case '/': return size / bytes * bytes;
            case '%': return (size + bytes - 1) / bytes * bytes;
            default: return bytes;
        }
    }
};

struct TruncateArguments {
    std::vector<std::string> places;
    std::optional<std::string> size, reference;
    bool no_create = false;
    CommonOptions o;
};

void truncate(const TruncateArguments& arguments) {
    if (!arguments.size && !arguments.reference) fail_with(exit_failure, "-s SIZE or -r FILE is needed");
    std::optional<SizeChange> change;
    if (arguments.size) change.emplace(*arguments.size);
    if (change && arguments.reference && change->operation == '=')
        fail_with(exit_failure, fmt::format("size '{}': with -r, it has to be a change as +1M", *arguments.size));
    Listing listing("truncate", arguments.places, true, arguments.o,
                    arguments.reference ? std::vector{*arguments.reference} : std::vector<std::string>());
    std::optional<std::uint64_t> reference;
    if (arguments.reference) reference = static_cast<std::uint64_t>(listing.reference(*arguments.reference).st_size);
    listing.each([&](Session& session, const std::string& path) {
        const int make = arguments.no_create ? 0 : O_CREAT;
        Result<std::unique_ptr<OpenFile>> file =
            session.fs().open_path(path, O_WRONLY | make, 0644, operator_identity());
        if (!file && file.error().code == ENOENT && arguments.no_create) return;
        if (!file) session.refuse_path(file.error(), path);
        const std::string at = session.at(path);
        std::uint64_t size = reference ? *reference : (*file)->inode().size_hint();
        if (change) size = change->of(size, at);
        value_or_fail((*file)->truncate(size), at);
    });
    listing.finish();
}

}  // namespace

void add_truncate_verb(CLI::App& app) {
    auto s = std::make_shared<TruncateArguments>();
    CLI::App* v = app.add_subcommand("truncate", "Sets the sizes of files, making those that are not there");
    v->footer("Examples: uext4 truncate -s 1M disk.img:/file   uext4 truncate -s %4k disk.img:/a :/b");
    v->add_option("-s,--size", s->size,
                  "Bytes, or with k, M, G, T; or a change: +N, -N, <N at most, >N at least, /N down and %N up to a "
                  "multiple");
    v->add_option("-r,--reference", s->reference, "The size of this place of an image, or file of the host");
    v->add_flag("-c,--no-create", s->no_create, "Make none");
    v->add_option("PLACES", s->places, "IMAGE:/path")->required()->expected(1, -1);
    add_common(v, s->o, false, false);
    v->callback([s] { truncate(*s); });
}

}  // namespace uext4::cli

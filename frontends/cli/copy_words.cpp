#include "cli/copy_words.h"

#include "cli/options.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

namespace uext4::cli {

void CopyWords::add_to(CLI::App& verb) {
    verb_ = &verb;
    verb.add_option("PLACES", places_, "SRC... DST; a side in an image is IMAGE:/path, - is standard input or output")
        ->required()
        ->expected(2, -1);
    verb.add_flag("-a,--archive", archive_, "Recursive, with links, holes, owners, times, attributes, ACLs, devices");
    verb.add_flag("-r,-R,--recursive", recursive_, "Directories as well");
    verb.add_flag("-p,--preserve", preserve_, "With owners, permissions, ACLs and times");
    verb.add_flag("-d", no_dereference_, "As -P, and what has several names is copied with them");
    add_plain_flag(&verb, "-L,--dereference", "Follow all symbolic links of the sources");
    add_plain_flag(&verb, "-H", "Follow those that are named (as without -r)");
    add_plain_flag(&verb, "-P,--no-dereference", "Follow none (as with -r)");
    verb.add_flag("-f,--force", force_, "Remove what is there, if it cannot be written to");
    verb.add_flag("-n,--no-clobber", no_clobber_, "Leave what is there");
    verb.add_flag("-u,--update", update_, "Leave what is there, unless its source is newer");
    verb.add_flag("-v,--verbose", verbose_, "Print what is copied");
    verb.add_option("--owner", owner_, "UID:GID of everything copied");
    verb.add_option("--mode", mode_, "Permissions (octal) of everything copied");
    verb.add_option("--map-owner", maps_, "FROM:TO, of users and groups of the sources; may be repeated");
    add_common(&verb, common, true, false);
}

// The last option of them counts.
FollowLinks CopyWords::follow(bool recursive) const {
    FollowLinks out = recursive ? FollowLinks::none : FollowLinks::named;
    for (const CLI::Option* const option : verb_->parse_order()) {
        const auto is = [&](const char* short_name) { return option->check_sname(short_name); };
        if (is("a") || is("d") || is("P")) out = FollowLinks::none;
        else if (is("H")) out = FollowLinks::named;
        else if (is("L")) out = FollowLinks::all;
    }
    return out;
}

CopyOptions CopyWords::options() const {
    CopyOptions out;
    out.recursive = archive_ || recursive_;
    out.preserve = archive_ || preserve_;
    out.attributes = archive_;
    out.links = archive_ || no_dereference_;
    out.follow = follow(out.recursive);
    out.force = force_;
    out.no_clobber = no_clobber_;
    out.update = update_;
    out.verbose = verbose_;
    out.progress = ::isatty(STDERR_FILENO) == 1;
    if (owner_) out.owner = pair_of(*owner_);
    if (mode_) out.mode = mode_of(*mode_);
    for (const std::string& m : maps_) out.map_owner.push_back(pair_of(m));
    if (places_.size() < 2) fail_with(exit_failure, "a source and a destination are needed");
    return out;
}

void CopyWords::expect_contents_alone(const char* stream, bool output) const {
    const std::pair<bool, const char*> refused[] = {{archive_, "-a"},
                                                    {recursive_, "-r"},
                                                    {preserve_, "-p"},
                                                    {no_dereference_, "-d"},
                                                    {update_, "-u"},
                                                    {!maps_.empty(), "--map-owner"},
                                                    {output && force_, "-f"},
                                                    {output && no_clobber_, "-n"},
                                                    {output && verbose_, "-v"},
                                                    {output && owner_, "--owner"},
                                                    {output && mode_, "--mode"}};
    for (const auto& [given, option] : refused)
        if (given)
            fail_with(exit_failure, fmt::format("-: {} is contents alone, and {} asks for more", stream, option));
}

std::vector<Place> CopyWords::places() const {
    std::vector<Place> out = any_places(places_);
    for (const Place& place : out) {
        if (place.kind == Place::Kind::host)
            if (const std::optional<std::string> missing = missing_image(place.path)) fail_with(exit_failure, *missing);
        if (place.kind != Place::Kind::standard) continue;
        const bool output = &place == &out.back();
        if (out.size() > 2) fail_with(exit_failure, "-: a copy from or to it has one source and one destination");
        expect_contents_alone(output ? "standard output" : "standard input", output);
    }
    if (std::ranges::all_of(out, [](const Place& place) { return place.image.empty(); }))
        fail_with(exit_failure, "neither side is in an image");
    return out;
}

namespace {

// What the links in folders lead to, and those in what they lead to.
void add_link_targets(std::vector<std::string>& paths) {
    namespace fs = std::filesystem;
    std::set<fs::path> seen;
    for (std::size_t i = 0; i < paths.size(); ++i) {
        std::error_code error;
        const fs::path real = fs::canonical(paths[i], error);
        if (error || !seen.insert(real).second || !fs::is_directory(real, error)) continue;
        using Walk = fs::recursive_directory_iterator;
        for (Walk at(real, fs::directory_options::skip_permission_denied, error); !error && at != Walk();
             at.increment(error)) {
            const fs::path target = at->is_symlink(error) ? fs::canonical(at->path(), error) : fs::path();
            if (!error && !target.empty()) paths.push_back(target);
            error.clear();  // a link that leads nowhere is told by the copy itself
        }
    }
}

// What is named of the host, and what a link leads to that is named; with -L, all links.
HostFiles to_read(const std::vector<Place>& sources, const CopyOptions& o) {
    HostFiles out;
    for (const Place& source : sources)
        if (source.kind == Place::Kind::host) out.readable.push_back(source.path);
    if (o.recursive && o.follows_all()) add_link_targets(out.readable);
    return out;
}

// What is copied there, by the names that it has or gets; what is in a directory (`tree/.`) goes straight into another
// one.
HostFiles to_write(const std::vector<Place>& sources, const std::string& to, const CopyOptions& o) {
    HostFiles out;
    std::error_code ignored;
    const bool directory = std::filesystem::is_directory(to, ignored);
    std::set<std::string> names;
    for (const Place& source : sources) {
        if (!directory) names.insert(to);
        else names.insert(means_contents(source.path) ? below(to, "") : below(to, last_part(source.path)));
    }
    names.erase("");
    out.writable.assign(names.begin(), names.end());
    out.attributes = o.preserve;
    out.may_chown = o.preserve || o.owner || !o.map_owner.empty();
    // Links that are copied themselves, and files that are removed, are changes of a folder.
    out.whole_trees = o.recursive || !o.follows_named() || o.force;
    out.special_modes = o.preserve || (o.mode && (*o.mode & ~0777u) != 0);
    return out;
}

}  // namespace

CopyNeeds needs_of(const std::vector<Place>& places, const CopyOptions& o) {
    CopyNeeds out;
    for (const Place& place : places)
        if (!place.image.empty()) out.images.push_back(place.image);
    const std::vector<Place> sources(places.begin(), places.end() - 1);
    if (places.back().kind == Place::Kind::host)
        out.host = {SandboxProfile::files, to_write(sources, places.back().path, o)};
    else if (HostFiles named = to_read(sources, o); !named.readable.empty())
        out.host = {SandboxProfile::sources, std::move(named)};
    return out;
}

CopyNeeds needs_of_copy(std::vector<std::string> arguments) {
    CLI::App line;
    CopyWords words;
    words.add_to(line);
    std::ranges::reverse(arguments);
    try {
        line.parse(arguments);
        return needs_of(words.places(), words.options());
    } catch (const CLI::ParseError&) {
    } catch (const Failure&) {
    }
    return {};  // what is wrong with it is told by the copy itself
}

}  // namespace uext4::cli

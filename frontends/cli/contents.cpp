// cp, truncate.
#include "cli/arguments.h"
#include "cli/copy.h"
#include "cli/session.h"
#include "cli/verbs.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

namespace uext4::cli {

namespace {

// What is named of the host, and what a link leads to that is named.
HostFiles to_read(const std::vector<std::string>& sources) {
    HostFiles out;
    for (const std::string& source : sources)
        if (split_place(source).image.empty()) out.readable.push_back(source);
    return out;
}

// What is copied there, by the names that it has or gets; what is in a directory (`tree/.`) goes straight into another
// one.
HostFiles to_write(const std::vector<std::string>& sources, const std::string& to, const CopyOptions& o) {
    HostFiles out;
    std::error_code ignored;
    const bool directory = std::filesystem::is_directory(to, ignored);
    std::set<std::string> names;
    for (const std::string& source : sources) {
        const std::string path = split_place(source).path;
        if (!directory) names.insert(to);
        else names.insert(means_contents(path) ? below(to, "") : below(to, last_part(path)));
    }
    names.erase("");
    out.writable.assign(names.begin(), names.end());
    out.attributes = o.preserve;
    out.give_away = o.preserve || o.owner || !o.map_owner.empty();
    out.trees = o.recursive;
    out.special_modes = o.preserve || (o.mode && (*o.mode & ~0777u) != 0);
    return out;
}

void copy_into(const Place& to, const std::vector<std::string>& sources, const CopyOptions& o,
               const CommonOptions& common) {
    open_beforehand(to.image, true, common);
    for (const std::string& source : sources)
        if (const std::string image = split_place(source).image; !image.empty() && !same_image(image, to.image))
            open_beforehand(image, false, common);
    Session target(to.image, true, common);
    if (sources.size() > 1 && !target.resolve(to.path)->is_directory())
        give_up(negative, target.at(to.path) + ": is no directory");
    // Each image once, whatever is named in it, and all of them before anything is copied.
    std::map<std::string, std::unique_ptr<Session>> others;
    std::map<std::string, std::unique_ptr<SourceTree>> trees;
    std::vector<Place> places;
    for (const std::string& source : sources) {
        const Place& from = places.emplace_back(split_place(source));
        std::unique_ptr<SourceTree>& tree = trees[from.image];
        if (tree) continue;
        if (from.image.empty()) {
            tree = std::make_unique<HostTree>();
        } else if (same_image(from.image, to.image)) {
            tree = std::make_unique<ImageTree>(target);
        } else {
            others[from.image] = std::make_unique<Session>(from.image, false, common);
            tree = std::make_unique<ImageTree>(*others[from.image]);
        }
    }
    Outcome outcome;
    {
        CopyIn in(target, o, outcome);
        for (const Place& from : places) in.expect(*trees[from.image], from.path);
        for (const Place& from : places) in.copy(*trees[from.image], from.path, to.path);
        in.finish();
    }
    for (const auto& [image, session] : others) session->close();
    target.close();
    if (outcome.code() != fine) give_up(outcome.code(), "");
}

void copy_from_images(const std::vector<std::string>& sources, const std::string& to, const CopyOptions& o,
                      const CommonOptions& common) {
    std::error_code ignored;
    if (sources.size() > 1 && !std::filesystem::is_directory(to, ignored)) give_up(negative, to + ": is no directory");
    std::vector<std::pair<std::string, std::vector<std::string>>> images;  // in the order they are named
    for (const std::string& source : sources) {
        const Place from = split_place(source);
        if (from.image.empty()) give_up(impossible, "neither side is in an image");
        if (images.empty() || images.back().first != from.image)
            images.emplace_back(from.image, std::vector<std::string>{});
        images.back().second.push_back(from.path);
    }
    for (const auto& [image, paths] : images) open_beforehand(image, false, common);
    Outcome outcome;
    CopiesOut all;
    all.several = sources.size() > 1;
    for (const auto& [image, paths] : images) all.images.push_back(image);
    for (const auto& [image, paths] : images) {
        Session from(image, false, common);
        {
            CopyOut out(from, o, outcome, all);
            for (const std::string& path : paths) out.expect(path);
            for (const std::string& path : paths) out.copy(path, to);
            out.finish();
        }
        from.close();
    }
    if (outcome.code() != fine) give_up(outcome.code(), "");
}

// The words of one copy.
struct CopyWords {
    std::vector<std::string> places;
    std::optional<std::string> owner, mode;
    std::vector<std::string> maps;
    bool archive = false, recursive = false;
    CommonOptions o;

    void add_to(CLI::App& verb) {
        verb.add_option("PLACES", places, "SRC... DST; a side in an image is IMAGE:/path")->required()->expected(2, -1);
        verb.add_flag("-a,--archive", archive,
                      "Recursive, with links, holes, owners, times, attributes, ACLs, devices");
        verb.add_flag("-r,-R,--recursive", recursive, "Directories as well");
        verb.add_option("--owner", owner, "UID:GID of everything copied");
        verb.add_option("--mode", mode, "Permissions (octal) of everything copied");
        verb.add_option("--map-owner", maps, "FROM:TO, of users and groups of the sources; may be repeated");
        add_common(&verb, o, true, false);
    }

    CopyOptions options() const {
        CopyOptions out;
        out.preserve = archive;
        out.recursive = archive || recursive;
        out.progress = ::isatty(STDERR_FILENO) == 1;
        if (owner) out.owner = pair_of(*owner);
        if (mode) out.mode = mode_of(*mode);
        for (const std::string& m : maps) out.map_owner.push_back(pair_of(m));
        if (places.size() < 2) give_up(impossible, "a source and a destination are needed");
        return out;
    }
    Place to() const { return split_place(places.back()); }
    std::vector<std::string> sources() const { return {places.begin(), places.end() - 1}; }

    HostReach reach() const {
        if (to().image.empty()) return {Reach::files, to_write(sources(), to().path, options())};
        HostFiles named = to_read(sources());
        if (named.readable.empty()) return {};
        return {Reach::sources, std::move(named)};
    }
};

void copy(const CopyWords& words) {
    const CopyOptions o = words.options();
    for (const std::string& place : words.places)
        if (split_place(place).image.empty())
            if (const std::optional<std::string> missing = missing_image(place)) give_up(impossible, *missing);
    if (HostReach needed = words.reach(); needed.reach != Reach::image) reach_host_files(std::move(needed));
    if (const Place to = words.to(); !to.image.empty()) copy_into(to, words.sources(), o, words.o);
    else copy_from_images(words.sources(), to.path, o, words.o);
}

}  // namespace

HostReach reach_of_copy(std::vector<std::string> arguments) {
    CLI::App line;
    CopyWords words;
    words.add_to(line);
    std::ranges::reverse(arguments);
    try {
        line.parse(arguments);
        return words.reach();
    } catch (const CLI::ParseError&) {
    } catch (const Failure&) {
    }
    return {};  // what is wrong with it is told by the copy itself
}

void add_content_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<CopyWords>();
        CLI::App* v = app.add_subcommand("cp", "Copies into, out of, or between images");
        v->footer(
            "Examples: uext4 cp -a rootfs disk.img:/   uext4 cp disk.img:/etc/fstab .\n"
            "          uext4 cp -a --map-owner 1000:0 tree disk.img:/srv");
        s->add_to(*v);
        v->callback([s] { copy(*s); });
    }
    {
        struct State {
            std::string place, size;
            CommonOptions o;
        };
        auto s = std::make_shared<State>();
        CLI::App* v = app.add_subcommand("truncate", "Sets a file's size");
        v->footer("Example: uext4 truncate -s 1M disk.img:/file");
        v->add_option("-s,--size", s->size, "Bytes, or with k, M, G, T")->required();
        v->add_option("PLACE", s->place, "IMAGE:/path")->required();
        add_common(v, s->o, false, false);
        v->callback([s] {
            const Place p = image_place(s->place);
            const std::uint64_t size = size_of(s->size);
            Session session(p.image, true, s->o);
            {
                Result<std::unique_ptr<OpenFile>> file =
                    session.fs().open_path(p.path, O_WRONLY | O_CREAT, 0644, operator_identity());
                if (!file) session.refuse_path(file.error(), p.path);
                need((*file)->truncate(size), session.at(p.path));
            }
            session.close();
        });
    }
}

}  // namespace uext4::cli

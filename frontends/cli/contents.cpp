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
HostFiles to_read(const std::vector<Place>& sources) {
    HostFiles out;
    for (const Place& source : sources)
        if (source.kind == Place::Kind::host) out.readable.push_back(source.path);
    return out;
}

// What is copied there, by the names that it has or gets; what is in a directory (`tree/.`) goes straight into another
// one.
HostFiles to_write(const std::vector<Place>& sources, const std::string& to, const CopyOptions& o) {
    HostFiles out;
    std::error_code ignored;
    const bool directory = std::filesystem::is_directory(to, ignored);
    std::set<std::string> names;
    for (const auto& [image, path, kind] : sources) {
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

void copy_into(const Place& to, const std::vector<Place>& sources, const CopyOptions& o, const CommonOptions& common) {
    open_beforehand(to.image, true, common);
    for (const Place& from : sources)
        if (!from.image.empty() && !same_image(from.image, to.image)) open_beforehand(from.image, false, common);
    Session target(to.image, true, common);
    if (sources.size() > 1 && !target.resolve(to.path)->is_directory())
        give_up(negative, target.at(to.path) + ": is no directory");
    // Each image once, whatever is named in it, and all of them before anything is copied.
    std::map<std::string, std::unique_ptr<Session>> others;
    std::map<std::string, std::unique_ptr<SourceTree>> trees;
    for (const Place& from : sources) {
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
    Outcome outcome("cp");
    {
        CopyIn in(target, o, outcome);
        for (const Place& from : sources) in.expect(*trees[from.image], from.path);
        for (const Place& from : sources) in.copy(*trees[from.image], from.path, to.path);
        in.finish();
    }
    for (const auto& [image, session] : others) session->close();
    target.close();
    outcome.finish();
}

void copy_from_images(const std::vector<Place>& sources, const std::string& to, const CopyOptions& o,
                      const CommonOptions& common) {
    std::error_code ignored;
    if (sources.size() > 1 && !std::filesystem::is_directory(to, ignored)) give_up(negative, to + ": is no directory");
    std::vector<std::pair<std::string, std::vector<std::string>>> images;  // in the order they are named
    for (const Place& from : sources) {
        if (from.image.empty()) give_up(impossible, "neither side is in an image");
        if (images.empty() || images.back().first != from.image)
            images.emplace_back(from.image, std::vector<std::string>{});
        images.back().second.push_back(from.path);
    }
    for (const auto& [image, paths] : images) open_beforehand(image, false, common);
    Outcome outcome("cp");
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
    outcome.finish();
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
};

// A copy's words, understood.
struct CopyPlaces {
    std::vector<Place> from;
    Place to;

    explicit CopyPlaces(const CopyWords& words) : from(any_places(words.places)), to(std::move(from.back())) {
        from.pop_back();
    }
    CopyNeeds needs(const CopyOptions& o) const {
        CopyNeeds out;
        for (const Place& place : from)
            if (!place.image.empty()) out.images.push_back(place.image);
        if (!to.image.empty()) out.images.push_back(to.image);
        if (to.kind == Place::Kind::host) out.host = {Reach::files, to_write(from, to.path, o)};
        else if (HostFiles named = to_read(from); !named.readable.empty())
            out.host = {Reach::sources, std::move(named)};
        return out;
    }
};

void copy(const CopyWords& words) {
    const CopyOptions o = words.options();
    CopyPlaces places(words);
    const auto expect = [](const Place& place) {
        if (place.kind != Place::Kind::host) return;
        if (const std::optional<std::string> missing = missing_image(place.path)) give_up(impossible, *missing);
    };
    for (const Place& place : places.from) expect(place);
    expect(places.to);
    if (CopyNeeds needs = places.needs(o); needs.host.reach != Reach::image) reach_host_files(std::move(needs.host));
    if (!places.to.image.empty()) copy_into(places.to, places.from, o, words.o);
    else copy_from_images(places.from, places.to.path, o, words.o);
}

}  // namespace

CopyNeeds needs_of_copy(std::vector<std::string> arguments) {
    CLI::App line;
    CopyWords words;
    words.add_to(line);
    std::ranges::reverse(arguments);
    try {
        line.parse(arguments);
        const CopyOptions o = words.options();
        return CopyPlaces(words).needs(o);
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

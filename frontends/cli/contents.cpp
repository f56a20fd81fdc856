// cat, cp, truncate.
#include "cli/arguments.h"
#include "cli/copy.h"
#include "cli/session.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

namespace uext4::cli {

namespace {

void cat(const std::string& place, const CommonOptions& o) {
    const Place p = image_place(place);
    Session s(p.image, false, o);
    {
        InodeRef inode = s.resolve(p.path);
        std::unique_ptr<OpenFile> file =
            need(s.fs().open(inode, O_RDONLY | O_NOATIME, operator_identity(), false), s.at(p.path));
        std::vector<std::byte> buffer(std::size_t{1} << 20);
        for (std::uint64_t at = 0;;) {
            const std::size_t n = need(file->read(at, buffer), s.at(p.path));
            if (n == 0) break;
            if (std::fwrite(buffer.data(), 1, n, stdout) != n) give_up(impossible, "");  // told at the verb's end
            at += n;
        }
    }
    s.close();
}

struct CopyState {
    std::vector<std::string> places;
    std::optional<std::string> owner, mode;
    std::vector<std::string> maps;
    bool archive = false, recursive = false;
    CommonOptions o;
};

// A folder of the host that lives as long as this.
class Folder {
public:
    Folder() {
        const char* const set = std::getenv("TMPDIR");
        const std::string above = set && *set ? set : "/tmp";
        path_ = above + "/uext4-cp-XXXXXX";
        if (!::mkdtemp(path_.data()))
            give_up(impossible, fmt::format("{} ({}): no folder can be made there: {}", above,
                                            set && *set ? "TMPDIR" : "no TMPDIR is set", std::strerror(errno)));
    }
    ~Folder() {
        std::error_code ignored;
        // Also what is in directories that their owner cannot enter.
        constexpr auto anything = std::filesystem::directory_options::skip_permission_denied;
        using Walk = std::filesystem::recursive_directory_iterator;
        ::chmod(path_.c_str(), S_IRWXU);
        for (Walk at(path_, anything, ignored); at != Walk(); at.increment(ignored))
            if (!at->is_symlink(ignored) && at->is_directory(ignored)) ::chmod(at->path().c_str(), S_IRWXU);
        std::filesystem::remove_all(path_, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

// What was copied of a source; nothing of one that could not be.
using Copied = std::optional<std::string>;

// Copies what is named in one image to `folder`, into a directory for each source: a name may be there twice. The paths
// of the copies, which mean what the sources mean.
std::vector<Copied> copy_aside(Session& from, const std::vector<std::string>& paths, const std::string& folder,
                               const CopyOptions& options, Outcome& outcome) {
    CopyOut out(from, options, outcome);
    std::vector<Copied> places;
    for (const std::string& path : paths) out.expect(path);
    for (const std::string& path : paths) {
        const std::string place = fmt::format("{}/{}", folder, places.size());
        if (::mkdir(place.c_str(), 0700) != 0) give_up(impossible, place + ": " + std::strerror(errno));
        const bool done = out.copy(path, place);
        places.push_back(done ? Copied(place + "/" + (means_contents(path) ? "." : last_part(path))) : std::nullopt);
    }
    out.finish();
    return places;
}

// Whatever is named, and not the target itself, as paths of the host: what is in images is copied to folders first.
std::vector<std::string> on_the_host(Session& to, const std::string& target, const std::vector<std::string>& sources,
                                     const CopyOptions& options, const CommonOptions& common,
                                     std::map<std::string, Folder>& folders, Outcome& outcome) {
    std::map<std::string, std::vector<std::string>> wanted;
    std::map<std::string, std::vector<Copied>> places;
    std::vector<std::string> left;
    Progress unseen(false);
    for (const std::string& source : sources) {
        const Place from = split_place(source);
        bool wanted_at_all = true;
        if (from.image == to.image() &&
            !outcome.attempt(unseen, [&] { wanted_at_all = is_to_copy(to, from.path, target, options); }))
            continue;
        if (!wanted_at_all) continue;
        left.push_back(source);
        if (!from.image.empty()) wanted[from.image].push_back(from.path);
    }
    CopyOptions plain = options;
    plain.owner.reset();
    plain.mode.reset();
    plain.aside = true;
    for (const auto& [image, paths] : wanted) {
        if (image == to.image()) {
            places[image] = copy_aside(to, paths, folders[image].path(), plain, outcome);
            continue;
        }
        Session other(image, false, common);
        places[image] = copy_aside(other, paths, folders[image].path(), plain, outcome);
        other.close();
    }
    std::vector<std::string> out;
    std::map<std::string, std::size_t> next;
    for (const std::string& source : left) {
        const std::string image = split_place(source).image;
        if (image.empty()) {
            out.push_back(source);
            continue;
        }
        if (const Copied& copied = places[image][next[image]++]) out.push_back(*copied);
    }
    return out;
}

void copy_into(const Place& to, const std::vector<std::string>& sources, const CopyOptions& o,
               const CommonOptions& common) {
    Session target(to.image, true, common);
    if (sources.size() > 1 && !target.resolve(to.path)->is_directory())
        give_up(negative, target.at(to.path) + ": is no directory");
    std::map<std::string, Folder> folders;
    Outcome outcome;
    const std::vector<std::string> paths = on_the_host(target, to.path, sources, o, common, folders, outcome);
    {
        CopyIn in(target, o, outcome);
        for (const std::string& path : paths) in.expect(path);
        for (const std::string& path : paths) in.copy(path, to.path);
    }
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
    Outcome outcome;
    for (const auto& [image, paths] : images) {
        Session from(image, false, common);
        {
            CopyOut out(from, o, outcome);
            for (const std::string& path : paths) out.expect(path);
            for (const std::string& path : paths) out.copy(path, to);
            out.finish();
        }
        from.close();
    }
    if (outcome.code() != fine) give_up(outcome.code(), "");
}

void copy(const CopyState& c) {
    CopyOptions o;
    o.preserve = c.archive;
    o.recursive = c.archive || c.recursive;
    o.progress = ::isatty(STDERR_FILENO) == 1;
    if (c.owner) o.owner = pair_of(*c.owner);
    if (c.mode) o.mode = mode_of(*c.mode);
    for (const std::string& m : c.maps) o.map_owner.push_back(pair_of(m));
    reach_host_files();
    if (c.places.size() < 2) give_up(impossible, "a source and a destination are needed");
    for (const std::string& place : c.places)
        if (split_place(place).image.empty())
            if (const std::optional<std::string> missing = missing_image(place)) give_up(impossible, *missing);
    const Place to = split_place(c.places.back());
    const std::vector<std::string> sources(c.places.begin(), c.places.end() - 1);
    if (to.image.empty()) copy_from_images(sources, to.path, o, c.o);
    else copy_into(to, sources, o, c.o);
}

}  // namespace

void add_content_verbs(CLI::App& app) {
    {
        struct State {
            std::string place;
            CommonOptions o;
        };
        auto s = std::make_shared<State>();
        CLI::App* v = app.add_subcommand("cat", "Prints a file");
        v->footer("Example: uext4 cat disk.img:/etc/hostname");
        v->add_option("PLACE", s->place, "IMAGE:/path")->required();
        add_common(v, s->o, true, false);
        v->callback([s] { cat(s->place, s->o); });
    }
    {
        auto s = std::make_shared<CopyState>();
        CLI::App* v = app.add_subcommand("cp", "Copies into, out of, or between images");
        v->footer(
            "Examples: uext4 cp -a rootfs disk.img:/   uext4 cp disk.img:/etc/fstab .\n"
            "          uext4 cp -a --map-owner 1000:0 tree disk.img:/srv");
        v->add_option("PLACES", s->places, "SRC... DST; a side in an image is IMAGE:/path")
            ->required()
            ->expected(2, -1);
        v->add_flag("-a,--archive", s->archive,
                    "Recursive, with links, holes, owners, times, attributes, ACLs, devices");
        v->add_flag("-r,-R,--recursive", s->recursive, "Directories as well");
        v->add_option("--owner", s->owner, "UID:GID of everything copied");
        v->add_option("--mode", s->mode, "Permissions (octal) of everything copied");
        v->add_option("--map-owner", s->maps, "FROM:TO, of users and groups of the sources; may be repeated");
        add_common(v, s->o, true, false);
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

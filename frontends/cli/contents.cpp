// cat, cp, truncate.
#include "cli/session.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

namespace uext4::cli {

namespace {

std::pair<std::uint32_t, std::uint32_t> pair_of(const std::string& text) {
    const std::size_t colon = text.find(':');
    try {
        if (colon == std::string::npos) throw std::invalid_argument(text);
        return {static_cast<std::uint32_t>(std::stoul(text.substr(0, colon))),
                static_cast<std::uint32_t>(std::stoul(text.substr(colon + 1)))};
    } catch (const std::exception&) {
        give_up(impossible, "'" + text + "' is not of the form A:B");
    }
}

void cat(const std::string& place, const CommonOptions& o) {
    const Place p = image_place(place);
    Session s(p.image, false, o);
    {
        InodeRef inode = s.resolve(p.path);
        std::unique_ptr<OpenFile> file = need(s.fs().open(inode, O_RDONLY, operator_identity(), false), place);
        std::vector<std::byte> buffer(std::size_t{1} << 20);
        for (std::uint64_t at = 0;;) {
            const std::size_t n = need(file->read(at, buffer), place);
            if (n == 0) break;
            if (std::fwrite(buffer.data(), 1, n, stdout) != n) give_up(impossible, "cannot write the output");
            at += n;
        }
    }
    s.close();
}

struct CopyState {
    std::vector<std::string> places;
    std::string owner, mode;
    std::vector<std::string> maps;
    bool archive = false, recursive = false;
    CommonOptions o;
};

// A place whose image is not there looks like a path of the host; it is the image that has to be named.
void refuse_missing_image(const std::string& text) {
    const std::size_t colon = std::min(text.find(":/"), text.find(":<"));
    std::error_code ignored;
    if (colon == std::string::npos || colon == 0 ||
        std::filesystem::exists(std::filesystem::symlink_status(text, ignored)))
        return;
    const std::string image = text.substr(0, colon);
    if (!std::filesystem::exists(image, ignored)) give_up(impossible, image + ": there is no such image");
}

void copy(const CopyState& c) {
    reach_host_files();
    if (c.places.size() < 2) give_up(impossible, "a source and a destination are needed");
    CopyOptions o;
    o.preserve = c.archive;
    o.recursive = c.archive || c.recursive;
    o.progress = ::isatty(STDERR_FILENO) == 1;
    if (!c.owner.empty()) o.owner = pair_of(c.owner);
    if (!c.mode.empty()) {
        try {
            o.mode = static_cast<std::uint16_t>(std::stoul(c.mode, nullptr, 8) & 07777);
        } catch (const std::exception&) {
            give_up(impossible, "mode '" + c.mode + "' is not octal");
        }
    }
    for (const std::string& m : c.maps) o.map_owner.push_back(pair_of(m));
    const Place to = split_place(c.places.back());
    for (const std::string& place : c.places)
        if (split_place(place).image.empty()) refuse_missing_image(place);
    const bool many = c.places.size() > 2;
    const std::vector<std::string> sources(c.places.begin(), c.places.end() - 1);
    if (!to.image.empty()) {
        Session target(to.image, true, c.o);
        if (many && !target.resolve(to.path)->is_directory())
            give_up(negative, target.at(to.path) + ": is no directory");
        for (const std::string& source : sources) {
            const Place from = split_place(source);
            if (from.image.empty()) {
                copy_in(target, source, to.path, o);
                continue;
            }
            // From image to image by way of a folder of the host.
            std::string folder = (std::filesystem::temp_directory_path() / "uext4-cp-XXXXXX").string();
            if (!::mkdtemp(folder.data())) give_up(impossible, folder + ": cannot be made");
            struct Cleaner {
                std::string folder;
                ~Cleaner() {
                    std::error_code ignored;
                    std::filesystem::remove_all(folder, ignored);
                }
            } cleaner{folder};
            CopyOptions plain = o;
            plain.owner.reset();
            plain.mode.reset();
            if (from.image == to.image) {
                copy_out(target, from.path, folder, plain);
            } else {
                Session other(from.image, false, c.o);
                copy_out(other, from.path, folder, plain);
                other.close();
            }
            for (const auto& e : std::filesystem::directory_iterator(folder)) copy_in(target, e.path(), to.path, o);
        }
        target.close();
        return;
    }
    std::error_code ignored;
    if (many && !std::filesystem::is_directory(to.path, ignored)) give_up(negative, to.path + ": is no directory");
    for (const std::string& source : sources) {
        const Place from = split_place(source);
        if (from.image.empty()) give_up(impossible, "neither side is in an image");
        Session s(from.image, false, c.o);
        copy_out(s, from.path, to.path, o);
        s.close();
    }
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
        v->add_option("--owner", s->owner, "UID:GID of everything copied into an image");
        v->add_option("--mode", s->mode, "Permissions (octal) of everything copied");
        v->add_option("--map-owner", s->maps, "FROM:TO, of users and groups; may be repeated");
        add_common(v, s->o, false, false);
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
            const std::uint64_t size = need(parse_size(s->size), s->place);
            Session session(p.image, true, s->o);
            {
                std::unique_ptr<OpenFile> file =
                    need(session.fs().open_path(p.path, O_WRONLY | O_CREAT, 0644, operator_identity()), s->place);
                need(file->truncate(size), s->place);
            }
            session.close();
        });
    }
}

}  // namespace uext4::cli

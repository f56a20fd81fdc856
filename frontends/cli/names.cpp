// mkdir, rm, rmdir, mv, ln, mknod.
#include "cli/arguments.h"
#include "cli/session.h"
#include "cli/verbs.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>

namespace uext4::cli {

namespace {

// What --owner and --mode say of something new.
struct Wanted {
    Owner owner;
    std::optional<std::uint16_t> mode;
    Wanted(const std::optional<std::string>& owner_text, const std::optional<std::string>& mode_text) {
        if (owner_text) owner = owner_of(*owner_text);
        if (mode_text) mode = mode_of(*mode_text);
    }
    void apply(Session& s, Inode& inode, const std::string& path) const {
        AttributeChange change;
        change.uid = owner.uid;
        change.gid = owner.gid;
        change.mode = mode;
        if (change.uid || change.gid || change.mode)
            need(s.fs().set_attributes(inode, change, operator_identity(), false), s.at(path));
    }
};

void make_directory(Session& s, std::string path, bool parents, const Wanted& wanted) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    if (parents) {
        for (std::size_t at = 0; (at = path.find('/', at + 1)) != std::string::npos;) {
            const std::string part = path.substr(0, at);
            if (part.empty() || s.fs().resolve(part, operator_identity())) continue;
            FileSystem::Parent p = s.parent(part);
            need(s.fs().create(*p.directory, p.name, S_IFDIR | 0755, 0, {}, operator_identity(), false), s.at(part));
        }
        if (Result<InodeRef> old = s.fs().resolve(path, operator_identity()); old && (*old)->is_directory()) return;
    }
    FileSystem::Parent p = s.parent(path);
    InodeRef made =
        need(s.fs().create(*p.directory, p.name, S_IFDIR | 0755, 0, {}, operator_identity(), false), s.at(path));
    wanted.apply(s, *made, path);
}

// Whether what is named is a directory. The end of the verb for "name/" that is none.
bool is_directory(Session& s, const FileSystem::Parent& place, const std::string& path) {
    const bool is =
        need(s.fs().lookup(*place.directory, place.name, operator_identity(), false), s.at(path))->is_directory();
    if (place.slash && !is) give_up(negative, s.at(path) + ": is no directory");
    return is;
}

// Nothing else that keeps it from being found is passed over.
bool is_missing(Session& s, const std::string& path) {
    const Result<InodeRef> there = s.fs().resolve(path, operator_identity(), false);
    return !there && (there.error().code == ENOENT || there.error().code == ENOTDIR);
}

// In a damaged image a name in the tree may lead to a directory that lies elsewhere, and has other things in it.
void expect_own(Session& s, Inode& directory, Inode& inside, const std::string& path) {
    const InodeNr parent = need(s.fs().lookup(inside, "..", operator_identity(), false), s.at(path))->number();
    if (parent != directory.number())
        give_up(impossible, fmt::format("{}: directory inode {} lies in inode {}, and is found in inode {}", s.at(path),
                                        inside.number(), parent, directory.number()));
}

void remove_tree(Session& s, Inode& directory, const std::string& name, const std::string& path, Ancestors& above) {
    InodeRef inode = need(s.fs().lookup(directory, name, operator_identity(), false), s.at(path));
    if (!inode->is_directory()) {
        need(s.fs().unlink(directory, name, operator_identity(), false), s.at(path));
        return;
    }
    expect_own(s, directory, *inode, path);
    {
        const Ancestors::Inside here(above, s, *inode);
        std::vector<std::string> inside;
        need(s.fs().read_directory(*inode, 0,
                                   [&](const DirectoryEntry& e) {
                                       if (e.name != "." && e.name != "..") inside.emplace_back(e.name);
                                       return true;
                                   }),
             s.at(path));
        for (const std::string& n : inside) remove_tree(s, *inode, n, below(path, n), above);
    }
    inode = InodeRef();
    need(s.fs().rmdir(directory, name, operator_identity(), false), s.at(path));
}

struct NameArguments {
    std::vector<std::string> places;
    std::optional<std::string> owner, mode;
    std::string kind;
    unsigned device_major = 0, device_minor = 0;
    bool flag = false, force = false;
    CommonOptions o;
};

CLI::App* verb(CLI::App& app, const char* name, const char* help, const char* example,
               const std::shared_ptr<NameArguments>& s, int least, int most) {
    CLI::App* v = app.add_subcommand(name, help);
    v->footer(std::string("Example: ") + example);
    v->add_option("PLACES", s->places, "IMAGE:/path")->required()->expected(least, most);
    add_common(v, s->o, false, false);
    return v;
}

// Runs on each place in its image; images that follow each other are opened once.
void each(const NameArguments& st, const std::function<void(Session&, const std::string&)>& use) {
    const std::string first = image_place(st.places.front()).image;
    const auto other = [&](const std::string& text) { return image_place(text).image != first; };
    if (std::ranges::any_of(st.places, other))
        for (const std::string& text : st.places) open_beforehand(image_place(text).image, true, st.o);
    std::unique_ptr<Session> s;
    for (const std::string& text : st.places) {
        const Place p = image_place(text);
        if (!s || s->image() != p.image) {
            if (s) s->close();
            s = std::make_unique<Session>(p.image, true, st.o);
        }
        use(*s, p.path);
    }
    if (s) s->close();
}

}  // namespace

void add_name_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<NameArguments>();
        CLI::App* v = verb(app, "mkdir", "Makes directories", "uext4 mkdir -p disk.img:/a/b", s, 1, -1);
        v->add_flag("-p,--parents", s->flag, "Parents as well; no error if it exists");
        v->add_option("--owner", s->owner, "UID:GID");
        v->add_option("--mode", s->mode, "Octal");
        v->callback([s] {
            const Wanted wanted(s->owner, s->mode);
            each(*s,
                 [&](Session& session, const std::string& path) { make_directory(session, path, s->flag, wanted); });
        });
    }
    {
        auto s = std::make_shared<NameArguments>();
        CLI::App* v = verb(app, "rm", "Removes files, or trees with -r", "uext4 rm -r disk.img:/tmp/x", s, 1, -1);
        v->add_flag("-r,-R", s->flag, "Directories and what is in them");
        v->add_flag("-f", s->force, "No error for what does not exist");
        v->callback([s] {
            each(*s, [&](Session& session, const std::string& path) {
                if (s->force && is_missing(session, path)) return;
                FileSystem::Parent p = session.parent(path);
                // Before what is in it is gone.
                if (p.name == "." || p.name == "..")
                    give_up(negative, fmt::format("{}: \"{}\" cannot be removed", session.at(path), p.name));
                if (p.slash) is_directory(session, p, path);
                Ancestors above;
                if (s->flag) remove_tree(session, *p.directory, p.name, path, above);
                else need(session.fs().unlink(*p.directory, p.name, operator_identity(), false), session.at(path));
            });
        });
    }
    {
        auto s = std::make_shared<NameArguments>();
        verb(app, "rmdir", "Removes empty directories", "uext4 rmdir disk.img:/a", s, 1, -1)->callback([s] {
            each(*s, [&](Session& session, const std::string& path) {
                FileSystem::Parent p = session.parent(path);
                need(session.fs().rmdir(*p.directory, p.name, operator_identity(), false), session.at(path));
            });
        });
    }
    {
        auto s = std::make_shared<NameArguments>();
        verb(app, "mv", "Renames within an image", "uext4 mv disk.img:/a /b", s, 2, 2)->callback([s] {
            const Place from = image_place(s->places[0]);
            Place to = split_place(s->places[1]);
            // It may be a path of the image all the same.
            const std::optional<std::string> missing = to.image.empty() ? missing_image(to.path) : std::nullopt;
            if (!to.image.empty() && to.image != from.image)
                give_up(impossible,
                        fmt::format("{} and {}: both sides must be in one image", s->places[0], s->places[1]));
            Session session(from.image, true, s->o);
            {
                if (missing && !session.fs().resolve_parent(to.path, operator_identity()))
                    give_up(impossible, *missing);
                FileSystem::Parent a = session.parent(from.path);
                const bool directory = is_directory(session, a, from.path);
                if (Result<InodeRef> there = session.fs().resolve(to.path, operator_identity());
                    there && (*there)->is_directory())
                    to.path = below(to.path, a.name);
                FileSystem::Parent b = directory ? session.parent(to.path) : session.parent_of_file(to.path);
                need(session.fs().rename(*a.directory, a.name, *b.directory, b.name, 0, operator_identity(), false),
                     session.at(from.path));
            }
            session.close();
        });
    }
    {
        auto s = std::make_shared<NameArguments>();
        CLI::App* v = verb(app, "ln", "Makes a link", "uext4 ln -s target disk.img:/link", s, 2, 2);
        v->add_flag("-s", s->flag, "A symbolic link; the first argument is its text");
        v->callback([s] {
            const Place to = image_place(s->places[1]);
            const std::optional<std::string> missing = missing_image(s->places[0]);
            Session session(to.image, true, s->o);
            {
                FileSystem::Parent p = session.parent_of_file(to.path);
                if (s->flag) {
                    need(session.fs().create(*p.directory, p.name, S_IFLNK | 0777, 0, s->places[0], operator_identity(),
                                             false),
                         session.at(to.path));
                } else {
                    const Place from = split_place(s->places[0]);
                    if (!from.image.empty() && from.image != to.image)
                        give_up(impossible,
                                fmt::format("{} and {}: both sides must be in one image", s->places[0], s->places[1]));
                    if (missing && from.image.empty() && !session.fs().resolve(from.path, operator_identity(), false))
                        give_up(impossible, *missing);
                    InodeRef target = session.resolve(from.path, false);
                    need(session.fs().link(*target, *p.directory, p.name, operator_identity(), false),
                         session.at(to.path));
                }
            }
            session.close();
        });
    }
    {
        auto s = std::make_shared<NameArguments>();
        CLI::App* v = app.add_subcommand("mknod", "Makes a device, fifo or socket");
        v->footer("Example: uext4 mknod disk.img:/dev/null c 1 3");
        s->places.resize(1);
        v->add_option("PLACE", s->places[0], "IMAGE:/path")->required();
        v->add_option("TYPE", s->kind, "c, b, p or s")->required()->check(CLI::IsMember({"c", "b", "p", "s"}));
        CLI::Option* major_number = v->add_option("MAJOR", s->device_major, "Of a device: 0 to 4095");
        CLI::Option* minor_number = v->add_option("MINOR", s->device_minor, "0 to 1048575");
        major_number->check(CLI::Range(0, 4095));
        minor_number->check(CLI::Range(0, 1048575));
        v->add_option("--mode", s->mode, "Octal");
        v->add_option("--owner", s->owner, "UID:GID");
        add_common(v, s->o, false, false);
        v->callback([s, major_number, minor_number] {
            const Wanted wanted(s->owner, s->mode);
            const bool device = s->kind == "c" || s->kind == "b";
            if (device != (major_number->count() + minor_number->count() == 2) ||
                (!device && major_number->count() != 0))
                give_up(impossible,
                        device ? "a device has a MAJOR and a MINOR" : "only devices have a MAJOR and a MINOR");
            each(*s, [&](Session& session, const std::string& path) {
                const mode_t type = s->kind == "c"   ? S_IFCHR
                                    : s->kind == "b" ? S_IFBLK
                                    : s->kind == "p" ? S_IFIFO
                                                     : S_IFSOCK;
                FileSystem::Parent p = session.parent_of_file(path);
                InodeRef made =
                    need(session.fs().create(*p.directory, p.name, type | 0644,
                                             makedev(s->device_major, s->device_minor), {}, operator_identity(), false),
                         session.at(path));
                wanted.apply(session, *made, path);
            });
        });
    }
}

}  // namespace uext4::cli

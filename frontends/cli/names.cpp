// mkdir, rmdir, mknod.
#include "cli/arguments.h"
#include "cli/listing.h"
#include "cli/mode_change.h"
#include "cli/verbs.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

namespace uext4::cli {

namespace {

// What --owner and --mode say of something new.
struct Wanted {
    Owner owner;
    std::optional<std::uint16_t> mode;
    // `mode_before`: what a mode like u=rwx,o= changes.
    Wanted(const std::optional<std::string>& owner_text, const std::optional<std::string>& mode_text,
           std::uint16_t mode_before) {
        if (owner_text) owner = owner_of(*owner_text);
        if (mode_text) mode = new_mode(mode_before, *mode_text, false);
    }
    void apply(Session& s, Inode& inode, const std::string& path) const {
        AttributeChange change;
        change.uid = owner.uid;
        change.gid = owner.gid;
        change.mode = mode;
        if (change.uid || change.gid || change.mode)
            value_or_fail(s.fs().set_attributes(inode, change, operator_identity(), false), s.at(path));
    }
};

struct NameArguments {
    std::vector<std::string> places;
    std::optional<std::string> owner, mode;
    std::string kind;
    unsigned device_major = 0, device_minor = 0;
    bool flag = false, verbose = false;
    CommonOptions o;
};

void make_directory(Session& s, std::string path, const NameArguments& st, const Wanted& wanted) {
    const auto make = [&](const std::string& part) {
        const FileSystem::Parent p = s.parent(part);
        InodeRef made = value_or_fail(
            s.fs().create(*p.directory, p.name, S_IFDIR | 0755, 0, {}, operator_identity(), false), s.at(part));
        if (st.verbose) fmt::print("created directory '{}'\n", printable(s.at(part)));
        return made;
    };
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    if (st.flag) {
        for (std::size_t at = 0; (at = path.find('/', at + 1)) != std::string::npos;) {
            const std::string part = path.substr(0, at);
            if (!part.empty() && !s.fs().resolve(part, operator_identity())) make(part);
        }
        if (Result<InodeRef> old = s.fs().resolve(path, operator_identity()); old && (*old)->is_directory()) return;
    }
    wanted.apply(s, *make(path), path);
}

CLI::App* verb(CLI::App& app, const char* name, const char* help, const char* example,
               const std::shared_ptr<NameArguments>& s, int least, int most) {
    CLI::App* v = app.add_subcommand(name, help);
    v->footer(std::string("Example: ") + example);
    v->add_option("PLACES", s->places, "IMAGE:/path")->required()->expected(least, most);
    add_common(v, s->o, false, false);
    return v;
}

// On each place; the end of the verb where one of them failed.
void each(const NameArguments& st, const char* verb, const std::function<void(Session&, const std::string&)>& use) {
    Listing places(verb, st.places, true, st.o);
    places.each(use);
    places.finish();
}

}  // namespace

void add_name_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<NameArguments>();
        CLI::App* v = verb(app, "mkdir", "Makes directories", "uext4 mkdir -p disk.img:/a/b", s, 1, -1);
        v->add_flag("-p,--parents", s->flag, "Parents as well; no error if it exists");
        v->add_option("--owner", s->owner, "UID:GID");
        v->add_option("-m,--mode", s->mode, "Octal, or like u=rwx,g=rx,o=");
        v->add_flag("-v,--verbose", s->verbose, "Print what was made");
        v->callback([s] {
            const Wanted wanted(s->owner, s->mode, 0777);
            each(*s, "mkdir",
                 [&](Session& session, const std::string& path) { make_directory(session, path, *s, wanted); });
        });
    }
    {
        auto s = std::make_shared<NameArguments>();
        CLI::App* v = verb(app, "rmdir", "Removes empty directories", "uext4 rmdir disk.img:/a", s, 1, -1);
        v->add_flag("-v,--verbose", s->verbose, "Print what was removed");
        v->callback([s] {
            each(*s, "rmdir", [&](Session& session, const std::string& path) {
                FileSystem::Parent p = session.parent(path);
                value_or_fail(session.fs().rmdir(*p.directory, p.name, operator_identity(), false), session.at(path));
                if (s->verbose) fmt::print("removed directory '{}'\n", printable(session.at(path)));
            });
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
        v->add_option("-m,--mode", s->mode, "Octal, or like u=rwx,g=rx,o=");
        v->add_option("--owner", s->owner, "UID:GID");
        add_common(v, s->o, false, false);
        v->callback([s, major_number, minor_number] {
            const Wanted wanted(s->owner, s->mode, 0666);
            const bool device = s->kind == "c" || s->kind == "b";
            if (device != (major_number->count() + minor_number->count() == 2) ||
                (!device && major_number->count() != 0))
                fail_with(exit_failure,
                          device ? "a device has a MAJOR and a MINOR" : "only devices have a MAJOR and a MINOR");
            each(*s, "mknod", [&](Session& session, const std::string& path) {
                const mode_t type = s->kind == "c"   ? S_IFCHR
                                    : s->kind == "b" ? S_IFBLK
                                    : s->kind == "p" ? S_IFIFO
                                                     : S_IFSOCK;
                FileSystem::Parent p = session.parent_of_file(path);
                InodeRef made = value_or_fail(
                    session.fs().create(*p.directory, p.name, type | 0644, makedev(s->device_major, s->device_minor),
                                        {}, operator_identity(), false),
                    session.at(path));
                wanted.apply(session, *made, path);
            });
        });
    }
}

}  // namespace uext4::cli

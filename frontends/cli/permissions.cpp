// chmod, chown
#include "cli/arguments.h"
#include "cli/mode_change.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "cli/walk.h"

namespace uext4::cli {

namespace {

// What chmod and chown have in common.
struct PermissionOptions {
    std::string first;  // the change; with a reference, the first place
    std::vector<std::string> others;
    std::string reference;
    bool recursive = false, link_itself = false, verbose = false, changes = false, silent = false;
    FollowLinks follow = FollowLinks::none;
    CommonOptions o;
    const CLI::Option *named = nullptr, *all = nullptr, *none = nullptr;  // -H, -L and -P

    // Of those three the last one counts.
    void read_order(const CLI::App& verb) {
        for (const CLI::Option* option : verb.parse_order()) {
            if (option == named) follow = FollowLinks::named;
            if (option == all) follow = FollowLinks::all;
            if (option == none) follow = FollowLinks::none;
        }
        if (reference.empty() && others.empty()) fail_with(exit_failure, "a place is needed");
    }
};

class PermissionVerb {
public:
    PermissionVerb(const char* verb, PermissionOptions& o) : o_(o), listing_(verb, places(), true, o.o, references()) {
        if (o.silent) listing_.be_quiet();
    }
    virtual ~PermissionVerb() = default;

    void run() {
        prepare();
        listing_.each([&](Session& s, const std::string& path) {
            if (!o_.recursive) {
                InodeRef inode = s.resolve(path, !o_.link_itself);
                change(s, *inode, path);
                return;
            }
            TreeWalk(listing_, o_.follow).from(s, path, [&](const VisitedFile& v) {
                visit(v);
                return true;
            });
        });
        listing_.finish();
    }

protected:
    virtual void prepare() = 0;
    virtual void change(Session& s, Inode& inode, const std::string& path) = 0;
    // Of a recursive change.
    virtual void visit(const VisitedFile& v) = 0;

    void tell_change(bool changed, const std::string& text) const {
        if (o_.verbose || (o_.changes && changed)) fmt::print("{}\n", text);
    }
    PermissionOptions& o_;
    Listing listing_;

private:
    std::vector<std::string> references() const {
        return o_.reference.empty() ? std::vector<std::string>() : std::vector{o_.reference};
    }
    std::vector<std::string> places() const {
        std::vector<std::string> out = o_.others;
        if (!o_.reference.empty()) out.insert(out.begin(), o_.first);
        return out;
    }
};

class Chmod : public PermissionVerb {
public:
    explicit Chmod(PermissionOptions& o) : PermissionVerb("chmod", o) {}

private:
    void prepare() override {
        if (!o_.reference.empty()) wanted_ = fmt::format("{:05o}", listing_.reference(o_.reference).st_mode & 07777);
        else wanted_ = o_.first;
    }

    void change(Session& s, Inode& inode, const std::string& path) override {
        const auto old = static_cast<std::uint16_t>(inode.mode() & 07777);
        AttributeChange change;
        change.mode = new_mode(old, wanted_, inode.is_directory());
        value_or_fail(s.fs().set_attributes(inode, change, operator_identity(), false), s.at(path));
        const auto text = [&](std::uint16_t mode) {
            return fmt::format("{:04o} ({})", mode, mode_text(mode).substr(1));
        };
        const std::string name = printable(listing_.name(s, path));
        if (old == *change.mode) tell_change(false, fmt::format("mode of '{}' retained as {}", name, text(old)));
        else tell_change(true, fmt::format("mode of '{}' changed from {} to {}", name, text(old), text(*change.mode)));
    }

    // The permissions of a link mean nothing and stay as they are.
    void visit(const VisitedFile& v) override {
        if (!S_ISLNK(v.inode->mode())) change(v.session, *v.inode, v.path);
        else if (v.depth == 0 && o_.follow != FollowLinks::none) v.session.resolve(v.path);  // says what is missing
    }

    std::string wanted_;
};

class Chown : public PermissionVerb {
public:
    explicit Chown(PermissionOptions& o) : PermissionVerb("chown", o) {}

private:
    void prepare() override {
        if (o_.reference.empty()) {
            owner_ = owner_of(o_.first);
            return;
        }
        const struct stat st = listing_.reference(o_.reference);
        owner_ = {st.st_uid, st.st_gid};
    }

    void change(Session& s, Inode& inode, const std::string& path) override {
        const struct stat old = value_or_fail(s.fs().attributes(inode), s.at(path));
        AttributeChange change;
        change.uid = owner_.uid;
        change.gid = owner_.gid;
        value_or_fail(s.fs().set_attributes(inode, change, operator_identity(), false), s.at(path));
        const uid_t uid = owner_.uid.value_or(old.st_uid);
        const gid_t gid = owner_.gid.value_or(old.st_gid);
        const std::string name = printable(listing_.name(s, path));
        if (uid == old.st_uid && gid == old.st_gid)
            tell_change(false, fmt::format("ownership of '{}' retained as {}:{}", name, uid, gid));
        else
            tell_change(true, fmt::format("changed ownership of '{}' from {}:{} to {}:{}", name, old.st_uid, old.st_gid,
                                          uid, gid));
    }

    // Without -H or -L nothing is changed that a link leads to; with one of them, links are changed themselves by -h
    // alone.
    void visit(const VisitedFile& v) override {
        if (o_.follow == FollowLinks::none || (o_.link_itself && !v.link)) change(v.session, *v.inode, v.path);
        else if (o_.link_itself) change(v.session, *v.link, v.path);
        else change(v.session, *v.session.resolve(v.path), v.path);
    }

    Owner owner_;
};

void add_options(CLI::App* v, PermissionOptions& o, FollowLinks standard) {
    o.follow = standard;
    v->add_option("PLACES", o.others, "IMAGE:/path");
    v->add_flag("-R,--recursive", o.recursive, "What is below directories as well");
    o.named = add_plain_flag(v, "-H", "With -R: follow links to directories that are named");
    o.all = add_plain_flag(v, "-L", "With -R: follow every link to a directory");
    o.none = add_plain_flag(v, "-P", "With -R: follow no link; of -H, -L and -P the last one counts");
    v->add_flag("-v,--verbose", o.verbose, "Tell of each file");
    v->add_flag("-c,--changes", o.changes, "Tell of each file that is changed");
    v->add_flag("-f,--silent,--quiet", o.silent, "Do not tell what could not be changed");
    v->add_option("--reference", o.reference, "As this place of an image, or file of the host, has it");
    add_common(v, o.o, false, false);
}

}  // namespace

void add_permission_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<PermissionOptions>();
        CLI::App* v = app.add_subcommand("chmod", "Changes permissions");
        v->footer("Examples: uext4 chmod u+x,go-w disk.img:/bin/x   uext4 chmod -R a+rX disk.img:/srv");
        v->add_option("MODE", s->first, "Octal, or like u+rw")->required();
        add_options(v, *s, FollowLinks::named);
        v->callback([s, v] {
            s->read_order(*v);
            // Ends the verb, if it is none, before the image is opened.
            if (s->reference.empty()) static_cast<void>(new_mode(0, s->first, false));
            Chmod(*s).run();
        });
    }
    {
        auto s = std::make_shared<PermissionOptions>();
        CLI::App* v = app.add_subcommand("chown", "Changes owners and groups (by number)");
        v->footer("Examples: uext4 chown 1000:1000 disk.img:/home/x   uext4 chown -R -h 0:0 disk.img:/srv");
        v->add_option("OWNER", s->first, "UID, UID:GID or :GID")->required();
        link_itself(v, s->link_itself);
        add_options(v, *s, FollowLinks::none);
        v->callback([s, v] {
            s->read_order(*v);
            if (s->reference.empty()) static_cast<void>(owner_of(s->first));
            Chown(*s).run();
        });
    }
}

}  // namespace uext4::cli

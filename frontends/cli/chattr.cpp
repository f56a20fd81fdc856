// chattr, lsattr
#include "cli/flags.h"
#include "cli/verbs.h"
#include "cli/walk.h"

namespace uext4::cli {

namespace {

namespace f = format::inode_flag;

// A change: +flags, -flags or =flags.
class FlagChange {
public:
    explicit FlagChange(const std::string& text) {
        if ((text.size() < 2 && text != "=") || std::string("+-=").find(text[0]) == std::string::npos)
            fail_with(exit_failure, fmt::format("'{}': a change is +flags, -flags or =flags", text));
        sign_ = text[0];
        for (const char c : text.substr(1)) bits_ |= flag_of(c);
    }

    void apply(Session& s, Inode& inode, const std::string& path) const {
        const std::uint32_t old = s.fs().get_flags(inode);
        const std::uint32_t fixed = old & ~user_settable_flags;
        const std::uint32_t wanted = sign_ == '+' ? old | bits_ : sign_ == '-' ? old & ~bits_ : fixed | bits_;
        // e is answered by the file system, which says why.
        if (const std::uint32_t own = (wanted ^ old) & ~user_settable_flags & ~f::extents)
            fail_with(exit_failure,
                      fmt::format("{}: the flags {} are the file system's own", s.at(path), letters_of(own)));
        value_or_fail(s.fs().set_flags(inode, wanted, operator_identity(), false), s.at(path));
    }

private:
    char sign_ = '=';
    std::uint32_t bits_ = 0;
};

struct FlagOptions {
    std::string change;
    std::vector<std::string> places;
    bool recursive = false, all = false, directory = false;
    CommonOptions o;
};

// Links have no flags that anybody could change.
void change_flags_of(const FlagOptions& o) {
    const FlagChange change(o.change);
    Listing listing("chattr", o.places, true, o.o);
    listing.each([&](Session& s, const std::string& path) {
        if (!o.recursive) {
            InodeRef inode = s.resolve(path);
            change.apply(s, *inode, path);
            return;
        }
        TreeWalk(listing, FollowLinks::none).from(s, path, [&](const VisitedFile& v) {
            if (v.inode->is_directory() || S_ISREG(v.inode->mode())) change.apply(s, *v.inode, v.path);
            return true;
        });
    });
    listing.finish();
}

class Lsattr {
public:
    explicit Lsattr(const FlagOptions& o) : o_(o), listing_("lsattr", o.places, false, o.o) {}

    void run() {
        listing_.each([&](Session& s, const std::string& path) {
            InodeRef inode = s.resolve(path);
            const bool inside = inode->is_directory() && !o_.directory;
            several_ |= inside || listing_.count() > 1;
            if (inside) directory(s, *inode, path);
            else show(s, *inode, path);
        });
        if (o_.o.json && several_) print(out_);
        else if (!out_.empty()) print(out_.front());
        listing_.finish();
    }

private:
    void show(Session& s, Inode& inode, const std::string& path) {
        const std::uint32_t bits = s.fs().get_flags(inode);
        const std::string name = listing_.name(s, path);
        if (!o_.o.json) {
            fmt::print("{} {}\n", flags_text(bits), printable(name));
            return;
        }
        Json j;
        set_text(j, "path", name);
        j.update({{"flags", flags_text(bits)}, {"bits", bits}});
        out_.push_back(std::move(j));
    }

    void directory(Session& s, Inode& inode, const std::string& path) {
        const Ancestors::Inside here(above_, s, inode);
        std::optional<std::string> error;
        for (const Entry& e : listing_.entries(s, inode, path, error)) {
            if (e.name.starts_with('.') && !o_.all) continue;
            const std::string inner = below(path, e.name);
            listing_.attempt(s.at(inner), [&] {
                InodeRef found = s.inode_of_entry(e.inode, inner);
                // Links have none to show, as lsattr(1) has it.
                if (!found->is_directory() && !S_ISREG(found->mode())) return;
                show(s, *found, inner);
                if (o_.recursive && found->is_directory() && !is_dot(e.name)) below_heading(s, *found, inner);
            });
        }
    }

    void below_heading(Session& s, Inode& inode, const std::string& path) {
        if (!o_.o.json) fmt::print("\n{}:\n", printable(listing_.name(s, path)));
        directory(s, inode, path);
        if (!o_.o.json) fmt::print("\n");
    }

    const FlagOptions& o_;
    Listing listing_;
    Ancestors above_;
    bool several_ = false;
    Json out_ = Json::array();
};

}  // namespace

void add_flag_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<FlagOptions>();
        CLI::App* v = app.add_subcommand("chattr", "Changes flags");
        v->footer("Example: uext4 chattr +i disk.img:/etc/passwd   uext4 chattr -R -i disk.img:/etc");
        v->add_option("CHANGE", s->change, "+flags, -flags or =flags")->required();
        v->add_option("PLACES", s->places, "IMAGE:/path")->required();
        v->add_flag("-R", s->recursive, "What is below directories as well");
        add_common(v, s->o, false, false);
        v->callback([s] { change_flags_of(*s); });
    }
    {
        auto s = std::make_shared<FlagOptions>();
        CLI::App* v = app.add_subcommand("lsattr", "Shows flags: of files, and of what is in directories");
        v->footer("Examples: uext4 lsattr disk.img:/etc/passwd   uext4 lsattr -d disk.img:/etc");
        v->add_option("PLACES", s->places, "IMAGE:/path")->required();
        v->add_flag("-d", s->directory, "Directories themselves, not what is in them");
        v->add_flag("-a", s->all, "With names that begin with a dot");
        v->add_flag("-R", s->recursive, "What is below directories as well");
        add_common(v, s->o, true, true);
        v->callback([s] { Lsattr(*s).run(); });
    }
}

}  // namespace uext4::cli

// chmod, chown, chattr, lsattr, getfattr, setfattr.
#include "cli/arguments.h"
#include "cli/flags.h"
#include "cli/session.h"

namespace uext4::cli {

namespace {

namespace f = format::inode_flag;

// A change like u+rwX,g-w,o=g of a file's permissions.
class ModeChange {
public:
    ModeChange(const std::string& text, std::uint16_t mode, bool directory)
        : text_(text), mode_(mode & 07777), directory_(directory) {}

    std::uint16_t all() {
        do clause();
        while (next_is(",") && ++at_);
        if (at_ != text_.size()) bad();
        return mode_;
    }

private:
    bool next_is(std::string_view letters) const {
        return at_ < text_.size() && letters.find(text_[at_]) != std::string_view::npos;
    }
    [[noreturn]] void bad() const { give_up(impossible, "mode '" + text_ + "' is neither octal nor like u+rw"); }

    void clause() {
        unsigned who = 0;
        for (; next_is("ugoa"); ++at_)
            who |= text_[at_] == 'u' ? 04700u : text_[at_] == 'g' ? 02070u : text_[at_] == 'o' ? 01007u : 07777u;
        if (!next_is("+-=")) bad();
        while (next_is("+-=")) operation(text_[at_++], who == 0 ? 07777u : who, who == 0);
    }

    void operation(char operation, unsigned who, bool everybody) {
        const bool digits = everybody && next_is("01234567");
        const unsigned what = (digits ? octal() : permissions()) & who;
        unsigned mode = mode_;
        if (operation == '-') {
            mode &= ~what;
        } else {
            // A directory's set-id bits go only when they are named.
            if (operation == '=') mode &= ~(directory_ && !digits ? who & ~06000u : who);
            mode |= what;
        }
        mode_ = static_cast<std::uint16_t>(mode);
    }

    unsigned octal() {
        unsigned what = 0;
        for (; next_is("01234567") && what <= 07777; ++at_) what = what * 8 + static_cast<unsigned>(text_[at_] - '0');
        if (what > 07777) bad();
        return what;
    }

    // Letters, or a single one of ugo: what those have.
    unsigned permissions() {
        if (next_is("ugo")) {
            const char whose = text_[at_++];
            return (mode_ >> (whose == 'u' ? 6 : whose == 'g' ? 3 : 0) & 7u) * 0111u;
        }
        unsigned what = 0;
        for (; next_is("rwxXst"); ++at_) {
            switch (text_[at_]) {
                case 'r': what |= 0444; break;
                case 'w': what |= 0222; break;
                case 'x': what |= 0111; break;
                case 'X': what |= directory_ || (mode_ & 0111) ? 0111u : 0u; break;
                case 's': what |= 06000; break;
                default: what |= 01000;
            }
        }
        return what;
    }

    const std::string& text_;
    std::uint16_t mode_;
    bool directory_;
    std::size_t at_ = 0;
};

// Octal, or as chmod(1) has them; without umask.
std::uint16_t new_mode(std::uint16_t old, const std::string& text, bool directory) {
    return is_numeric(text) ? mode_of(text) : ModeChange(text, old, directory).all();
}

struct AttributeArguments {
    std::string what, place, name, value, remove;
    bool flag = false;
    CommonOptions o;
};

void with_inode(const AttributeArguments& st, bool writable, bool follow,
                const std::function<void(Session&, Inode&, const std::string&)>& use) {
    const Place p = image_place(st.place);
    Session s(p.image, writable, st.o);
    {
        InodeRef inode = s.resolve(p.path, follow);
        use(s, *inode, p.path);
    }
    s.close();
}

std::vector<std::byte> value_of(const std::string& text) {
    std::vector<std::byte> out;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        if (text.size() % 2 != 0 || text.find_first_not_of("0123456789abcdefABCDEF", 2) != std::string::npos)
            give_up(impossible, "'" + text + "' is not hexadecimal");
        for (std::size_t i = 2; i < text.size(); i += 2)
            out.push_back(static_cast<std::byte>(std::stoul(text.substr(i, 2), nullptr, 16)));
        return out;
    }
    for (char c : text) out.push_back(static_cast<std::byte>(c));
    return out;
}

std::string value_text(const std::vector<std::byte>& value) {
    bool plain = true;
    for (std::byte b : value)
        plain = plain && std::to_integer<int>(b) >= 32 && std::to_integer<int>(b) < 127 && b != std::byte{'"'} &&
                b != std::byte{'\\'};
    if (plain) return "\"" + std::string(reinterpret_cast<const char*>(value.data()), value.size()) + "\"";
    std::string out = "0x";
    for (std::byte b : value) out += fmt::format("{:02x}", std::to_integer<int>(b));
    return out;
}

}  // namespace

void add_attribute_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<AttributeArguments>();
        CLI::App* v = app.add_subcommand("chmod", "Changes permissions");
        v->footer("Example: uext4 chmod u+x,go-w disk.img:/bin/x");
        v->add_option("MODE", s->what, "Octal, or like u+rw")->required();
        v->add_option("PLACE", s->place, "IMAGE:/path")->required();
        add_common(v, s->o, false, false);
        v->callback([s] {
            static_cast<void>(new_mode(0, s->what, false));  // ends the verb, if it is none, before the image is opened
            with_inode(*s, true, true, [&](Session& session, Inode& inode, const std::string& path) {
                AttributeChange change;
                change.mode = new_mode(inode.mode(), s->what, inode.is_directory());
                need(session.fs().set_attributes(inode, change, operator_identity(), false), session.at(path));
            });
        });
    }
    {
        auto s = std::make_shared<AttributeArguments>();
        CLI::App* v = app.add_subcommand("chown", "Changes owner and group (by number)");
        v->footer("Example: uext4 chown 1000:1000 disk.img:/home/x");
        v->add_option("OWNER", s->what, "UID, UID:GID or :GID")->required();
        v->add_option("PLACE", s->place, "IMAGE:/path")->required();
        link_itself(v, s->flag);
        add_common(v, s->o, false, false);
        v->callback([s] {
            const Owner owner = owner_of(s->what);
            AttributeChange change;
            change.uid = owner.uid;
            change.gid = owner.gid;
            with_inode(*s, true, !s->flag, [&](Session& session, Inode& inode, const std::string& path) {
                need(session.fs().set_attributes(inode, change, operator_identity(), false), session.at(path));
            });
        });
    }
    {
        auto s = std::make_shared<AttributeArguments>();
        CLI::App* v = app.add_subcommand("chattr", "Changes flags");
        v->footer("Example: uext4 chattr +i disk.img:/etc/passwd   uext4 chattr -i disk.img:/etc/passwd");
        v->add_option("CHANGE", s->what, "+flags, -flags or =flags")->required();
        v->add_option("PLACE", s->place, "IMAGE:/path")->required();
        add_common(v, s->o, false, false);
        v->callback([s] {
            if ((s->what.size() < 2 && s->what != "=") || std::string("+-=").find(s->what[0]) == std::string::npos)
                give_up(impossible, "a change is +flags, -flags or =flags");
            std::uint32_t bits = 0;
            for (char c : s->what.substr(1)) bits |= flag_of(c);
            with_inode(*s, true, true, [&](Session& session, Inode& inode, const std::string& path) {
                const std::uint32_t old = session.fs().get_flags(inode);
                const std::uint32_t fixed = old & ~user_settable_flags;
                const std::uint32_t wanted = s->what[0] == '+'   ? old | bits
                                             : s->what[0] == '-' ? old & ~bits
                                                                 : fixed | bits;
                // e is answered by the file system, which says why.
                if (const std::uint32_t own = (wanted ^ old) & ~user_settable_flags & ~f::extents)
                    give_up(impossible, fmt::format("{}: the flags {} are the file system's own", session.at(path),
                                                    letters_of(own)));
                need(session.fs().set_flags(inode, wanted, operator_identity(), false), session.at(path));
            });
        });
    }
    {
        auto s = std::make_shared<AttributeArguments>();
        CLI::App* v = app.add_subcommand("lsattr", "Shows flags");
        v->footer("Example: uext4 lsattr disk.img:/etc/passwd");
        v->add_option("PLACE", s->place, "IMAGE:/path")->required();
        add_common(v, s->o, true, true);
        v->callback([s] {
            with_inode(*s, false, true, [&](Session& session, Inode& inode, const std::string& path) {
                const std::uint32_t bits = session.fs().get_flags(inode);
                Json j;
                set_text(j, "path", path);
                j.update({{"flags", flags_text(bits)}, {"bits", bits}});
                if (s->o.json) print(j);
                else fmt::print("{} {}\n", flags_text(bits), shown(path));
            });
        });
    }
    {
        auto s = std::make_shared<AttributeArguments>();
        CLI::App* v = app.add_subcommand("getfattr", "Shows extended attributes");
        v->footer("Example: uext4 getfattr -n user.x disk.img:/file");
        CLI::Option* one = v->add_option("-n", s->name, "Only this one");
        link_itself(v, s->flag);
        v->add_option("PLACE", s->place, "IMAGE:/path")->required();
        add_common(v, s->o, true, true);
        v->callback([s, one] {
            if (one->count() && s->name.empty()) give_up(impossible, "an attribute has a name");
            with_inode(*s, false, false, [&](Session& session, Inode& inode, const std::string& path) {
                std::vector<std::string> names{s->name};
                if (s->name.empty())
                    names = need(session.fs().list_xattrs(inode, operator_identity(), false), session.at(path));
                Json out = Json::array();
                for (const std::string& name : names) {
                    const std::vector<std::byte> value =
                        need(session.fs().get_xattr(inode, name, operator_identity(), false), session.at(path));
                    if (!s->o.json) fmt::print("{}={}\n", shown(name), value_text(value));
                    Json j;
                    set_text(j, "name", name);
                    set_text(j, "value", {reinterpret_cast<const char*>(value.data()), value.size()});
                    out.push_back(std::move(j));
                }
                if (s->o.json) print(out);
            });
        });
    }
    {
        auto s = std::make_shared<AttributeArguments>();
        CLI::App* v = app.add_subcommand("setfattr", "Sets or removes an extended attribute");
        v->footer(
            "Examples: uext4 setfattr -n user.x -v text disk.img:/file   uext4 setfattr -x user.x disk.img:/file");
        CLI::Option* set = v->add_option("-n", s->name, "Name");
        CLI::Option* given = v->add_option("-v", s->value, "Value: text, or 0x...; empty without it");
        CLI::Option* remove = v->add_option("-x", s->remove, "Removes this one");
        link_itself(v, s->flag);
        v->add_option("PLACE", s->place, "IMAGE:/path")->required();
        add_common(v, s->o, false, false);
        v->callback([s, set, given, remove] {
            if (set->count() == remove->count() || (remove->count() && given->count()))
                give_up(impossible, "either -n NAME, with a value or without, or -x NAME");
            if (s->name.empty() && s->remove.empty()) give_up(impossible, "an attribute has a name");
            const std::vector<std::byte> value = value_of(s->value);
            with_inode(*s, true, false, [&](Session& session, Inode& inode, const std::string& path) {
                if (!s->remove.empty())
                    need(session.fs().remove_xattr(inode, s->remove, operator_identity(), false), session.at(path));
                else
                    need(session.fs().set_xattr(inode, s->name, value, 0, operator_identity(), false),
                         session.at(path));
            });
        });
    }
}

}  // namespace uext4::cli

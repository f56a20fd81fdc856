// getfattr, setfattr
#include "cli/options.h"
#include "cli/verbs.h"
#include "cli/walk.h"

namespace uext4::cli {

namespace {

std::vector<std::byte> value_of(const std::string& text) {
    std::vector<std::byte> out;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        if (text.size() % 2 != 0 || text.find_first_not_of("0123456789abcdefABCDEF", 2) != std::string::npos)
            fail_with(exit_failure, "'" + text + "' is not hexadecimal");
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

struct ExtendedAttributeOptions {
    std::vector<std::string> places;
    std::string name, value, remove;
    bool recursive = false, link_itself = false, only_values = false;
    CommonOptions o;
};

class Getfattr {
public:
    explicit Getfattr(const ExtendedAttributeOptions& o) : o_(o), listing_("getfattr", o.places, false, o.o) {}

    void run() {
        several_ = o_.recursive || listing_.count() > 1;
        listing_.each([&](Session& s, const std::string& path) {
            if (!o_.recursive) {
                InodeRef inode = s.resolve(path, false);
                show(s, *inode, path);
                return;
            }
            TreeWalk(listing_, FollowLinks::none).from(s, path, [&](const VisitedFile& v) {
                show(s, *v.inode, v.path);
                return true;
            });
        });
        if (o_.o.json && (several_ || shown_)) print(out_);
        listing_.finish();
    }

private:
    void show(Session& s, Inode& inode, const std::string& path) {
        std::vector<std::string> names{o_.name};
        if (o_.name.empty()) names = value_or_fail(s.fs().list_xattrs(inode, operator_identity(), false), s.at(path));
        Json attributes = Json::array();
        std::string text;
        for (const std::string& name : names) {
            const std::vector<std::byte> value =
                value_or_fail(s.fs().get_xattr(inode, name, operator_identity(), false), s.at(path) + ": " + name);
            const std::string_view bytes(reinterpret_cast<const char*>(value.data()), value.size());
            text += o_.only_values ? std::string(bytes) : fmt::format("{}={}\n", printable(name), value_text(value));
            Json j;
            set_text(j, "name", name);
            set_text(j, "value", bytes);
            attributes.push_back(std::move(j));
        }
        shown_ = true;
        const bool heading = several_ && !o_.only_values;
        if (o_.o.json) add_to_json(listing_.name(s, path), std::move(attributes));
        else if (!text.empty()) {
            if (heading) text = fmt::format("# file: {}\n{}\n", printable(listing_.name(s, path)), text);
            std::fwrite(text.data(), 1, text.size(), stdout);  // a value may contain NUL
        }
    }

    void add_to_json(const std::string& name, Json attributes) {
        if (!several_) {
            out_ = std::move(attributes);
        } else if (!attributes.empty()) {
            Json j;
            set_text(j, "path", name);
            j["attributes"] = std::move(attributes);
            out_.push_back(std::move(j));
        }
    }

    const ExtendedAttributeOptions& o_;
    Listing listing_;
    bool several_ = false, shown_ = false;
    Json out_ = Json::array();
};

void set_attribute(const ExtendedAttributeOptions& o) {
    const std::vector<std::byte> value = value_of(o.value);
    Listing listing("setfattr", o.places, true, o.o);
    listing.each([&](Session& s, const std::string& path) {
        InodeRef inode = s.resolve(path, false);
        if (!o.remove.empty())
            value_or_fail(s.fs().remove_xattr(*inode, o.remove, operator_identity(), false),
                          s.at(path) + ": " + o.remove);
        else
            value_or_fail(s.fs().set_xattr(*inode, o.name, value, 0, operator_identity(), false),
                          s.at(path) + ": " + o.name);
    });
    listing.finish();
}

}  // namespace

void add_extended_attribute_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<ExtendedAttributeOptions>();
        CLI::App* v = app.add_subcommand("getfattr", "Shows extended attributes");
        v->footer("Examples: uext4 getfattr -n user.x disk.img:/file   uext4 getfattr -R disk.img:/srv");
        CLI::Option* one = v->add_option("-n,--name", s->name, "Only this one");
        link_itself(v, s->link_itself);
        add_plain_flag(v, "-d,--dump", "With values, which are shown in any case");
        v->add_flag("-R,--recursive", s->recursive, "What is below directories as well");
        v->add_flag("--only-values", s->only_values, "The bytes of the values and nothing else");
        v->add_option("PLACES", s->places, "IMAGE:/path")->required();
        add_common(v, s->o, true, true);
        v->callback([s, one] {
            if (one->count() && s->name.empty()) fail_with(exit_failure, "an attribute has a name");
            Getfattr(*s).run();
        });
    }
    {
        auto s = std::make_shared<ExtendedAttributeOptions>();
        CLI::App* v = app.add_subcommand("setfattr", "Sets or removes an extended attribute");
        v->footer(
            "Examples: uext4 setfattr -n user.x -v text disk.img:/file   uext4 setfattr -x user.x disk.img:/file");
        CLI::Option* set = v->add_option("-n,--name", s->name, "Name");
        CLI::Option* given = v->add_option("-v,--value", s->value, "Value: text, or 0x...; empty without it");
        CLI::Option* remove = v->add_option("-x,--remove", s->remove, "Removes this one");
        link_itself(v, s->link_itself);
        v->add_option("PLACES", s->places, "IMAGE:/path")->required();
        add_common(v, s->o, false, false);
        v->callback([s, set, given, remove] {
            if (set->count() == remove->count() || (remove->count() && given->count()))
                fail_with(exit_failure, "either -n NAME, with a value or without, or -x NAME");
            if (s->name.empty() && s->remove.empty()) fail_with(exit_failure, "an attribute has a name");
            set_attribute(*s);
        });
    }
}

}  // namespace uext4::cli

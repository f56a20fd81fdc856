// mv, ln.
#include "cli/copy.h"
#include "cli/interrupt.h"
#include "cli/outcome.h"
#include "cli/session.h"
#include "cli/verbs.h"

#include <set>

namespace uext4::cli {

namespace {

struct RenamingArguments {
    std::vector<std::string> places;
    bool force = false, no_clobber = false, update = false, symbolic = false, verbose = false;
    bool exact = false;        // the last operand is the new name itself, although a directory has it
    bool link_itself = false;  // a link to a directory is such a name
    CommonOptions o;
};

// A name in a directory, and how messages call it.
struct Name {
    FileSystem::Parent parent;
    std::string path;
};

// The new names that the last operand stands for: in a directory, or one alone.
class Targets {
public:
    Targets(Session& session, const RenamingArguments& arguments, std::string path, std::size_t sources)
        : s_(session), path_(std::move(path)) {
        if (!arguments.exact) in_directory_ = is_directory(arguments.link_itself);
        if (sources > 1 && !in_directory_) fail_with(exit_negative, s_.at(path_) + ": is no directory");
    }

    // `name`: what a source is called. `directory`: it is one, and "name/" may become one.
    Name of(const std::string& name, bool directory) {
        const std::string path = in_directory_ ? below(path_, name) : path_;
        Name out{directory ? s_.parent(path) : s_.parent_of_file(path), path};
        if (made_.contains(key_of(out)))
            fail_with(exit_negative, s_.at(path) + ": has just been made by this command, and is not replaced");
        return out;
    }
    void made(const Name& name) { made_.insert(key_of(name)); }
    bool in_directory() const { return in_directory_; }

private:
    using Key = std::pair<std::uint64_t, std::string>;
    static Key key_of(const Name& name) { return {name.parent.directory->number().value, name.parent.name}; }
    bool is_directory(bool link_itself) const {
        const Result<InodeRef> there = s_.fs().resolve(path_, operator_identity(), !link_itself);
        return there && (*there)->is_directory();
    }

    Session& s_;
    const std::string path_;
    bool in_directory_ = false;
    std::set<Key> made_;
};

std::optional<InodeRef> lookup(Session& s, const Name& name) {
    Result<InodeRef> found = s.fs().lookup(*name.parent.directory, name.parent.name, operator_identity(), false);
    if (!found && found.error().code == ENOENT) return {};
    return value_or_fail(std::move(found), s.at(name.path));
}

void unlink(Session& s, const Name& name) {
    value_or_fail(s.fs().unlink(*name.parent.directory, name.parent.name, operator_identity(), false), s.at(name.path));
}

void rename(Session& s, const Name& from, const Name& to) {
    value_or_fail(s.fs().rename(*from.parent.directory, from.parent.name, *to.parent.directory, to.parent.name, 0,
                                operator_identity(), false),
                  s.at(from.path));
}

bool is_newer(Session& s, const Name& a, const InodeRef& first, const Name& b, const InodeRef& second) {
    const struct stat one = value_or_fail(s.fs().attributes(*first), s.at(a.path)),
                      other = value_or_fail(s.fs().attributes(*second), s.at(b.path));
    return std::pair(one.st_mtim.tv_sec, one.st_mtim.tv_nsec) > std::pair(other.st_mtim.tv_sec, other.st_mtim.tv_nsec);
}

void move(Session& s, const RenamingArguments& arguments, const std::string& path, Targets& targets) {
    const Name from{s.parent(path), path};
    const InodeRef source =
        value_or_fail(s.fs().lookup(*from.parent.directory, from.parent.name, operator_identity(), false), s.at(path));
    if (from.parent.slash && !source->is_directory()) fail_with(exit_negative, s.at(path) + ": is no directory");
    const Name to = targets.of(from.parent.name, source->is_directory());
    if (const std::optional<InodeRef> there = lookup(s, to)) {
        if ((*there)->number() == source->number())
            fail_with(exit_negative, fmt::format("{} and {} are the same", s.at(path), s.at(to.path)));
        if (arguments.no_clobber) return;
        if (arguments.update && !is_newer(s, from, source, to, *there)) return;
    }
    rename(s, from, to);
    targets.made(to);
    if (arguments.verbose) fmt::print("renamed '{}' -> '{}'\n", printable(s.at(path)), printable(s.at(to.path)));
}

// Makes a link: to `target`, or a symbolic one with that text.
void make_link(Session& s, const Name& to, const InodeRef* target, const std::string& text) {
    if (target)
        return value_or_fail(s.fs().link(**target, *to.parent.directory, to.parent.name, operator_identity(), false),
                             s.at(to.path));
    value_or_fail(
        s.fs().create(*to.parent.directory, to.parent.name, S_IFLNK | 0777, 0, text, operator_identity(), false),
        s.at(to.path));
}

// The old file keeps the name until the link has it: there is always one of them.
void replace_by_link(Session& s, const Name& to, const InodeRef* target, const std::string& text) {
    Name aside = to;
    for (unsigned number = 0;; ++number) {
        aside.parent.name = fmt::format(".uext4-ln-{}", number);
        if (!lookup(s, aside)) break;
    }
    make_link(s, aside, target, text);
    try {
        rename(s, aside, to);
    } catch (const Failure&) {
        unlink(s, aside);
        throw;
    }
}

void link(Session& s, const RenamingArguments& arguments, const std::string& source, Targets& targets) {
    const bool numbered = !arguments.symbolic && source.starts_with('<') && source.find('/') == std::string::npos;
    if (targets.in_directory() && (numbered || means_contents(source)))
        fail_with(exit_negative, source + ": has no name that the link could have in the directory");
    InodeRef target;
    if (!arguments.symbolic) target = s.resolve(source, false);
    const InodeRef* const of = arguments.symbolic ? nullptr : &target;
    const Name to = targets.of(last_part(source), false);
    const std::optional<InodeRef> there = arguments.force ? lookup(s, to) : std::nullopt;
    if (!there) {
        make_link(s, to, of, source);
    } else {
        if ((*there)->is_directory()) fail_with(exit_negative, s.at(to.path) + ": a directory is in the way");
        if (of && (*there)->number() == target->number()) {
            const FileSystem::Parent from = s.parent(source);
            if (from.directory->number() != to.parent.directory->number() || from.name != to.parent.name) return;
            fail_with(exit_negative, fmt::format("{} and {} are the same", s.at(source), s.at(to.path)));
        }
        replace_by_link(s, to, of, source);
    }
    targets.made(to);
    if (arguments.verbose)
        fmt::print("'{}' {} '{}'\n", printable(s.at(to.path)), of ? "=>" : "->", printable(of ? s.at(source) : source));
}

using OneSource = std::function<void(Session&, const RenamingArguments&, const std::string&, Targets&)>;

void each_source(const char* verb, const RenamingArguments& arguments, const std::string& image,
                 const std::vector<std::string>& sources, const std::string& target, const OneSource& use) {
    Outcome outcome(verb);
    Session session(image, true, arguments.o);
    {
        Targets targets(session, arguments, target, sources.size());
        for (const std::string& source : sources)
            outcome.attempt([&] {
                use(session, arguments, source, targets);
                count_complete();
            });
    }
    session.close();
    outcome.finish();
}

CLI::App* verb(CLI::App& app, const char* name, const char* help, const std::shared_ptr<RenamingArguments>& s) {
    CLI::App* v = app.add_subcommand(name, help);
    v->add_flag("-T,--no-target-directory", s->exact, "The last operand is the new name, and no directory for it");
    v->add_flag("-v,--verbose", s->verbose, "Print what was done");
    add_common(v, s->o, false, false);
    return v;
}

}  // namespace

void add_renaming_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<RenamingArguments>();
        CLI::App* v = verb(app, "mv", "Renames within an image", s);
        v->footer("Examples: uext4 mv disk.img:/a :/b   uext4 mv disk.img:/a :/b :/directory");
        v->add_option("PLACES", s->places, "IMAGE:/path... IMAGE:/path; `:/path` is in the same image")
            ->required()
            ->expected(2, -1);
        CLI::Option* force = v->add_flag("-f,--force", s->force, "Replace what is there (as without it)");
        v->add_flag("-n,--no-clobber", s->no_clobber, "Replace nothing; of -n and -f the last one counts");
        v->add_flag("-u,--update", s->update, "Replace only what is older");
        v->callback([s, v, force] {
            for (const CLI::Option* const option : v->parse_order())
                if (option == force) s->no_clobber = false;
                else if (option->check_lname("no-clobber")) s->no_clobber = true;
            const std::vector<Place> places = places_in_one_image(s->places, "mv");
            std::vector<std::string> sources;
            for (const Place& place : places) sources.push_back(place.path);
            sources.pop_back();
            each_source("mv", *s, places.front().image, sources, places.back().path, move);
        });
    }
    {
        auto s = std::make_shared<RenamingArguments>();
        CLI::App* v = verb(app, "ln", "Makes links", s);
        v->footer("Examples: uext4 ln disk.img:/a :/b   uext4 ln -s target disk.img:/link");
        v->add_option("PLACES", s->places, "IMAGE:/path... IMAGE:/path; with -s the first ones are texts")
            ->required()
            ->expected(2, -1);
        v->add_flag("-s,--symbolic", s->symbolic, "Symbolic links; all operands but the last are their texts");
        v->add_flag("-f,--force", s->force, "Replace what is there");
        v->add_flag("-n,--no-dereference", s->link_itself, "A link to a directory is a name like others");
        v->callback([s] {
            std::vector<std::string> sources(s->places.begin(), s->places.end() - 1);
            if (s->symbolic) {
                const Place to = places_in_one_image({s->places.back()}, "ln").front();
                return each_source("ln", *s, to.image, sources, to.path, link);
            }
            const std::vector<Place> places = places_in_one_image(s->places, "ln");
            for (std::size_t i = 0; i < sources.size(); ++i) sources[i] = places[i].path;
            each_source("ln", *s, places.front().image, sources, places.back().path, link);
        });
    }
}

}  // namespace uext4::cli

// find
#include "cli/describe.h"
#include "cli/find_expression.h"
#include "cli/options.h"
#include "cli/verbs.h"

#include <algorithm>

namespace uext4::cli {

namespace {

struct FindOptions {
    std::vector<std::string> words;  // places and the expression
    FollowLinks follow = FollowLinks::none;
    CommonOptions o;
};

class Find {
public:
    Find(const FindOptions& o, const std::vector<std::string>& places, std::vector<std::string> expression)
        : o_(o),
          expression_(
              std::move(expression), [this](const Found& found) { print_one(found); }, o.o.json),
          listing_("find", places, false, o.o, expression_.references()) {}

    void run() {
        expression_.look_at_references(listing_, o_.follow != FollowLinks::none);
        try {
            listing_.each([&](Session& s, const std::string& path) { from(s, path); });
        } catch (const FindQuits&) {
        }
        if (o_.o.json) print(out_);
        listing_.finish();
    }

private:
    void from(Session& s, const std::string& path) {
        start_ = listing_.name(s, path);
        const auto before = [&](const VisitedFile& v) {
            const bool enters = v.depth < expression_.most_depth();
            if (expression_.contents_first() && v.inode->is_directory() && enters) return true;
            return !look(v) && enters;
        };
        const auto after = [&](const VisitedFile& v) {
            if (expression_.contents_first()) look(v);
        };
        TreeWalk(listing_, o_.follow).from(s, path, before, after);
    }

    // Whether -prune was met.
    bool look(const VisitedFile& v) {
        if (v.depth < expression_.least_depth()) return false;
        const struct stat st = value_or_fail(v.session.fs().attributes(*v.inode), v.session.at(v.path));
        const std::string name = listing_.name(v.session, v.path);
        Found found{v, st, name, start_};
        (void)expression_.holds(found);
        return found.pruned;
    }

    void print_one(const Found& found) {
        if (!o_.o.json) {
            fmt::print("{}\n", printable(found.name));
            return;
        }
        Json j;
        set_text(j, "path", found.name);
        j.update(describe(found.visit.session, found.visit.name, found.visit.path, *found.visit.inode));
        out_.push_back(std::move(j));
    }

    const FindOptions& o_;
    FindExpression expression_;
    Listing listing_;
    std::string start_;
    Json out_ = Json::array();
};

constexpr const char* find_help =
    "Tests: -name -iname -path -ipath -lname -ilname PATTERN, -type f,d,l,c,b,p,s, -size [+-]N[cwbkMG], -empty,\n"
    "  -mtime -atime -ctime [+-]DAYS, -mmin -amin -cmin [+-]MINUTES, -newer -anewer -cnewer FILE, -newermt DATE,\n"
    "  -perm [-/]MODE, -user -group -uid -gid -links -inum NUMBER, -true, -false\n"
    "Operators: ( ), ! or -not, -a or -and, -o or -or, a comma\n"
    "Actions: -print, -print0, -ls, -printf FORMAT, -prune, -quit\n"
    "Others: -maxdepth N, -mindepth N, -depth\n"
    "They mean what they mean in find(1). -path sees the path in the image.\n"
    "Examples: uext4 find disk.img:/etc -name '*.conf' -newermt '2026-01-01'\n"
    "          uext4 find disk.img -type f -size +1M -printf '%s %p\\n'";

}  // namespace

void add_find_verb(CLI::App& app) {
    auto s = std::make_shared<FindOptions>();
    CLI::App* v = app.add_subcommand("find", "Finds what a test holds for, in and below directories");
    v->footer(find_help);
    v->add_option("PLACES", s->words, "IMAGE or IMAGE:/path; the expression follows")->required();
    const CLI::Option* named = add_plain_flag(v, "-H", "Follow links that are named");
    const CLI::Option* all = add_plain_flag(v, "-L", "Follow every link");
    const CLI::Option* none = add_plain_flag(v, "-P", "Follow no link; of -H, -L and -P the last one counts");
    add_common(v, s->o, true, true);
    v->callback([=] {
        for (const CLI::Option* option : v->parse_order()) {
            if (option == named) s->follow = FollowLinks::named;
            if (option == all) s->follow = FollowLinks::all;
            if (option == none) s->follow = FollowLinks::none;
        }
        const auto begin = std::ranges::find_if(s->words, begins_find_expression);
        std::vector<std::string> places(s->words.begin(), begin);
        if (places.empty() && !shell_words()) fail_with(exit_failure, "a place is needed before the expression");
        if (places.empty()) places.push_back(shell_words()->directory);
        Find(*s, places, {begin, s->words.end()}).run();
    });
}

}  // namespace uext4::cli

// uext4-explore: the command behind `./dev explore`.
#include "tests/explore/explorer.h"
#include "tests/explore/html.h"
#include "tests/small_stacks.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>

namespace uext4::explore {
namespace {

struct Options {
    std::string scenario, design = "shipped", html;
    std::optional<std::string> replay{};
    Algorithm algorithm = Algorithm::random;
    std::uint64_t schedules = 1000, seed = 1;
    bool list = false, json = false;
    std::string searching{};    // an option that says what to search
    std::string beside_list{};  // one that a list takes no notice of
    std::string empty{};        // one whose value is
};

// Also read by ./dev, which judges the options before anything is built.
constexpr const char* usage =
#include "tests/explore/usage.inc"
    ;

bool number(const char* text, std::uint64_t& out) {
    const char* end = text + std::strlen(text);
    const auto [at, error] = std::from_chars(text, end, out);
    return error == std::errc() && at == end;
}

// Nothing where `wrong` says what is.
std::optional<Options> parse(int count, char** arguments, std::string& wrong) {
    Options o;
    for (int i = 1; i < count; ++i) {
        const std::string_view a = arguments[i];
        if (a == "--list" || a == "--json") {
            (a == "--list" ? o.list : o.json) = true;
            continue;
        }
        if (i + 1 == count) {
            wrong = fmt::format("{}: unknown, or needs a value", a);
            return std::nullopt;
        }
        const char* value = arguments[++i];
        o.beside_list = a;
        if (!*value) o.empty = a;
        if (a != "--replay" && a != "--html") o.searching = a;
        if (a == "--scenario") o.scenario = value;
        else if (a == "--design") o.design = value;
        else if (a == "--replay") o.replay = value;
        else if (a == "--html") o.html = value;
        else if (a == "--schedules" && number(value, o.schedules)) continue;
        else if (a == "--seed" && number(value, o.seed)) continue;
        else if (a == "--scheduler" && !std::strcmp(value, "random")) o.algorithm = Algorithm::random;
        else if (a == "--scheduler" && !std::strcmp(value, "pct")) o.algorithm = Algorithm::pct;
        else if (a == "--scheduler" && !std::strcmp(value, "dfs")) o.algorithm = Algorithm::dfs;
        else {
            wrong = fmt::format("{} {}: not understood", a, value);
            return std::nullopt;
        }
    }
    return o;
}

std::string quote(std::string_view text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    return out + "\"";
}

int list(bool json) {
    std::string out;
    if (json) {
        for (const Scenario& s : scenarios()) {
            std::string designs;
            for (const Design& d : s.designs) designs += (designs.empty() ? "" : ", ") + quote(d.name);
            out += fmt::format("{}\n  {{\"name\": {}, \"looks_for\": {}, \"designs\": [{}]}}", out.empty() ? "" : ",",
                               quote(s.name), quote(s.looks_for), designs);
        }
        fmt::print("{{\"scenarios\": [{}\n]}}\n", out);
        return 0;
    }
    for (const Scenario& s : scenarios()) {
        fmt::print("{}: {}\n", s.name, s.looks_for);
        for (const Design& d : s.designs)
            if (!d.wrong) fmt::print("    {}\n", d.name);
            else
                fmt::print("    {}: {}; seen: {}; found within {} schedules\n", d.name, d.wrong->change, d.wrong->seen,
                           d.found_within);
    }
    return 0;
}

bool draw(const std::string& html, const Scenario& s, const Design& d, const Found& run, const Schedule& schedule,
          const Explorer& explorer) {
    if (write_html(html, s, d, run, schedule, explorer.shared())) return true;
    fmt::print(stderr, "explore: {}: cannot be written\n", html);
    return false;
}

// What a failure looks like: why, how to see it again, the shortest way there.
// False: the page could not be written.
bool show(Explorer& explorer, const Scenario& s, const Design& d, const Found& found, const std::string& html) {
    fmt::print("{} {}: {} in schedule {}\n{}\n", s.name, d.name, failure_name(found.failure), found.number, found.text);
    if (d.wrong && std::ranges::find(d.wrong->ends_as, found.failure) == d.wrong->ends_as.end())
        fmt::print("this is not what the design is wrong by: {}\n", d.wrong->seen);
    Schedule shrunk = explorer.shrink(s, d, found);
    const Found again = explorer.replay(s, d, shrunk, true);
    for (const Deviation& choice : again.skipped) std::erase(shrunk, choice);
    fmt::print("replay: --replay {}/{}:{}\n", s.name, d.name, schedule_text(found.schedule));
    fmt::print("shrunk from {} choices to {}: --replay {}/{}:{}\n", found.schedule.size(), shrunk.size(), s.name,
               d.name, schedule_text(shrunk));
    if (again.failure == Failure::none) fmt::print("(the replay did not fail)\n");
    else if (again.text != found.text) fmt::print("shrunk, it ends with:\n{}\n", again.text);
    fmt::print("the shrunk schedule, where threads change:\n{}", schedule_lines(explorer.shared(), shrunk));
    return html.empty() || draw(html, s, d, again, shrunk, explorer);
}

// Nothing was found: the page shows the schedule in which no thread is switched without need.
bool draw_default(Explorer& explorer, const Scenario& s, const Design& d, const std::string& html) {
    const Found run = explorer.replay(s, d, {}, true);
    return draw(html, s, d, run, {}, explorer);
}

struct Sum {
    std::uint64_t schedules = 0, failures = 0;
};

// A failure as any other, which no schedule was needed for.
int tell_unprepared(const Scenario& s, const Design& d, const Unprepared& why) {
    fmt::print("{} {}: {} when its image was made\n{}\n{} {}: 0 schedules, 1 failures\n", s.name, d.name,
               failure_name(Failure::wrong), why.text, s.name, d.name);
    std::fflush(stdout);
    return 1;
}

int explore_one(Explorer& explorer, const Options& o, const Scenario& s, const Design& d, Sum& sum) try {
    const auto start = std::chrono::steady_clock::now();
    const Found found = explorer.explore({&s, &d, o.algorithm, o.schedules, o.seed});
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const Counters& c = found.counters;
    const bool failed = found.failure != Failure::none;
    const bool drawn = failed            ? show(explorer, s, d, found, o.html)
                       : !o.html.empty() ? draw_default(explorer, s, d, o.html)
                                         : true;
    fmt::print(
        "{} distinct, {} with contention ({} waits), {} timers, {} errors, {} against the lock order, {} steps, "
        "{:.0f} schedules/s, trace {:016x}\n",
        c.distinct, c.contended_schedules, c.waits, c.timers, c.errors, c.against_order, c.steps,
        static_cast<double>(c.schedules) / std::max(seconds, 1e-9), c.trace_hash);
    fmt::print("{} {}: {} schedules, {} failures\n", s.name, d.name, c.schedules, failed ? 1 : 0);
    std::fflush(stdout);
    sum.schedules += c.schedules;
    sum.failures += failed;
    if (!drawn) return 2;
    return failed ? 1 : 0;
} catch (const Unprepared& why) {
    ++sum.failures;
    return tell_unprepared(s, d, why);
}

const Design* find_design(const Scenario& s, std::string_view name) {
    for (const Design& d : s.designs)
        if (d.name == name) return &d;
    return nullptr;
}

int replay(Explorer& explorer, const Options& o) {
    const std::string& text = *o.replay;
    const auto slash = text.find('/'), colon = text.find(':');
    Schedule schedule;
    if (slash == text.npos || colon == text.npos || slash > colon ||
        !parse_schedule(std::string_view(text).substr(colon + 1), schedule)) {
        fmt::print(stderr, "explore: a replay string is SCENARIO/DESIGN:STEP[+ATOMIC](.THREAD|wWOKEN|eERROR),...\n");
        return 2;
    }
    const Scenario* s = find_scenario(std::string_view(text).substr(0, slash));
    const Design* d = s ? find_design(*s, std::string_view(text).substr(slash + 1, colon - slash - 1)) : nullptr;
    if (!d) {
        fmt::print(stderr, "explore: {} names no scenario and design\n", text.substr(0, colon));
        return 2;
    }
    Found found;
    try {
        found = explorer.replay(*s, *d, schedule, true);
    } catch (const Unprepared& why) {
        return tell_unprepared(*s, *d, why);
    }
    const bool failed = found.failure != Failure::none;
    if (failed) fmt::print("{}\n{}\n", failure_name(found.failure), found.text);
    fmt::print("where threads change:\n{}", schedule_lines(explorer.shared(), schedule));
    if (!o.html.empty() && !draw(o.html, *s, *d, found, schedule, explorer)) return 2;
    // What comes behind a failure is not reached.
    if (!failed && !found.skipped.empty()) {
        fmt::print(stderr,
                   "explore: the schedule cannot be followed: {} of its {} choices could not be made, first {}\n",
                   found.skipped.size(), schedule.size(), schedule_text({found.skipped.front()}));
        return 2;
    }
    fmt::print("{} {}: 1 schedules, {} failures\n", s->name, d->name, failed ? 1 : 0);
    return failed ? 1 : 0;
}

int refuse(const std::string& why) {
    fmt::print(stderr, "explore: {}\n", why);
    return 2;
}

// Why the scenario and the design that are asked for cannot be explored; empty when they can.
std::string unknown(const Options& o) {
    const Scenario* s = find_scenario(o.scenario);
    if (!o.scenario.empty() && !s) return fmt::format("there is no scenario {}; --list names them", o.scenario);
    if (s && !find_design(*s, o.design)) return fmt::format("scenario {} has no design {}", s->name, o.design);
    if (std::ranges::none_of(scenarios(), [&](const Scenario& any) { return find_design(any, o.design); }))
        return fmt::format("no scenario has a design {}; --list names them", o.design);
    return {};
}

// Known before the search, which may take long.
bool can_be_written(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "a");
    return file && std::fclose(file) == 0;
}

int main(int count, char** arguments) {
    for (int i = 1; i < count; ++i)
        if (!std::strcmp(arguments[i], "--help") || !std::strcmp(arguments[i], "-h")) return std::puts(usage), 0;
    std::string wrong;
    const auto o = parse(count, arguments, wrong);
    if (!o) {
        fmt::print(stderr, "{}\n", usage);
        return refuse(wrong);
    }
    if (!o->empty.empty()) return refuse(o->empty + ": needs a value");
    if (o->list && !o->beside_list.empty())
        return refuse(fmt::format("--list tells of everything, so {} has no meaning beside it", o->beside_list));
    if (o->list) return list(o->json);
    if (o->json) return refuse("--json is for --list");
    if (o->schedules == 0) return refuse("0 schedules show nothing");
    if (o->replay && !o->searching.empty())
        return refuse(fmt::format("--replay says all there is to say, so {} has no meaning beside it", o->searching));
    if (const std::string why = unknown(*o); !why.empty()) return refuse(why);
    if (!o->html.empty() && !can_be_written(o->html)) return refuse(o->html + ": cannot be written");
    use_small_stacks();
    Explorer explorer;
    if (o->replay) return replay(explorer, *o);
    int worst = 0;
    Sum sum;
    for (const Scenario& s : scenarios()) {
        if (!o->scenario.empty() && s.name != o->scenario) continue;
        const Design* d = find_design(s, o->design);
        if (!d) continue;
        Options now = *o;
        if (worst != 0) now.html.clear();  // the page is the first failure's
        worst = std::max(worst, explore_one(explorer, now, s, *d, sum));
    }
    if (o->scenario.empty()) fmt::print("all {}: {} schedules, {} failures\n", o->design, sum.schedules, sum.failures);
    return worst;
}

}  // namespace
}  // namespace uext4::explore

int main(int count, char** arguments) { return uext4::explore::main(count, arguments); }

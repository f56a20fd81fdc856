#include "tests/explore/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

namespace uext4::explore {

namespace {

std::string kind_text(const Event& e) {
    if (e.kind == event_block) return "waits for";
    if (e.kind == event_exit) return "ends";
    if (e.kind == event_timer) return "time passed:";
    if (e.kind == event_error) return "is made to fail:";
    return point_name(static_cast<Point>(e.kind));
}

std::string escaped(std::string_view text) {
    std::string out;
    for (char c : text) {
        if (c == '<') out += "&lt;";
        else if (c == '>') out += "&gt;";
        else if (c == '&') out += "&amp;";
        else out += c;
    }
    return out;
}

bool is_choice(const Schedule& schedule, Moment at) {
    return std::ranges::any_of(schedule, [&](const Deviation& d) { return d.at == at; });
}

const char* name_of(const Shared& s, std::uint16_t i) { return i < s.name_count ? s.names[i].data() : ""; }
const char* thread_of(const Shared& s, int i) {
    return i >= 0 && static_cast<unsigned>(i) < s.thread_count ? s.threads[static_cast<std::size_t>(i)].data() : "?";
}

// Events worth a row: a thread's first and last before another goes on, waits, and choices; the rest is counted.
std::vector<std::uint32_t> rows_of(const Shared& r, const Schedule& schedule) {
    std::vector<std::uint32_t> rows;
    constexpr std::uint32_t everything = 1500;
    for (std::uint32_t i = 0; i < r.event_count; ++i) {
        const Event& e = r.events[i];
        const bool first = i == 0 || r.events[i - 1].thread != e.thread;
        const bool last = i + 1 == r.event_count || r.events[i + 1].thread != e.thread;
        const bool end = i + 60 >= r.event_count;
        if (r.event_count < everything || first || last || end || e.kind >= event_block || is_choice(schedule, e.at))
            rows.push_back(i);
    }
    return rows;
}

constexpr int lane = 190, top = 60, row_height = 16;

std::string draw(const Shared& r, const Schedule& schedule, bool failed) {
    const std::vector<std::uint32_t> rows = rows_of(r, schedule);
    std::set<int> used;
    for (std::uint32_t i : rows) used.insert(r.events[i].thread);
    std::map<int, int> x;
    for (int t : used) x.emplace(t, 20 + lane * static_cast<int>(x.size()));
    const int height = top + row_height * static_cast<int>(rows.size()) + 60;
    std::string out = fmt::format("<svg width=\"{}\" height=\"{}\" font-family=\"monospace\" font-size=\"11\">\n",
                                  40 + lane * static_cast<int>(used.size()), height);
    for (auto [t, at] : x)
        out += fmt::format(
            "<text x=\"{}\" y=\"30\" font-weight=\"bold\">{} {}</text><line x1=\"{}\" y1=\"40\" "
            "x2=\"{}\" y2=\"{}\" stroke=\"#ddd\"/>\n",
            at, t, escaped(thread_of(r, t)), at, at, height - 20);
    // Bars: from the first row that shows a lock held by a thread to the first that does not.
    struct Bar {
        std::size_t from;
        int column;
    };
    std::map<std::pair<int, std::uint16_t>, Bar> open;
    std::string bars, marks;
    auto close = [&](std::pair<int, std::uint16_t> key, const Bar& bar, std::size_t to) {
        const int y = top + row_height * static_cast<int>(bar.from) - 10;
        const unsigned hue = key.second * 47u % 360;
        bars += fmt::format(
            "<rect x=\"{}\" y=\"{}\" width=\"4\" height=\"{}\" fill=\"hsl({},60%,55%)\"><title>{}"
            "</title></rect>\n",
            x[key.first] - 6 - 6 * (bar.column % 3), y, std::max(4, row_height * static_cast<int>(to - bar.from)), hue,
            escaped(name_of(r, key.second)));
    };
    for (std::size_t row = 0; row < rows.size(); ++row) {
        const Event& e = r.events[rows[row]];
        std::set<std::uint16_t> held(e.locks, e.locks + e.held);
        for (auto it = open.begin(); it != open.end();) {
            if (it->first.first == e.thread && !held.contains(it->first.second)) {
                close(it->first, it->second, row);
                it = open.erase(it);
            } else {
                ++it;
            }
        }
        for (std::uint16_t lock : held) open.try_emplace({e.thread, lock}, Bar{row, static_cast<int>(open.size())});
        const int y = top + row_height * static_cast<int>(row);
        const bool chosen = is_choice(schedule, e.at);
        const bool decisive = chosen && !schedule.empty() && e.at == schedule.back().at;
        if (chosen)
            marks += fmt::format("<rect x=\"0\" y=\"{}\" width=\"100%\" height=\"{}\" fill=\"{}\"/>\n", y - 12,
                                 row_height, decisive ? "#ffd0d0" : "#fff3c0");
        marks += fmt::format("<text x=\"{}\" y=\"{}\" fill=\"{}\">{} {}<title>step {}, {}{}</title></text>\n",
                             x[e.thread], y, e.kind == event_block || e.kind == event_error ? "#b00" : "#222",
                             kind_text(e), escaped(name_of(r, e.name)), e.at.step, escaped(name_of(r, e.source)),
                             decisive ? ": the decisive choice"
                             : chosen ? ": a choice"
                                      : "");
    }
    for (const auto& [key, bar] : open) close(key, bar, rows.size());
    if (failed)
        marks += fmt::format("<text x=\"20\" y=\"{}\" fill=\"#b00\" font-weight=\"bold\">here it fails</text>\n",
                             top + row_height * static_cast<int>(rows.size()));
    return out + marks + bars + "</svg>\n";
}

}  // namespace

std::string schedule_lines(const Shared& r, const Schedule& schedule) {
    std::string out;
    for (std::uint32_t i = 0; i < r.event_count; ++i) {
        const Event& e = r.events[i];
        const bool last = i + 1 == r.event_count || r.events[i + 1].thread != e.thread;
        if (!last && e.kind != event_timer && e.kind != event_error) continue;
        out += fmt::format("  {}{:>6} {:<14} {} {} at {}\n", is_choice(schedule, e.at) ? "*" : " ", e.at.step,
                           thread_of(r, e.thread), kind_text(e), name_of(r, e.name), name_of(r, e.source));
    }
    return out;
}

bool write_html(const std::string& path, const Scenario& scenario, const Design& design, const Found& found,
                const Schedule& schedule, const Shared& recorded) {
    std::string page = fmt::format(
        "<!doctype html><html><head><meta charset=\"utf-8\"><title>{0} {1}</title></head>\n<body>\n<h1>{0}, design "
        "{1}: {2}</h1>\n<p>{3}</p>\n<p>Replay: <code>./dev explore --replay {0}/{1}:{4}</code></p>\n<pre>{5}</pre>\n"
        "<p>Threads are lanes, time runs downward. Coloured bars are locks held (point at one for its name). Yellow: "
        "the scheduler chose another thread than by default; red: the last such choice, the decisive one.</p>\n",
        escaped(scenario.name), escaped(design.name), failure_name(found.failure), escaped(scenario.looks_for),
        schedule_text(schedule), escaped(found.text));
    page += draw(recorded, schedule, found.failure != Failure::none);
    page += "</body></html>\n";
    std::FILE* file = std::fopen(path.c_str(), "w");
    if (!file) return false;
    const bool whole = std::fwrite(page.data(), 1, page.size(), file) == page.size();
    return std::fclose(file) == 0 && whole;
}

}  // namespace uext4::explore

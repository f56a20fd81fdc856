#include "tests/crash/report.h"

#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

namespace uext4::crash {

namespace {

std::string quote(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        if (c == '\n') out += "\\n";
        else if (static_cast<unsigned char>(c) < 0x20) out += ' ';
        else out += c;
    }
    return out + "\"";
}

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
    return out;
}

Tally sum_of(const std::vector<Tally>& tallies) {
    Tally sum;
    for (const Tally& t : tallies) sum.add(t);
    return sum;
}

std::string row(const Tally& t, const char* open, const char* between, const char* close) {
    std::string out = open + t.workload;
    auto cell = [&](const std::string& text) { out += between + text; };
    cell(t.format);
    cell(t.mode);
    cell(fmt::format("{} of {}", t.recordings, t.sequences));
    for (const std::size_t n : t.states) cell(std::to_string(n));
    cell(std::to_string(t.cut_recoveries));
    cell(std::to_string(t.second_lives));
    cell(std::to_string(t.by_e2fsck));
    cell(std::to_string(t.ours_by_e2fsck));
    cell(std::to_string(t.by_kernel));
    cell(std::to_string(t.failures));
    return out + close;
}

constexpr const char* columns[] = {"workload",  "image",          "data",          "sequences",        "prefixes",
                                   "subsets",   "torn",           "lying flush",   "recovery cut too", "used again",
                                   "by e2fsck", "ours by e2fsck", "by the kernel", "failures"};

}  // namespace

void Tally::add(const Tally& other) {
    sequences += other.sequences;
    recordings += other.recordings;
    for (int i = 0; i < cut_kinds; ++i) states[i] += other.states[i];
    cut_recoveries += other.cut_recoveries;
    second_lives += other.second_lives;
    by_e2fsck += other.by_e2fsck;
    ours_by_e2fsck += other.ours_by_e2fsck;
    by_kernel += other.by_kernel;
    failures += other.failures;
    at_limit += other.at_limit;
    lying_opened += other.lying_opened;
    lying_sound += other.lying_sound;
    lying_kept += other.lying_kept;
}

std::string text_of(const Failure& f) {
    std::string out = fmt::format("FAILURE  image {}, data={}, between the steps: {}\n", f.format, f.mode, f.between);
    for (const std::string& step : f.steps) out += "  " + step + "\n";
    out += fmt::format("  {}: {}\n  {}\n", f.kind, f.cut, f.problem);
    if (!f.again.empty()) out += "  again: " + f.again + "\n";
    if (!f.image.empty()) out += "  kept: " + f.image + "\n";
    if (!f.not_kept.empty()) out += "  not kept: " + f.not_kept + "\n";
    return out;
}

std::string markdown(const std::vector<Tally>& tallies, std::size_t distinct, double seconds, Kernel kernel) {
    std::string out = "|", line = "|";
    for (const char* column : columns) {
        out += fmt::format(" {} |", column);
        line += "---|";
    }
    out += "\n" + line + "\n";
    // By workload and mode; the formats added up.
    std::vector<Tally> rows;
    for (const Tally& t : tallies) {
        auto same =
            std::ranges::find_if(rows, [&](const Tally& r) { return r.workload == t.workload && r.mode == t.mode; });
        if (same == rows.end()) {
            rows.push_back(t);
        } else {
            same->add(t);
            same->format += ", " + t.format;
        }
    }
    for (const Tally& t : rows) out += row(t, "| ", " | ", " |\n");
    Tally sum = sum_of(tallies);
    sum.workload = "all";
    out += row(sum, "| ", " | ", " |\n");
    out += fmt::format("\n{} distinct images in {:.0f} s, {:.0f} a second; {}. {}.\n\n{}.\n", distinct, seconds,
                       static_cast<double>(distinct) / std::max(seconds, 0.001), judges_of(tallies, kernel),
                       prefixes_of(tallies), lying_of(tallies));
    return out;
}

std::string prefixes_of(const std::vector<Tally>& tallies) {
    std::map<unsigned, std::set<std::string>> by_percent;
    for (const Tally& t : tallies)
        if (t.recordings != 0) by_percent[t.prefix_percent].insert(t.workload);
    std::string out = "prefixes tried of each sequence that was run: ";
    for (bool first = true; const auto& [percent, names] : by_percent) {
        if (!first) out += ", ";
        first = false;
        out += percent == 100 ? "all" : fmt::format("{} % drawn by the seed", percent);
        if (by_percent.size() > 1) out += fmt::format(" of {}", fmt::join(names, " and "));
    }
    if (by_percent.empty()) return out + "none";
    const Tally sum = sum_of(tallies);
    if (sum.at_limit != 0)
        out += fmt::format("; {} of {} sequences ended early, at the limit of states", sum.at_limit, sum.recordings);
    return out;
}

std::string judges_of(const std::vector<Tally>& tallies, Kernel kernel) {
    const Tally sum = sum_of(tallies);
    std::string out = fmt::format("e2fsck judged {} of {} images, {} of them after our recovery too, the kernel ",
                                  sum.by_e2fsck, sum.all_states(), sum.ours_by_e2fsck);
    switch (kernel) {
        case Kernel::not_asked: return out + "was not asked";
        case Kernel::cannot_mount: return out + "none, as this machine could not mount";
        case Kernel::judges: break;
    }
    return out + std::to_string(sum.by_kernel);
}

std::string lying_of(const std::vector<Tally>& tallies) {
    const Tally sum = sum_of(tallies);
    return fmt::format(
        "of {} images of a device whose flush lies, {} opened, in {} every structure was sound, and in {} everything "
        "synced was there: nothing may be expected of such a device, and none made the program fail",
        sum.states[static_cast<int>(CutKind::lying)], sum.lying_opened, sum.lying_sound, sum.lying_kept);
}

Result<void> write_text(const std::string& path, const std::string& text) {
    std::ofstream file(path, std::ios::trunc);
    file << text;
    file.close();
    if (!file) return fail(EIO, "{}: cannot be written", path);
    return {};
}

Result<void> can_be_written(const std::string& path) {
    if (!std::ofstream(path, std::ios::app)) return fail(EIO, "{}: cannot be written", path);
    return {};
}

Result<void> can_be_filled(const std::string& folder) {
    const bool made = ::mkdir(folder.c_str(), 0755) == 0;
    if (!made && errno != EEXIST) return fail(EIO, "{}: {}", folder, std::strerror(errno));
    std::string probe = folder + "/probe-XXXXXX";
    const int fd = ::mkstemp(probe.data());
    const int why = errno;
    if (fd >= 0) {
        ::close(fd);
        ::unlink(probe.c_str());
    }
    if (made) ::rmdir(folder.c_str());
    if (fd < 0) return fail(EIO, "{}: nothing can be kept there: {}", folder, std::strerror(why));
    return {};
}

Result<void> write_between_marks(const std::string& path, const std::string& name, const std::string& text) {
    const std::string begin = fmt::format("<!-- {}: begin -->\n", name), end = fmt::format("<!-- {}: end -->", name);
    std::stringstream old;
    old << std::ifstream(path).rdbuf();
    std::string all = old.str();
    const std::size_t from = all.find(begin), to = all.find(end);
    if (from == std::string::npos || to == std::string::npos || to < from) all = text;
    else all.replace(from + begin.size(), to - from - begin.size(), text);
    return write_text(path, all);
}

std::string html(const std::vector<Tally>& tallies, const std::vector<Failure>& failures, Kernel kernel) {
    std::string out =
        "<!doctype html><meta charset=utf-8><title>Crash states</title><style>body{font:14px sans-serif;margin:2em}"
        "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.2em .6em;text-align:right}"
        "td:first-child{text-align:left}pre{background:#fee;padding:1em}</style><h1>Crash states</h1><table><tr>";
    for (const char* column : columns) out += fmt::format("<th>{}", column);
    for (const Tally& t : tallies) out += row(t, "<tr><td>", "<td>", "\n");
    out += "</table>";
    for (const std::string& sentence : {prefixes_of(tallies), judges_of(tallies, kernel), lying_of(tallies)})
        out += "<p>" + escaped(sentence) + ".\n";
    out += failures.empty() ? "<p>No failure." : fmt::format("<h2>{} failures</h2>", failures.size());
    for (const Failure& f : failures) out += "<pre>" + escaped(text_of(f)) + "</pre>";
    return out + "\n";
}

std::string json(const std::vector<Tally>& tallies, const std::vector<Failure>& failures, Kernel kernel) {
    std::string out = "{\"cells\": [";
    for (std::size_t i = 0; i < tallies.size(); ++i) {
        const Tally& t = tallies[i];
        out += fmt::format(
            "{}{{\"workload\": {}, \"image\": {}, \"mode\": {}, \"recordings\": {}, \"states\": {}, "
            "\"prefix_percent\": {}, \"cut_recoveries\": {}, \"used_again\": {}, \"e2fsck\": {}, \"kernel\": {}, "
            "\"failures\": {}, \"trace\": \"{:016x}\"}}",
            i ? ", " : "", quote(t.workload), quote(t.format), quote(t.mode), t.recordings, t.all_states(),
            t.prefix_percent, t.cut_recoveries, t.second_lives, t.by_e2fsck, t.by_kernel, t.failures, t.trace);
    }
    const Tally sum = sum_of(tallies);
    out += fmt::format(
        "], \"states\": {}, \"e2fsck\": {}, \"kernel\": {}, \"lying\": {{\"images\": {}, \"opened\": {}, \"sound\": "
        "{}, "
        "\"kept\": {}}}, \"said\": [{}, {}, {}], \"failures\": [",
        sum.all_states(), sum.by_e2fsck, sum.by_kernel, sum.states[static_cast<int>(CutKind::lying)], sum.lying_opened,
        sum.lying_sound, sum.lying_kept, quote(prefixes_of(tallies)), quote(judges_of(tallies, kernel)),
        quote(lying_of(tallies)));
    for (std::size_t i = 0; i < failures.size(); ++i) out += (i ? ", " : "") + quote(text_of(failures[i]));
    return out + "]}\n";
}

}  // namespace uext4::crash

#include "cli/find_print.h"

#include "cli/describe.h"
#include "cli/times.h"

#include <sys/sysmacros.h>

namespace uext4::cli {

namespace {

std::string target_of(const Found& found) {
    Session& s = found.visit.session;
    return S_ISLNK(found.st.st_mode) ? value_or_fail(s.fs().read_link(*found.visit.inode), s.at(found.visit.path)) : "";
}

// As -ls prints names, to whatever: blanks have a backslash, too.
std::string in_line(const std::string& name) {
    std::string out;
    for (const char c : escaped(name)) out += c == ' ' ? std::string("\\ ") : std::string(1, c);
    return out;
}

std::uint64_t kibibytes(const struct stat& st) { return (static_cast<std::uint64_t>(st.st_blocks) + 1) / 2; }

std::string fraction(format::Timestamp time) { return fmt::format(".{:09}0", time.nsec); }

// `letter`: as strftime(3), @ or +. Seconds have ten decimals, as find(1) has them.
std::string time_text(format::Timestamp time, char letter) {
    switch (letter) {
        case '@': return std::to_string(time.sec) + fraction(time);
        case 'S': return local_time(time, "%S") + fraction(time);
        case 'T':
        case 'X': return local_time(time, "%H:%M:%S") + fraction(time);
        case '+': return local_time(time, "%Y-%m-%d+%H:%M:%S") + fraction(time);
        case 'c': return local_time(time, "%a %b %e %H:%M:%S") + fraction(time) + local_time(time, " %Y");
        default: break;
    }
    if (std::string_view("HIklMprZaAbBdDhjmUwWxyYGgVFeCuRs").find(letter) == std::string_view::npos)
        fail_with(exit_failure, fmt::format("-printf: a time has no form '{}'", letter));
    return local_time(time, std::string{'%', letter});
}

std::string time_value(const Found& found, const Directive& d) {
    const char which = d.letters[0];
    // Small letters have one form.
    const char letter = which >= 'a' ? 'c' : d.letters.size() > 1 ? d.letters[1] : '\0';
    if (letter == '\0') fail_with(exit_failure, fmt::format("-printf: a letter follows %{}", which));
    switch (which) {
        case 'a':
        case 'A': return time_text(stamp(found.st.st_atim), letter);
        case 'c':
        case 'C': return time_text(stamp(found.st.st_ctim), letter);
        case 't':
        case 'T': return time_text(stamp(found.st.st_mtim), letter);
        default: break;
    }
    const std::optional<format::Timestamp> born = found.visit.session.fs().birth_time(*found.visit.inode);
    return born ? time_text(*born, letter) : "";
}

// Of what a link leads to: N where that is nothing, L in a circle, ? where it cannot be told.
std::string type_behind(const Found& found) {
    if (!S_ISLNK(found.st.st_mode)) return std::string(1, type_letter(found.st.st_mode));
    const Result<InodeRef> target = found.visit.session.fs().resolve(found.visit.path, operator_identity());
    if (target) return std::string(1, type_letter((*target)->mode()));
    const int error = target.error().code;
    return error == ENOENT || error == ENOTDIR ? "N" : error == ELOOP ? "L" : "?";
}

std::string directory_of(const std::string& name) {
    const std::size_t slash = name.rfind('/');
    if (slash == std::string::npos) return ".";
    return name.substr(0, slash);
}

std::string relative(const Found& found) {
    std::string_view rest = found.name;
    rest.remove_prefix(std::min(found.start.size(), rest.size()));
    if (rest.starts_with('/')) rest.remove_prefix(1);
    return std::string(rest);
}

}  // namespace

std::string find_line(const Found& found) {
    const struct stat& st = found.st;
    const std::string size = S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)
                                 ? fmt::format("{:>3}, {:>3}", major(st.st_rdev), minor(st.st_rdev))
                                 : fmt::format("{:>8}", st.st_size);
    const std::string line =
        fmt::format("{:>9} {:>6} {} {:>3} {:<8} {:<8} {} {} {}", st.st_ino, kibibytes(st),
                    mode_text(static_cast<std::uint16_t>(st.st_mode)), st.st_nlink, st.st_uid, st.st_gid, size,
                    TimeStyle("").text(stamp(st.st_mtim), current_time()), in_line(found.name));
    return S_ISLNK(st.st_mode) ? line + " -> " + in_line(target_of(found)) : line;
}

std::string find_value(const Found& found, const Directive& d) {
    const struct stat& st = found.st;
    const auto text = [&](const std::string& value) { return d.padded(printable(value), false); };
    const auto number = [&](auto value) { return d.padded(std::to_string(value), true); };
    switch (d.letters[0]) {
        case 'p': return text(found.name);
        case 'P': return text(relative(found));
        case 'H': return text(found.start);
        case 'f': return text(found.visit.name);
        case 'h': return text(directory_of(found.name));
        case 'l': return text(target_of(found));
        case 'y': return text(std::string(1, type_letter(st.st_mode)));
        case 'Y': return text(type_behind(found));
        case 'M': return text(mode_text(static_cast<std::uint16_t>(st.st_mode)));
        case 'm': return d.padded(fmt::format("{}{:o}", d.has('#') ? "0" : "", st.st_mode & 07777), true);
        case 's': return number(st.st_size);
        case 'b': return number(st.st_blocks);
        case 'k': return number(kibibytes(st));
        case 'd': return number(found.visit.depth);
        case 'D': return number(st.st_dev);
        case 'i': return number(st.st_ino);
        case 'n': return number(st.st_nlink);
        case 'u':
        case 'U': return number(st.st_uid);  // owners are numbers
        case 'g':
        case 'G': return number(st.st_gid);
        case 'a':
        case 'A':
        case 'B':
        case 'c':
        case 'C':
        case 't':
        case 'T': return text(time_value(found, d));
        default: fail_with(exit_failure, fmt::format("-printf: there is no directive %{}", d.letters));
    }
}

}  // namespace uext4::cli

// stat
#include "cli/describe.h"
#include "cli/format_text.h"
#include "cli/listing.h"
#include "cli/times.h"
#include "cli/verbs.h"

#include <sys/sysmacros.h>

#include <array>

namespace uext4::cli {

namespace {

struct StatOptions {
    std::vector<std::string> places;
    std::string format, escaped_format;
    bool follow = false;
    CommonOptions o;
};

// What a directive of a format stands for.
class StatValue {
public:
    StatValue(Session& s, const std::string& name, const std::string& path, Inode& inode)
        : s_(s), name_(name), path_(path), inode_(inode), st_(value_or_fail(s.fs().attributes(inode), s.at(path))) {}

    std::string of(const Directive& d) const {
        const char letter = d.letters[0];
        switch (letter) {
            case 'n': return text(d, printable(name_));
            case 'N': return text(d, quote());
            case 'm': return text(d, "/");
            case 'A': return text(d, mode_text(static_cast<std::uint16_t>(st_.st_mode)));
            case 'F':
                return text(d,
                            S_ISREG(st_.st_mode) && st_.st_size == 0 ? "regular empty file" : type_name(st_.st_mode));
            case 'a': return octal(d, st_.st_mode & 07777);
            case 'f': return hexadecimal(d, st_.st_mode);
            case 't': return hexadecimal(d, major(st_.st_rdev));
            case 'T': return hexadecimal(d, minor(st_.st_rdev));
            case 'D': return hexadecimal(d, st_.st_dev);
            case 'd': return number(d, st_.st_dev);
            case 'r': return number(d, st_.st_rdev);
            case 'i': return number(d, st_.st_ino);
            case 'h': return number(d, st_.st_nlink);
            case 'u':
            case 'U': return number(d, st_.st_uid);  // owners are numbers
            case 'g':
            case 'G': return number(d, st_.st_gid);
            case 's': return number(d, st_.st_size);
            case 'b': return number(d, st_.st_blocks);
            case 'B': return number(d, 512);
            case 'o': return number(d, st_.st_blksize);
            default: return time(d);
        }
    }

private:
    static std::string text(const Directive& d, std::string value) {
        if (d.precision) value.resize(std::min(value.size(), *d.precision));
        return d.padded(std::move(value), false);
    }
    template <class T>
    static std::string number(const Directive& d, T value) {
        return d.padded(std::to_string(value), true);
    }
    static std::string octal(const Directive& d, unsigned value) {
        return d.padded(fmt::format("{}{:o}", d.has('#') && value != 0 ? "0" : "", value), true);
    }
    static std::string hexadecimal(const Directive& d, std::uint64_t value) {
        return d.padded(fmt::format("{}{:x}", d.has('#') && value != 0 ? "0x" : "", value), true);
    }

    std::string quote() const {
        const auto in_quotes = [](const std::string& text) {
            std::string out = "'";
            for (const char c : printable(text)) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
            return out + "'";
        };
        std::string out = in_quotes(name_);
        if (S_ISLNK(st_.st_mode)) out += " -> " + in_quotes(value_or_fail(s_.fs().read_link(inode_), s_.at(path_)));
        return out;
    }

    std::string time(const Directive& d) const {
        const char letter = d.letters[0];
        switch (letter) {
            case 'x':
            case 'X': return time(d, stamp(st_.st_atim));
            case 'y':
            case 'Y': return time(d, stamp(st_.st_mtim));
            case 'z':
            case 'Z': return time(d, stamp(st_.st_ctim));
            case 'w':
            case 'W':
                if (const std::optional<format::Timestamp> born = s_.fs().birth_time(inode_)) return time(d, *born);
                return letter == 'w' ? d.padded("-", false) : d.padded("0", true);
            default: fail_with(exit_failure, fmt::format("format: there is no directive %{}", d.letters));
        }
    }
    // Small letters: for people; capitals: seconds, with as many decimals as the precision says.
    static std::string time(const Directive& d, format::Timestamp t) {
        if (d.letters[0] >= 'a') return text(d, full_time(t));
        std::string out = std::to_string(t.sec);
        if (d.precision && *d.precision > 0) {
            // Before 1970 the decimals count backwards as well.
            const bool borrows = t.sec < 0 && t.nsec != 0;
            if (borrows) out = fmt::format("-{}", -(t.sec + 1));
            std::string digits = fmt::format("{:09}", borrows ? 1'000'000'000 - t.nsec : t.nsec);
            digits.resize(*d.precision, '0');
            out += "." + digits;
        }
        return d.padded(std::move(out), true);
    }

    Session& s_;
    const std::string& name_;
    const std::string& path_;
    Inode& inode_;
    struct stat st_;
};

// For people: times are the ones of stat(1).
Json for_people(Session& s, Json j, const std::string& path, Inode& inode) {
    const struct stat st = value_or_fail(s.fs().attributes(inode), s.at(path));
    j["atime"] = full_time(stamp(st.st_atim));
    j["mtime"] = full_time(stamp(st.st_mtim));
    j["ctime"] = full_time(stamp(st.st_ctim));
    if (const std::optional<format::Timestamp> born = s.fs().birth_time(inode)) j["btime"] = full_time(*born);
    return j;
}

void stat_places(const StatOptions& o, bool formatted, bool escaped) {
    const UserFormat format(escaped ? o.escaped_format : o.format, escaped, "");
    Listing listing("stat", o.places, false, o.o);
    Json all = Json::array();
    bool first = true;
    listing.each([&](Session& s, const std::string& path) {
        InodeRef inode = s.resolve(path, o.follow);
        const std::string name = listing.name(s, path);
        if (formatted) {
            const StatValue value(s, name, path, *inode);
            const std::string line = format.expand([&](const Directive& d) { return value.of(d); });
            std::fwrite(line.data(), 1, line.size(), stdout);  // may contain NUL
            if (!escaped) fmt::print("\n");
            return;
        }
        Json j = describe(s, name, path, *inode);
        if (o.o.json) {
            all.push_back(std::move(j));
            return;
        }
        if (!first) fmt::print("\n");
        first = false;
        print_members(for_people(s, std::move(j), path, *inode), 10);
    });
    if (o.o.json && listing.count() > 1) print(all);
    else if (!all.empty()) print(all.front());
    listing.finish();
}

}  // namespace

void add_stat_verb(CLI::App& app) {
    auto s = std::make_shared<StatOptions>();
    CLI::App* v = app.add_subcommand("stat", "Shows what inodes say");
    v->footer(
        "Examples: uext4 stat --json disk.img:/etc/passwd   uext4 stat -c '%a %s %n' disk.img:/etc/passwd\n"
        "          uext4 stat 'disk.img:<2>'");
    v->add_option("PLACES", s->places, "IMAGE or IMAGE:/path")->required();
    v->add_flag("-L,--dereference", s->follow, "Follow symbolic links");
    CLI::Option* format =
        v->add_option("-c,--format", s->format, "Prints this, with the directives of stat(1): %a, %s, %n");
    CLI::Option* escaped =
        v->add_option("--printf", s->escaped_format, "The same, with escapes like \\n, and no end of line");
    add_common(v, s->o, true, true);
    format->excludes(escaped);
    v->callback([=] { stat_places(*s, format->count() + escaped->count() != 0, escaped->count() != 0); });
}

}  // namespace uext4::cli

// Times as they are printed and typed: local time, by TZ.
#pragma once

#include "format/inode.h"

#include <sys/stat.h>

#include <optional>
#include <string>

namespace uext4::cli {

// Reads the time zone's data. Once, at the start of the program: in the sandbox no file can be opened any more.
void load_time_zone();

format::Timestamp stamp(const timespec& time);

// As strftime(3), and %N: nanoseconds.
std::string local_time(format::Timestamp time, const std::string& format);
std::string iso_time(format::Timestamp time);   // 2001-01-01T00:02:03.000000004+00:00
std::string full_time(format::Timestamp time);  // 2001-01-01 00:02:03.000000004 +0000, as stat(1)

// How `ls -l` prints times: as ls(1)'s --time-style in the C locale.
class TimeStyle {
public:
    // "" (as ls -l does without the option), "full-iso", "long-iso", "iso", "locale" or "+FORMAT". Ends the verb for
    // anything else.
    explicit TimeStyle(const std::string& word);
    // `now`: a time of the last six months may have another form than one before or after.
    std::string text(format::Timestamp time, format::Timestamp now) const;

private:
    std::string recent_, other_;
};

// A date as `touch -d` takes it. Nothing where it is none that this program knows. `now` is what "now", "2 days ago"
// and a time without a date start from.
std::optional<format::Timestamp> parse_date(const std::string& text, format::Timestamp now);
// [[CC]YY]MMDDhhmm[.ss], as `touch -t` takes it.
std::optional<format::Timestamp> parse_touch_stamp(const std::string& text, format::Timestamp now);

// The forms that parse_date() knows, for messages and help texts.
inline constexpr const char* date_forms =
    "\"2026-01-31 23:59:58.5\" (a T may stand for the blank, and Z, +0100 or +01:00 follow), \"2026-01-31\", "
    "\"23:59\", "
    "\"@SECONDS\", \"now\", \"today\", \"yesterday\", \"tomorrow\", or \"2 days ago\", \"+1 hour\" alone or behind one "
    "of them";

}  // namespace uext4::cli

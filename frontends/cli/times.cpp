#include "cli/times.h"

#include "cli/session.h"

#include <array>
#include <cctype>
#include <charconv>
#include <ctime>
#include <string_view>

namespace uext4::cli {

namespace {

constexpr std::uint32_t nanoseconds_of_second = 1'000'000'000;

// One conversion of strftime(3), or plain text of any length.
std::string converted(const std::tm& parts, const std::string& format) {
    // A blank in front tells an empty result from one that did not fit.
    const std::string wanted = " " + format;
    for (std::size_t size = 128; size <= std::size_t{1} << 20; size *= 4) {
        std::string out(size, '\0');
        if (const std::size_t n = std::strftime(out.data(), size, wanted.c_str(), &parts); n != 0)
            return out.substr(1, n - 1);
    }
    fail_with(exit_failure, fmt::format("'{}': the time is too long in this format", format));
}

std::tm local_parts(std::int64_t seconds) {
    const std::time_t time = seconds;
    std::tm parts{};
    if (!::localtime_r(&time, &parts))
        fail_with(exit_failure, fmt::format("{} seconds: there is no such year", seconds));
    return parts;
}

// Reads a date from its begin on.
class DateReader {
public:
    DateReader(std::string_view text, format::Timestamp now) : text_(text), time_(now) {
        parts_ = local_parts(now.sec);
        parts_.tm_isdst = -1;
    }

    std::optional<format::Timestamp> all() {
        skip_blanks();
        if (text_.empty()) return {};
        if (next_is('@')) {
            if (!seconds_since_epoch()) return {};
        } else if (!day_and_time() || !settle()) {
            return {};
        }
        while (!text_.empty())
            if (!relative()) return {};
        return time_;
    }

private:
    bool next_is(char c) const { return !text_.empty() && text_.front() == c; }
    void skip_blanks() {
        while (!text_.empty() && std::isspace(static_cast<unsigned char>(text_.front()))) text_.remove_prefix(1);
    }
    bool skip(char c) {
        if (!next_is(c)) return false;
        text_.remove_prefix(1);
        return true;
    }
    bool word(std::string_view wanted) {
        if (text_.size() < wanted.size()) return false;
        for (std::size_t i = 0; i < wanted.size(); ++i)
            if (std::tolower(static_cast<unsigned char>(text_[i])) != wanted[i]) return false;
        if (text_.size() > wanted.size() && std::isalnum(static_cast<unsigned char>(text_[wanted.size()])))
            return false;
        text_.remove_prefix(wanted.size());
        skip_blanks();
        return true;
    }
    // Digits, at most so many.
    std::optional<std::int64_t> digits(std::size_t least, std::size_t most) {
        std::size_t n = 0;
        while (n < text_.size() && text_[n] >= '0' && text_[n] <= '9') ++n;
        if (n < least || n > most) return {};
        std::int64_t value = 0;
        const std::string number(text_.substr(0, n));
        std::from_chars(number.data(), number.data() + number.size(), value);
        text_.remove_prefix(n);
        return value;
    }
    std::size_t count_of_digits() const {
        std::size_t n = 0;
        while (n < text_.size() && text_[n] >= '0' && text_[n] <= '9') ++n;
        return n;
    }

    bool fraction() {
        const std::size_t n = count_of_digits();
        if (n == 0) return false;
        std::string nine(text_.substr(0, std::min<std::size_t>(n, 9)));
        nine.resize(9, '0');
        time_.nsec = static_cast<std::uint32_t>(std::stoul(nine));
        text_.remove_prefix(n);
        return true;
    }

    bool seconds_since_epoch() {
        skip('@');
        const bool minus = skip('-');
        const std::optional<std::int64_t> seconds = digits(1, 12);
        if (!seconds) return false;
        time_ = {minus ? -*seconds : *seconds, 0};
        if (skip('.')) {
            if (!fraction()) return false;
            if (minus && time_.nsec != 0) time_ = {time_.sec - 1, nanoseconds_of_second - time_.nsec};
        }
        skip_blanks();
        return true;
    }

    // A day, a time, or both; or nothing, before a relative part.
    bool day_and_time() {
        const bool named = named_day();
        bool dated = false;
        if (!named && count_of_digits() == 4 && text_.size() > 4 && text_[4] == '-') {
            if (!day()) return false;
            dated = true;
            if (skip('T') || skip('t')) return time();
            skip_blanks();
        }
        const std::size_t n = count_of_digits();
        if (n >= 1 && n <= 2 && text_.size() > n && text_[n] == ':') return time();
        if (dated) clear_time();
        return named || dated || next_is('+') || next_is('-') || n != 0;
    }

    // At the same time of the day.
    bool named_day() {
        if (word("now") || word("today")) return true;
        if (word("yesterday")) --parts_.tm_mday;
        else if (word("tomorrow")) ++parts_.tm_mday;
        else return false;
        return true;
    }

    void clear_time() {
        parts_.tm_hour = parts_.tm_min = parts_.tm_sec = 0;
        time_.nsec = 0;
    }

    bool day() {
        const auto year = digits(4, 4);
        if (!year || !skip('-')) return false;
        const auto month = digits(1, 2);
        if (!month || *month < 1 || *month > 12 || !skip('-')) return false;
        const auto day = digits(1, 2);
        if (!day || *day < 1 || *day > 31) return false;
        parts_.tm_year = static_cast<int>(*year - 1900);
        parts_.tm_mon = static_cast<int>(*month - 1);
        parts_.tm_mday = static_cast<int>(*day);
        exact_ = true;
        return true;
    }

    bool time() {
        clear_time();
        const auto hour = digits(1, 2);
        if (!hour || *hour > 23 || !skip(':')) return false;
        const auto minute = digits(2, 2);
        if (!minute || *minute > 59) return false;
        parts_.tm_hour = static_cast<int>(*hour);
        parts_.tm_min = static_cast<int>(*minute);
        if (skip(':')) {
            const auto second = digits(2, 2);
            if (!second || *second > 60) return false;
            parts_.tm_sec = static_cast<int>(*second);
            if ((skip('.') || skip(',')) && !fraction()) return false;
        }
        skip_blanks();
        return zone();
    }

    // Behind a time.
    bool zone() {
        if (word("z") || word("utc") || word("gmt")) {
            offset_ = 0;
            return true;
        }
        if (!next_is('+') && !next_is('-')) return true;
        // "+1 day" is no zone: a zone has two digits for the hours, and nothing but a colon or digits behind them.
        const std::string_view before = text_;
        const bool minus = next_is('-');
        text_.remove_prefix(1);
        const std::size_t n = count_of_digits();
        if (n != 2 && n != 4) {
            text_ = before;
            return true;
        }
        std::int64_t value = *digits(n, n);
        std::int64_t minutes = n == 4 ? value / 100 * 60 + value % 100 : value * 60;
        if (n == 2 && skip(':')) {
            const auto more = digits(2, 2);
            if (!more) return false;
            minutes += *more;
        } else if (n == 2 && next_is(' ')) {
            text_ = before;
            return true;
        }
        if (minutes > 24 * 60) return false;
        offset_ = (minus ? -minutes : minutes) * 60;
        skip_blanks();
        return true;
    }

    // What was read so far is a time.
    bool settle() {
        const std::tm wanted = parts_;
        if (offset_) {
            time_.sec = ::timegm(&parts_) - *offset_;
        } else {
            parts_.tm_isdst = -1;
            time_.sec = ::mktime(&parts_);
        }
        // The 31st of June.
        return !exact_ || (parts_.tm_mday == wanted.tm_mday && parts_.tm_mon == wanted.tm_mon);
    }

    // "+1 day", "2 hours ago", "-3 weeks"
    bool relative() {
        skip_blanks();
        const bool minus = next_is('-');
        if (minus || next_is('+')) text_.remove_prefix(1);
        skip_blanks();
        const auto count = digits(1, 9);
        if (!count) return false;
        skip_blanks();
        struct Unit {
            const char *one, *many;
            int std::tm::* part;
            int factor;
        };
        static constexpr std::array units{
            Unit{"second", "seconds", &std::tm::tm_sec, 1}, Unit{"sec", "secs", &std::tm::tm_sec, 1},
            Unit{"minute", "minutes", &std::tm::tm_min, 1}, Unit{"min", "mins", &std::tm::tm_min, 1},
            Unit{"hour", "hours", &std::tm::tm_hour, 1},    Unit{"day", "days", &std::tm::tm_mday, 1},
            Unit{"week", "weeks", &std::tm::tm_mday, 7},    Unit{"fortnight", "fortnights", &std::tm::tm_mday, 14},
            Unit{"month", "months", &std::tm::tm_mon, 1},   Unit{"year", "years", &std::tm::tm_year, 1}};
        for (const Unit& unit : units) {
            if (!word(unit.many) && !word(unit.one)) continue;
            const bool back = word("ago") != minus;
            std::int64_t change = *count * unit.factor * (back ? -1 : 1);
            // Hours and what is shorter are lengths; days, months and years are of the calendar.
            if (unit.part == &std::tm::tm_sec || unit.part == &std::tm::tm_min || unit.part == &std::tm::tm_hour) {
                time_.sec += change * (unit.part == &std::tm::tm_sec ? 1 : unit.part == &std::tm::tm_min ? 60 : 3600);
                return true;
            }
            if (change > 1'000'000 || change < -1'000'000) return false;
            std::tm parts = local_parts(time_.sec);
            parts.*unit.part += static_cast<int>(change);
            parts.tm_isdst = -1;
            time_.sec = ::mktime(&parts);
            return true;
        }
        return false;
    }

    std::string_view text_;
    format::Timestamp time_;
    std::tm parts_{};
    std::optional<std::int64_t> offset_;
    bool exact_ = false;
};

}  // namespace

void load_time_zone() { ::tzset(); }

format::Timestamp stamp(const timespec& time) { return {time.tv_sec, static_cast<std::uint32_t>(time.tv_nsec)}; }

std::string local_time(format::Timestamp time, const std::string& format) {
    std::string plain;
    for (std::size_t i = 0; i < format.size(); ++i) {
        if (format[i] != '%' || i + 1 == format.size()) plain += format[i];
        else if (format[++i] == 'N') plain += fmt::format("{:09}", time.nsec);
        else plain += std::string{'%', format[i]};
    }
    return converted(local_parts(time.sec), plain);
}

std::string iso_time(format::Timestamp time) {
    std::string text = local_time(time, "%Y-%m-%dT%H:%M:%S.%N%z");
    if (text.size() > 2) text.insert(text.size() - 2, ":");
    return text;
}

std::string full_time(format::Timestamp time) { return local_time(time, "%Y-%m-%d %H:%M:%S.%N %z"); }

TimeStyle::TimeStyle(const std::string& word) {
    if (word.starts_with('+')) {
        const std::size_t line = word.find('\n');
        other_ = word.substr(1, line == std::string::npos ? line : line - 1);
        recent_ = line == std::string::npos ? other_ : word.substr(line + 1);
    } else if (word == "full-iso") {
        recent_ = other_ = "%Y-%m-%d %H:%M:%S.%N %z";
    } else if (word == "long-iso") {
        recent_ = other_ = "%Y-%m-%d %H:%M";
    } else if (word == "iso") {
        recent_ = "%m-%d %H:%M";
        other_ = "%Y-%m-%d ";
    } else if (word.empty() || word == "locale") {
        recent_ = "%b %e %H:%M";
        other_ = "%b %e  %Y";
    } else {
        fail_with(exit_failure, fmt::format("time style '{}' is not full-iso, long-iso, iso, locale or +FORMAT", word));
    }
}

std::string TimeStyle::text(format::Timestamp time, format::Timestamp now) const {
    constexpr std::int64_t half_a_year = 31556952 / 2;
    const auto pair = [](format::Timestamp t) { return std::pair(t.sec, t.nsec); };
    const format::Timestamp begin{now.sec - half_a_year, now.nsec};
    const bool is_recent = pair(begin) < pair(time) && pair(time) <= pair(now);
    return local_time(time, is_recent ? recent_ : other_);
}

std::optional<format::Timestamp> parse_date(const std::string& text, format::Timestamp now) {
    return DateReader(text, now).all();
}

std::optional<format::Timestamp> parse_touch_stamp(const std::string& text, format::Timestamp now) {
    std::string_view digits = text;
    int second = 0;
    const auto two = [](std::string_view of) {
        int value = 0;
        const std::string digits_of(of.substr(0, 2));
        std::from_chars(digits_of.data(), digits_of.data() + digits_of.size(), value);
        return value;
    };
    const auto all_digits = [](std::string_view of) {
        return of.find_first_not_of("0123456789") == std::string_view::npos;
    };
    if (const std::size_t dot = digits.find('.'); dot != std::string_view::npos) {
        const std::string_view seconds = digits.substr(dot + 1);
        if (seconds.size() != 2 || !all_digits(seconds)) return {};
        second = two(seconds);
        digits = digits.substr(0, dot);
    }
    if ((digits.size() != 8 && digits.size() != 10 && digits.size() != 12) || !all_digits(digits)) return {};
    std::tm parts = local_parts(now.sec);
    if (digits.size() == 12) parts.tm_year = two(digits) * 100 + two(digits.substr(2)) - 1900;
    // Two digits: 1969 to 2068, as POSIX has it.
    if (digits.size() == 10) parts.tm_year = two(digits) + (two(digits) < 69 ? 100 : 0);
    digits = digits.substr(digits.size() - 8);
    parts.tm_mon = two(digits) - 1;
    parts.tm_mday = two(digits.substr(2));
    parts.tm_hour = two(digits.substr(4));
    parts.tm_min = two(digits.substr(6));
    parts.tm_sec = second;
    parts.tm_isdst = -1;
    const std::tm wanted = parts;
    if (parts.tm_mon < 0 || parts.tm_mon > 11 || parts.tm_mday < 1 || parts.tm_hour > 23 || parts.tm_min > 59 ||
        second > 60)
        return {};
    const std::time_t seconds = ::mktime(&parts);
    if (parts.tm_mday != wanted.tm_mday || parts.tm_mon != wanted.tm_mon) return {};
    return format::Timestamp{seconds, 0};
}

}  // namespace uext4::cli

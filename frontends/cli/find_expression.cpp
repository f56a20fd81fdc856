#include "cli/find_expression.h"

#include "cli/describe.h"
#include "cli/find_print.h"
#include "cli/mode_change.h"
#include "cli/times.h"

#include <fnmatch.h>

#include <charconv>

namespace uext4::cli {

namespace {

constexpr unsigned deepest = 200;  // parentheses and negations
constexpr std::int64_t minute = 60, day = 24 * 60 * minute;

format::Timestamp access_time(const struct stat& st) { return stamp(st.st_atim); }
format::Timestamp modification_time(const struct stat& st) { return stamp(st.st_mtim); }
format::Timestamp change_time(const struct stat& st) { return stamp(st.st_ctim); }

// "5": exactly, "+5": more, "-5": less.
struct NumberTest {
    char sign = 0;
    std::uint64_t number = 0;
    bool is(std::uint64_t value) const {
        return sign == '+' ? value > number : sign == '-' ? value < number : value == number;
    }
};

std::optional<std::uint64_t> whole(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
    return value;
}

std::optional<NumberTest> number_test_of(std::string_view text) {
    NumberTest out;
    if (text.starts_with('+') || text.starts_with('-')) {
        out.sign = text[0];
        text.remove_prefix(1);
    }
    const std::optional<std::uint64_t> number = whole(text);
    if (!number) return {};
    out.number = *number;
    return out;
}

[[noreturn]] void wrong(const std::string& word, const std::string& text, const char* expected) {
    fail_with(exit_failure, fmt::format("{} '{}': expected {}", word, text, expected));
}

NumberTest need_number(const std::string& word, const std::string& text) {
    const std::optional<NumberTest> out = number_test_of(text);
    if (!out) wrong(word, text, "a number, +NUMBER or -NUMBER");
    return *out;
}

// In whole days each begun one does not count; in minutes it does.
bool has_age(format::Timestamp time, format::Timestamp now, const NumberTest& age, std::int64_t unit) {
    using Wide = __int128;
    constexpr Wide second = 1'000'000'000;
    const auto nanoseconds = [](format::Timestamp t) { return Wide{t.sec} * second + t.nsec; };
    const Wide passed = nanoseconds(now) - nanoseconds(time), length = unit * second;
    const Wide begin = Wide{age.number} * length;
    if (age.sign == '-') return passed < begin;
    if (unit == day) return age.sign == '+' ? passed >= begin + length : passed >= begin && passed < begin + length;
    return age.sign == '+' ? passed > begin : passed <= begin && passed > begin - length;
}

bool is_empty(const Found& found) {
    if (S_ISREG(found.st.st_mode)) return found.st.st_size == 0;
    if (!S_ISDIR(found.st.st_mode)) return false;
    bool empty = true;
    Session& s = found.visit.session;
    value_or_fail(s.fs().read_directory(*found.visit.inode, 0,
                                        [&](const DirectoryEntry& e) { return empty = is_dot(std::string(e.name)); }),
                  s.at(found.visit.path));
    return empty;
}

}  // namespace

FindExpression::FindExpression(std::vector<std::string> words, std::function<void(const Found&)> print, bool only_print)
    : words_(std::move(words)), print_(std::move(print)), only_print_(only_print), now_(current_time()) {
    test_ = at_end() ? [](Found&) { return true; } : list();
    if (!at_end()) fail_with(exit_failure, fmt::format("'{}': no parenthesis is open", words_[at_]));
    if (!acts_)
        test_ = [test = std::move(test_), this](Found& found) {
            const bool is = test(found);
            if (is) print_(found);
            return is;
        };
}

std::vector<std::string> FindExpression::references() const {
    std::vector<std::string> out;
    for (const auto& reference : references_) out.push_back(reference->text);
    return out;
}

void FindExpression::look_at_references(Listing& listing, bool follow) {
    for (const auto& reference : references_) reference->st = listing.reference(reference->text, follow);
}

// ---- Operators, the weakest first.

bool FindExpression::skip(const char* word, const char* other) {
    if (!next_is(word) && !next_is(other)) return false;
    ++at_;
    return true;
}

FindExpression::Test FindExpression::list() {
    Test left = any();
    while (skip(",", ","))
        left = [left = std::move(left), right = any()](Found& found) {
            (void)left(found);
            return right(found);
        };
    return left;
}

FindExpression::Test FindExpression::any() {
    std::vector<Test> tests{all()};
    while (skip("-o", "-or")) tests.push_back(all());
    if (tests.size() == 1) return tests.front();
    return [tests = std::move(tests)](Found& found) {
        return std::ranges::any_of(tests, [&](const Test& test) { return test(found); });
    };
}

FindExpression::Test FindExpression::all() {
    std::vector<Test> tests{one()};
    while (!at_end() && !next_is("-o") && !next_is("-or") && !next_is(",") && !next_is(")")) {
        skip("-a", "-and");
        tests.push_back(one());
    }
    if (tests.size() == 1) return tests.front();
    return [tests = std::move(tests)](Found& found) {
        return std::ranges::all_of(tests, [&](const Test& test) { return test(found); });
    };
}

FindExpression::Test FindExpression::one() {
    if (at_end()) fail_with(exit_failure, "the expression ends where a test is expected");
    const std::string word = words_[at_++];
    if (word != "(" && word != "!" && word != "-not") return predicate(word);
    if (++open_ > deepest) fail_with(exit_failure, fmt::format("more than {} parentheses and negations", deepest));
    Test out;
    if (word == "(") {
        if (next_is(")")) fail_with(exit_failure, "'()': expected a test between the parentheses");
        out = list();
        if (!skip(")", ")")) fail_with(exit_failure, "'(': no parenthesis closes it");
    } else {
        out = [test = one()](Found& found) { return !test(found); };
    }
    --open_;
    return out;
}

// ---- Tests.

std::string FindExpression::argument(const std::string& word) {
    if (at_end()) fail_with(exit_failure, fmt::format("{}: an argument is missing", word));
    return words_[at_++];
}

FindExpression::Test FindExpression::predicate(const std::string& word) {
    for (const auto part : {&FindExpression::option, &FindExpression::name_test, &FindExpression::number_test,
                            &FindExpression::time_test, &FindExpression::kind_test, &FindExpression::action})
        if (std::optional<Test> test = (this->*part)(word)) return *test;
    if (word.starts_with('-')) fail_with(exit_failure, fmt::format("unknown predicate '{}' (uext4 find --help)", word));
    fail_with(exit_failure, fmt::format("'{}': expected a test; places come before the expression", word));
}

std::optional<FindExpression::Test> FindExpression::option(const std::string& word) {
    Test always = [](Found&) { return true; };
    if (word == "-depth" || word == "-d") {
        contents_first_ = true;
        return always;
    }
    if (word != "-maxdepth" && word != "-mindepth") return {};
    const std::string text = argument(word);
    const std::optional<std::uint64_t> levels = whole(text);
    if (!levels) wrong(word, text, "a number of levels");
    (word == "-maxdepth" ? most_depth_ : least_depth_) = *levels;
    return always;
}

std::optional<FindExpression::Test> FindExpression::name_test(const std::string& word) {
    const auto matches = [&](int flags, auto text_of) {
        return [pattern = argument(word), flags, text_of](Found& found) {
            return ::fnmatch(pattern.c_str(), text_of(found).c_str(), flags) == 0;
        };
    };
    const auto name = [](Found& found) { return found.visit.name; };
    const auto path = [](Found& found) { return found.visit.path; };
    const auto target = [](Found& found) {
        Session& s = found.visit.session;
        return S_ISLNK(found.st.st_mode) ? value_or_fail(s.fs().read_link(*found.visit.inode), s.at(found.visit.path))
                                         : std::string();
    };
    if (word == "-name") return matches(0, name);
    if (word == "-iname") return matches(FNM_CASEFOLD, name);
    if (word == "-path" || word == "-wholename") return matches(0, path);
    if (word == "-ipath" || word == "-iwholename") return matches(FNM_CASEFOLD, path);
    if (word == "-lname" || word == "-ilname")
        return [is = matches(word == "-ilname" ? FNM_CASEFOLD : 0, target)](Found& found) {
            return S_ISLNK(found.st.st_mode) && is(found);
        };
    return {};
}

std::optional<FindExpression::Test> FindExpression::number_test(const std::string& word) {
    if (word == "-size") return size(argument(word));
    if (word == "-user" || word == "-group") {
        const std::string text = argument(word);
        const std::optional<std::uint64_t> id = whole(text);
        if (!id) wrong(word, text, "a number: owners in an image are numbers");
        return [id = *id, group = word == "-group"](Found& found) {
            return (group ? found.st.st_gid : found.st.st_uid) == id;
        };
    }
    std::uint64_t (*value)(const struct stat&) = nullptr;
    if (word == "-uid") value = [](const struct stat& st) -> std::uint64_t { return st.st_uid; };
    if (word == "-gid") value = [](const struct stat& st) -> std::uint64_t { return st.st_gid; };
    if (word == "-links") value = [](const struct stat& st) -> std::uint64_t { return st.st_nlink; };
    if (word == "-inum") value = [](const struct stat& st) -> std::uint64_t { return st.st_ino; };
    if (!value) return {};
    return [number = need_number(word, argument(word)), value](Found& found) { return number.is(value(found.st)); };
}

FindExpression::Test FindExpression::size(const std::string& text) const {
    std::string number = text;
    std::uint64_t unit = 512;
    if (!text.empty() && (text.back() < '0' || text.back() > '9')) {
        switch (text.back()) {
            case 'c': unit = 1; break;
            case 'w': unit = 2; break;
            case 'b': unit = 512; break;
            case 'k': unit = 1 << 10; break;
            case 'M': unit = 1 << 20; break;
            case 'G': unit = 1 << 30; break;
            default: wrong("-size", text, "a number with c, w, b, k, M or G");
        }
        number.pop_back();
    }
    return [number = need_number("-size", number), unit](Found& found) {
        const auto bytes = static_cast<std::uint64_t>(found.st.st_size);
        return number.is(bytes / unit + (bytes % unit != 0));
    };
}

std::optional<FindExpression::Test> FindExpression::time_test(const std::string& word) {
    struct Kind {
        const char *days, *minutes, *newer;
        Time time;
    };
    static constexpr Kind kinds[] = {{"-mtime", "-mmin", "-newer", modification_time},
                                     {"-atime", "-amin", "-anewer", access_time},
                                     {"-ctime", "-cmin", "-cnewer", change_time}};
    for (const Kind& kind : kinds) {
        if (word == kind.newer) return newer(argument(word), kind.time);
        if (word != kind.days && word != kind.minutes) continue;
        return
            [age = need_number(word, argument(word)), time = kind.time, now = now_,
             unit = word == kind.days ? day : minute](Found& found) { return has_age(time(found.st), now, age, unit); };
    }
    if (word != "-newermt") return {};
    const std::string text = argument(word);
    const std::optional<format::Timestamp> date = parse_date(text, now_);
    if (!date) wrong(word, text, date_forms);
    return [date = *date](Found& found) { return modification_time(found.st) > date; };
}

// Newer than the modification of another file.
FindExpression::Test FindExpression::newer(const std::string& text, Time time) {
    references_.push_back(std::make_shared<Reference>(Reference{text}));
    return [reference = references_.back(), time](Found& found) {
        return time(found.st) > modification_time(reference->st);
    };
}

std::optional<FindExpression::Test> FindExpression::kind_test(const std::string& word) {
    if (word == "-type") return types(argument(word));
    if (word == "-perm") return permissions(argument(word));
    if (word == "-empty") return [](Found& found) { return is_empty(found); };
    if (word == "-true") return [](Found&) { return true; };
    if (word == "-false") return [](Found&) { return false; };
    return {};
}

FindExpression::Test FindExpression::types(const std::string& text) const {
    std::string letters;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool is_letter = std::string_view("fdlcbps").find(text[i]) != std::string_view::npos;
        if (i % 2 == 0 ? !is_letter : text[i] != ',')
            wrong("-type", text, "f, d, l, c, b, p or s, or several with commas");
        if (is_letter) letters += text[i];
    }
    if (text.size() % 2 == 0) wrong("-type", text, "f, d, l, c, b, p or s, or several with commas");
    return [letters](Found& found) { return letters.find(type_letter(found.st.st_mode)) != std::string::npos; };
}

FindExpression::Test FindExpression::permissions(const std::string& text) const {
    const char sign = text.starts_with('-') || text.starts_with('/') ? text[0] : '\0';
    const std::string mode = text.substr(sign ? 1 : 0);
    // "+X" and the like look at what there is, which is nothing.
    const std::uint16_t bits = new_mode(0, mode, false), of_directories = new_mode(0, mode, true);
    return [=](Found& found) {
        const unsigned asked = S_ISDIR(found.st.st_mode) ? of_directories : bits, has = found.st.st_mode & 07777;
        if (sign == '-') return (has & asked) == asked;
        if (sign == '/') return asked == 0 || (has & asked) != 0;
        return has == asked;
    };
}

// ---- Actions.

std::optional<FindExpression::Test> FindExpression::action(const std::string& word) {
    if (word == "-prune")
        return [](Found& found) {
            found.pruned = true;
            return true;
        };
    if (word == "-quit") return [](Found&) -> bool { throw FindQuits{}; };
    std::function<void(const Found&)> act;
    if (word == "-print") act = print_;
    if (word == "-print0")
        act = [](const Found& found) { std::fwrite(found.name.c_str(), 1, found.name.size() + 1, stdout); };
    if (word == "-ls") act = [](const Found& found) { fmt::print("{}\n", find_line(found)); };
    if (word == "-printf")
        act = [format = UserFormat(argument(word), true, find_time_letters)](const Found& found) {
            const std::string text = format.expand([&](const Directive& d) { return find_value(found, d); });
            std::fwrite(text.data(), 1, text.size(), stdout);  // may contain NUL
        };
    if (!act) return {};
    if (only_print_ && word != "-print") fail_with(exit_failure, fmt::format("{}: --json has a form of its own", word));
    acts_ = true;
    return [act = std::move(act)](Found& found) {
        act(found);
        return true;
    };
}

}  // namespace uext4::cli

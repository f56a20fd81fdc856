// ls
#include "cli/describe.h"
#include "cli/listing.h"
#include "cli/options.h"
#include "cli/times.h"
#include "cli/verbs.h"

#include <sys/sysmacros.h>

#include <algorithm>

namespace uext4::cli {

namespace {

struct LsOptions {
    std::vector<std::string> places;
    bool long_form = false, all = false, almost_all = false, directory = false, recursive = false;
    bool inode = false, blocks = false, human = false, reverse = false;
    enum class Sort : std::uint8_t { name, time, size } sort = Sort::name;
    std::string time_style;
    CommonOptions o;

    // Names and numbers of inodes stand in the directory.
    bool needs_inodes() const { return long_form || blocks || recursive || o.json || sort != Sort::name; }
};

// One line of the list.
struct LsRow {
    std::string name, path;
    std::uint64_t number = 0;
    struct stat st{};
    std::string target, error;
    bool access_list = false;
    Json json;
    bool damaged() const { return !error.empty(); }
};

class Columns {
public:
    Columns(const LsOptions& o, const TimeStyle& style, format::Timestamp now) : o_(o), style_(style), now_(now) {}

    std::string size_text(std::uint64_t bytes) const { return o_.human ? human_size(bytes) : std::to_string(bytes); }
    std::string blocks_text(std::uint64_t sectors) const {
        return o_.human ? human_size(sectors * 512) : std::to_string((sectors + 1) / 2);
    }

    // Columns are as wide as the widest of what is in them, and of this.
    void measure(const LsRow& row);
    // In a line of its own each.
    void print(const std::vector<LsRow>& rows) {
        for (const LsRow& row : rows) measure(row);
        for (const LsRow& row : rows) {
            std::string line;
            if (o_.inode) line += fmt::format("{:>{}} ", row.number, inode_);
            if (o_.blocks) line += fmt::format("{:>{}} ", row.damaged() ? "?" : blocks_text(sectors(row)), blocks_);
            if (o_.long_form) line += attributes(row);
            line += printable(row.name);
            if (o_.long_form && S_ISLNK(row.st.st_mode)) line += " -> " + printable(row.target);
            fmt::print("{}\n", line);
        }
    }

private:
    static std::uint64_t sectors(const LsRow& row) { return static_cast<std::uint64_t>(row.st.st_blocks); }
    static bool is_device(const LsRow& row) { return S_ISCHR(row.st.st_mode) || S_ISBLK(row.st.st_mode); }

    template <class T>
    static void widen(std::size_t& width, const T& text) {
        width = std::max(width, fmt::formatted_size("{}", text));
    }

    std::string time_of_row(const LsRow& row) const { return style_.text(stamp(row.st.st_mtim), now_); }

    std::string attributes(const LsRow& row) const {
        const char* mark = !access_list_ ? "" : row.access_list ? "+" : " ";
        if (row.damaged())
            return fmt::format("??????????{} {:>{}} {:>{}} {:>{}} {:>{}} {:>{}} ", mark, "?", links_, "?", uid_, "?",
                               gid_, "?", size_, "?", time_);
        std::string size;
        if (is_device(row)) {
            const std::size_t rest = std::max(size_, major_ + 2 + minor_) - 2 - minor_;
            size = fmt::format("{:>{}}, {:>{}}", major(row.st.st_rdev), rest, minor(row.st.st_rdev), minor_);
        } else {
            size = fmt::format("{:>{}}", size_text(static_cast<std::uint64_t>(row.st.st_size)), size_);
        }
        return fmt::format("{}{} {:>{}} {:>{}} {:>{}} {} {} ", mode_text(static_cast<std::uint16_t>(row.st.st_mode)),
                           mark, row.st.st_nlink, links_, row.st.st_uid, uid_, row.st.st_gid, gid_, size,
                           time_of_row(row));
    }

    const LsOptions& o_;
    const TimeStyle& style_;
    format::Timestamp now_;
    std::size_t inode_ = 1, blocks_ = 1, links_ = 1, uid_ = 1, gid_ = 1, size_ = 1, major_ = 0, minor_ = 0, time_ = 1;
    bool access_list_ = false;
};

void Columns::measure(const LsRow& row) {
    widen(inode_, row.number);
    if (row.damaged()) return;
    widen(blocks_, blocks_text(sectors(row)));
    if (!o_.long_form) return;
    access_list_ |= row.access_list;
    widen(links_, row.st.st_nlink);
    widen(uid_, row.st.st_uid);
    widen(gid_, row.st.st_gid);
    widen(time_, time_of_row(row));
    if (is_device(row)) {
        widen(major_, major(row.st.st_rdev));
        widen(minor_, minor(row.st.st_rdev));
        size_ = std::max(size_, major_ + 2 + minor_);
    } else {
        widen(size_, size_text(static_cast<std::uint64_t>(row.st.st_size)));
    }
}

class Ls {
public:
    explicit Ls(const LsOptions& o)
        : o_(o), style_(o.time_style), now_(current_time()), listing_("ls", o.places, false, o.o) {}

    void run() {
        listing_.each([&](Session& s, const std::string& path) { named(s, path); });
        sort(files_);
        std::ranges::stable_sort(directories_,
                                 [&](const Directory& a, const Directory& b) { return comes_before(a.row, b.row); });
        headings_ = o_.recursive || listing_.count() > 1;
        if (!o_.o.json) {
            Columns columns(o_, style_, now_);
            for (const Directory& d : directories_) columns.measure(d.row);  // as ls(1), which lists them below
            columns.print(files_);
            first_ = files_.empty();
        } else if (headings_) {
            for (LsRow& row : files_) out_.push_back(std::move(row.json));
        } else if (!files_.empty()) {
            out_.push_back(std::move(files_.front().json));
        }
        for (Directory& d : directories_)
            listing_.attempt(d.s->at(d.row.path), [&] { directory(*d.s, *d.inode, d.row.path); });
        if (o_.o.json && (headings_ || !files_.empty() || !directories_.empty())) print(out_);
        files_.clear();
        directories_.clear();
        listing_.finish();
    }

private:
    struct Directory {
        Session* s;
        InodeRef inode;
        LsRow row;
    };

    // Links to directories are followed where no attributes are asked for, which are the link's own.
    void named(Session& s, const std::string& path) {
        InodeRef inode = s.resolve(path, false);
        if (S_ISLNK(inode->mode()) && !o_.long_form && !o_.directory) {
            if (Result<InodeRef> target = s.fs().resolve(path, operator_identity());
                target && (*target)->is_directory())
                inode = std::move(*target);
        }
        LsRow row;
        row.name = listing_.name(s, path);
        row.path = path;
        row.number = inode->number().value;
        fill(s, row, *inode);
        if (inode->is_directory() && !o_.directory) directories_.push_back({&s, std::move(inode), std::move(row)});
        else files_.push_back(std::move(row));
    }

    void fill(Session& s, LsRow& row, Inode& inode) const {
        row.st = value_or_fail(s.fs().attributes(inode), s.at(row.path));
        if (o_.long_form && S_ISLNK(row.st.st_mode))
            row.target = value_or_fail(s.fs().read_link(inode), s.at(row.path));
        if (o_.long_form) row.access_list = has_access_list(s, inode, row.path);
        if (o_.o.json) row.json = describe(s, row.name, row.path, inode);
    }

    void directory(Session& s, Inode& inode, const std::string& path) {
        const Ancestors::Inside here(above_, s, inode);
        std::optional<std::string> error;
        std::vector<LsRow> rows;
        for (Entry& e : listing_.entries(s, inode, path, error)) {
            if (e.name.starts_with('.') && !o_.all && !o_.almost_all) continue;
            if (is_dot(e.name) && !o_.all) continue;
            LsRow row;
            row.path = below(path, e.name);
            row.name = std::move(e.name);
            row.number = e.inode;
            if (o_.needs_inodes())
                if (const auto damage = listing_.attempt(
                        s.at(row.path), [&] { fill(s, row, *s.inode_of_entry(row.number, row.path)); })) {
                    row.error = *damage;
                    row.st = {};
                    row.json = describe_damaged(row.name, row.number, *damage);
                }
            rows.push_back(std::move(row));
        }
        sort(rows);
        if (o_.o.json) add_to_json(s, path, rows, error);
        else print_directory(s, path, rows);
        if (o_.recursive)
            for (const LsRow& row : rows)
                if (S_ISDIR(row.st.st_mode) && !is_dot(row.name))
                    listing_.attempt(s.at(row.path),
                                     [&] { directory(s, *s.inode_of_entry(row.number, row.path), row.path); });
    }

    void add_to_json(Session& s, const std::string& path, std::vector<LsRow>& rows,
                     const std::optional<std::string>& error) {
        Json entries = Json::array();
        for (LsRow& row : rows) entries.push_back(std::move(row.json));
        if (!headings_) {
            out_ = std::move(entries);
            return;
        }
        Json j;
        set_text(j, "directory", listing_.name(s, path));
        j["entries"] = std::move(entries);
        if (error) j["error"] = *error;
        out_.push_back(std::move(j));
    }

    void print_directory(Session& s, const std::string& path, const std::vector<LsRow>& rows) {
        if (headings_) fmt::print("{}{}:\n", first_ ? "" : "\n", printable(listing_.name(s, path)));
        first_ = false;
        if (o_.long_form || o_.blocks) {
            std::uint64_t sectors = 0;
            for (const LsRow& row : rows) sectors += static_cast<std::uint64_t>(row.st.st_blocks);
            fmt::print("total {}\n", Columns(o_, style_, now_).blocks_text(sectors));
        }
        Columns(o_, style_, now_).print(rows);
    }

    bool comes_before(const LsRow& a, const LsRow& b) const {
        const LsRow &first = o_.reverse ? b : a, &second = o_.reverse ? a : b;
        if (o_.sort == LsOptions::Sort::size && first.st.st_size != second.st.st_size)
            return first.st.st_size > second.st.st_size;
        if (o_.sort == LsOptions::Sort::time)
            if (const format::Timestamp x = stamp(first.st.st_mtim), y = stamp(second.st.st_mtim); x != y) return x > y;
        return first.name < second.name;
    }
    void sort(std::vector<LsRow>& rows) const {
        std::ranges::stable_sort(rows, [&](const LsRow& a, const LsRow& b) { return comes_before(a, b); });
    }

    const LsOptions& o_;
    TimeStyle style_;
    format::Timestamp now_;
    Listing listing_;
    Ancestors above_;
    std::vector<LsRow> files_;
    std::vector<Directory> directories_;
    bool headings_ = false, first_ = true;
    Json out_ = Json::array();
};

}  // namespace

void add_ls_verb(CLI::App& app) {
    auto s = std::make_shared<LsOptions>();
    CLI::App* v = app.add_subcommand("ls", "Lists directories, one name a line");
    v->footer("Examples: uext4 ls -la disk.img:/etc   uext4 ls -R disk.img   uext4 ls -lhS disk.img:/var/log");
    long_help_only(v);
    v->add_option("PLACES", s->places, "IMAGE or IMAGE:/path")->required();
    v->add_flag("-l,-n", s->long_form, "With attributes; owners are numbers, times are local");
    add_plain_flag(v, "-1", "One name a line, which is so in any case");
    v->add_flag("-a,--all", s->all, "With names that begin with a dot");
    v->add_flag("-A,--almost-all", s->almost_all, "The same, without . and ..");
    v->add_flag("-d,--directory", s->directory, "Directories themselves, not what is in them");
    v->add_flag("-R,--recursive", s->recursive, "What is below them as well");
    v->add_flag("-i,--inode", s->inode, "With the number of the inode");
    v->add_flag("-s,--size", s->blocks, "With the space that it takes, in KiB");
    v->add_flag("-h,--human-readable", s->human, "Sizes like 1.5K, 23M");
    v->add_flag("-r,--reverse", s->reverse, "In reverse order");
    CLI::Option* time = add_plain_flag(v, "-t", "The newest first");
    CLI::Option* size = add_plain_flag(v, "-S", "The largest first; of -t and -S the last one counts");
    v->add_option("--time-style", s->time_style, "full-iso, long-iso, iso, locale or +FORMAT, as for ls(1)");
    v->add_flag_callback(
        "--full-time",
        [s] {
            s->long_form = true;
            s->time_style = "full-iso";
        },
        "As -l --time-style=full-iso");
    add_common(v, s->o, true, true);
    v->callback([=] {
        for (const CLI::Option* option : v->parse_order()) {
            if (option == time) s->sort = LsOptions::Sort::time;
            if (option == size) s->sort = LsOptions::Sort::size;
        }
        Ls(*s).run();
    });
}

}  // namespace uext4::cli

// df, du
#include "cli/verbs.h"
#include "cli/walk.h"

#include <set>

namespace uext4::cli {

namespace {

// ---- df

struct DfOptions {
    std::vector<std::string> places;
    bool human = false, inodes = false;
    CommonOptions o;
};

std::string percent(std::uint64_t used, std::uint64_t left) {
    const auto all = static_cast<unsigned __int128>(used) + left;
    if (all == 0) return "-";
    const auto whole = static_cast<std::uint64_t>((static_cast<unsigned __int128>(used) * 100 + all - 1) / all);
    return fmt::format("{}%", whole);
}

void disk_free(const DfOptions& o) {
    Listing listing("df", o.places, false, o.o);
    Json all = Json::array();
    std::vector<std::array<std::string, 5>> rows;
    const auto size = [&](std::uint64_t blocks, std::uint64_t block_size) {
        return o.human ? human_size(blocks * block_size) : std::to_string(blocks * (block_size / 1024));
    };
    const auto count = [&](std::uint64_t inodes) {
        std::string text = o.human ? human_size(inodes) : std::to_string(inodes);
        return text;
    };
    listing.each([&](Session& s, const std::string& path) {
        s.resolve(path);
        const struct statvfs v = value_or_fail(s.fs().statistics(), s.image());
        Json j;
        if (listing.several_images()) set_text(j, "image", s.image());
        j.update({{"block_size", v.f_bsize},
                  {"blocks", v.f_blocks},
                  {"free_blocks", v.f_bfree},
                  {"available_blocks", v.f_bavail},
                  {"inodes", v.f_files},
                  {"free_inodes", v.f_ffree}});
        all.push_back(std::move(j));
        const std::uint64_t used = v.f_blocks - v.f_bfree, used_inodes = v.f_files - v.f_ffree;
        if (o.inodes)
            rows.push_back({printable(s.image()), count(v.f_files), count(used_inodes), count(v.f_ffree),
                            percent(used_inodes, v.f_ffree)});
        else
            rows.push_back({printable(s.image()), size(v.f_blocks, v.f_bsize), size(used, v.f_bsize),
                            size(v.f_bavail, v.f_bsize), percent(used, v.f_bavail)});
    });
    if (o.o.json && listing.count() > 1) print(all);
    else if (o.o.json && !all.empty()) print(all.front());
    else if (!rows.empty()) {
        if (o.inodes) rows.insert(rows.begin(), {"Image", "Inodes", "IUsed", "IFree", "IUse%"});
        else rows.insert(rows.begin(), {"Image", o.human ? "Size" : "1K-blocks", "Used", "Available", "Use%"});
        std::array<std::size_t, 5> width{};
        for (const auto& row : rows)
            for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
        for (const auto& row : rows)
            fmt::print("{:<{}} {:>{}} {:>{}} {:>{}} {:>{}}\n", row[0], width[0], row[1], width[1], row[2], width[2],
                       row[3], width[3], row[4], width[4]);
    }
    listing.finish();
}

// ---- du

struct DuOptions {
    std::vector<std::string> places;
    bool summary = false, human = false, all = false, total = false, apparent = false, bytes = false, links = false;
    std::optional<unsigned> depth;
    CommonOptions o;
};

class Du {
public:
    explicit Du(const DuOptions& o) : o_(o), listing_("du", o.places, false, o.o) {
        if (o.summary) depth_ = 0;
        else if (o.depth) depth_ = *o.depth;
    }

    void run() {
        listing_.each([&](Session& s, const std::string& path) {
            sums_.assign(1, 0);
            TreeWalk(listing_, FollowLinks::none)
                .from(s, path, [&](const VisitedFile& v) { return begin(v); }, [&](const VisitedFile& v) { end(v); });
            total_ += sums_.front();
        });
        if (o_.total) line(total_, "total");
        if (o_.o.json) print(out_);
        listing_.finish();
    }

private:
    std::uint64_t bytes_of(const VisitedFile& v) {
        const struct stat st = value_or_fail(v.session.fs().attributes(*v.inode), v.session.at(v.path));
        return static_cast<std::uint64_t>(o_.apparent ? st.st_size : st.st_blocks * 512);
    }

    // What has several names is counted at the first one.
    bool is_counted(const VisitedFile& v) {
        return !o_.links && !seen_.insert({&v.session, v.inode->number().value}).second;
    }

    bool begin(const VisitedFile& v) {
        if (is_counted(v)) return false;
        const std::uint64_t bytes = bytes_of(v);
        if (v.inode->is_directory()) {
            sums_.resize(v.depth + 1);
            sums_.push_back(bytes);  // of this directory and what is in it
            return true;
        }
        sums_[v.depth] += bytes;
        if (v.depth == 0 || (o_.all && v.depth <= depth_)) line(bytes, listing_.name(v.session, v.path));
        return false;
    }

    void end(const VisitedFile& v) {
        const std::uint64_t bytes = sums_[v.depth + 1];
        sums_.resize(v.depth + 1);
        sums_[v.depth] += bytes;
        if (v.depth <= depth_) line(bytes, listing_.name(v.session, v.path));
    }

    void line(std::uint64_t bytes, const std::string& name) {
        if (o_.o.json) {
            Json j;
            set_text(j, "path", name);
            j["bytes"] = bytes;
            out_.push_back(std::move(j));
            return;
        }
        const std::string size = o_.human   ? human_size(bytes)
                                 : o_.bytes ? std::to_string(bytes)
                                            : std::to_string(bytes / 1024 + (bytes % 1024 != 0));
        fmt::print("{}\t{}\n", size, printable(name));
    }

    const DuOptions& o_;
    Listing listing_;
    unsigned depth_ = ~0U;
    std::vector<std::uint64_t> sums_;  // of the place, and of each directory that the walk is in
    std::uint64_t total_ = 0;
    std::set<std::pair<const Session*, std::uint64_t>> seen_;
    Json out_ = Json::array();
};

}  // namespace

void add_disk_use_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<DfOptions>();
        CLI::App* v = app.add_subcommand("df", "Shows used and free space of images");
        v->footer("Example: uext4 df -h disk.img");
        long_help_only(v);
        v->add_option("PLACES", s->places, "IMAGE")->required();
        v->add_flag("-h,--human-readable", s->human, "Sizes like 1.5K, 23M");
        v->add_flag("-i,--inodes", s->inodes, "Inodes instead of space");
        add_common(v, s->o, true, true);
        v->callback([s] { disk_free(*s); });
    }
    {
        auto s = std::make_shared<DuOptions>();
        CLI::App* v = app.add_subcommand("du", "Shows the space that directories take, in KiB");
        v->footer("Examples: uext4 du -sh disk.img:/usr   uext4 du -h -d 1 disk.img");
        long_help_only(v);
        v->add_option("PLACES", s->places, "IMAGE or IMAGE:/path")->required();
        v->add_flag("-s,--summarize", s->summary, "Only what is named");
        v->add_flag("-h,--human-readable", s->human, "Sizes like 1.5K, 23M");
        v->add_flag("-a,--all", s->all, "Files as well");
        v->add_flag("-c,--total", s->total, "With a sum of all");
        v->add_flag("-l,--count-links", s->links, "What has several names counts at each of them");
        CLI::Option* depth = v->add_option("-d,--max-depth", s->depth, "Only what is so many levels below, or fewer");
        v->add_flag("--apparent-size", s->apparent, "What can be read of files, not what they take");
        CLI::Option* bytes = v->add_flag("-b,--bytes", s->bytes, "As --apparent-size, in bytes");
        add_common(v, s->o, true, true);
        v->callback([=] {
            if (s->summary && s->all) fail_with(exit_failure, "either -s or -a");
            if (s->summary && depth->count() != 0 && *s->depth != 0) fail_with(exit_failure, "either -s or -d");
            if (bytes->count() != 0) s->apparent = true;
            Du(*s).run();
        });
    }
}

}  // namespace uext4::cli

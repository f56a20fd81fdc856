// ls, tree, stat, df, fiemap.
#include "cli/session.h"

#include <dirent.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <functional>

namespace uext4::cli {

namespace {

struct Entry {
    std::string name;
    std::uint64_t inode = 0;
};

// A listing that damage does not end: what cannot be read is told, the rest is listed, and the exit code says so.
class Listing {
public:
    Listing(Session& s, const char* verb) : s_(s), verb_(verb) {}

    // What kept `part` from being done at a place, which was told; nothing, if it was done.
    std::optional<std::string> attempt(const std::string& place, const std::function<void()>& part) {
        try {
            part();
            return {};
        } catch (const Failure& failure) {
            fmt::print(stderr, "uext4 {}: {}\n", verb_, told(failure.what));
            code_ = std::max(code_, failure.code);
            const std::string begin = s_.at(place) + ": ";
            return failure.what.substr(failure.what.starts_with(begin) ? begin.size() : 0);
        }
    }

    // In the order of their names; `error`: why these are not all.
    std::vector<Entry> entries(Inode& directory, const std::string& place, std::optional<std::string>& error) {
        std::vector<Entry> out;
        const auto add = [&](const DirectoryEntry& e) {
            out.push_back({std::string(e.name), e.inode.value});
            return true;
        };
        error = attempt(place, [&] { need(s_.fs().read_directory(directory, 0, add), s_.at(place)); });
        std::ranges::sort(out, {}, &Entry::name);
        return out;
    }

    // Last of all.
    void finish() const {
        if (code_ != fine) give_up(code_, "");
    }

private:
    Session& s_;
    const char* verb_;
    int code_ = fine;
};

format::Timestamp stamp(const timespec& t) { return {t.tv_sec, static_cast<std::uint32_t>(t.tv_nsec)}; }

Json describe(Session& s, const std::string& name, const std::string& place, Inode& inode) {
    const struct stat st = need(s.fs().attributes(inode), s.at(place));
    Json j;
    set_text(j, "name", name);
    j.update({{"inode", st.st_ino},
              {"mode", mode_text(static_cast<std::uint16_t>(st.st_mode))},
              {"links", st.st_nlink},
              {"uid", st.st_uid},
              {"gid", st.st_gid},
              {"size", st.st_size},
              {"blocks", st.st_blocks},
              {"atime", time_text(stamp(st.st_atim))},
              {"mtime", time_text(stamp(st.st_mtim))},
              {"ctime", time_text(stamp(st.st_ctim))}});
    if (const std::optional<format::Timestamp> born = s.fs().birth_time(inode)) j["btime"] = time_text(*born);
    if (S_ISLNK(st.st_mode)) set_text(j, "target", need(s.fs().read_link(inode), s.at(place)));
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        j["device"] = fmt::format("{}:{}", major(st.st_rdev), minor(st.st_rdev));
    return j;
}

void print_long(const Json& j) {
    std::string extra;
    if (j.contains("target")) extra = " -> " + shown(j["target"].get<std::string>());
    const std::string size =
        j.contains("device") ? j["device"].get<std::string>() : std::to_string(j["size"].get<std::uint64_t>());
    fmt::print("{:>8} {} {:>4} {:>6} {:>6} {:>12} {} {}{}\n", j["inode"].get<std::uint64_t>(),
               j["mode"].get<std::string>(), j["links"].get<std::uint64_t>(), j["uid"].get<std::uint64_t>(),
               j["gid"].get<std::uint64_t>(), size, j["mtime"].get<std::string>().substr(0, 19),
               shown(j["name"].get<std::string>()), extra);
}

Json describe_damaged(const Entry& e, const std::string& error) {
    Json j;
    set_text(j, "name", e.name);
    j["inode"] = e.inode;
    j["error"] = error;
    return j;
}

// As ls(1) shows what it cannot look at.
void print_damaged(const Entry& e) {
    fmt::print("{:>8} ?????????? {:>4} {:>6} {:>6} {:>12} {:>19} {}\n", e.inode, "?", "?", "?", "?", "?",
               shown(e.name));
}

void list(const std::string& place, bool long_form, bool all, const CommonOptions& o) {
    const Place p = image_place(place);
    Session s(p.image, false, o);
    Listing listing(s, "ls");
    {
        InodeRef inode = s.resolve(p.path, !long_form);  // of a link, the attributes asked for are its own
        Json out = Json::array();
        auto show = [&](const std::string& name, const std::string& path, Inode& i) {
            if (o.json) out.push_back(describe(s, name, path, i));
            else if (long_form) print_long(describe(s, name, path, i));
            else fmt::print("{}\n", shown(name));
        };
        if (!inode->is_directory()) {
            show(p.path, p.path, *inode);
        } else {
            std::optional<std::string> error;
            for (const Entry& e : listing.entries(*inode, p.path, error)) {
                if (!all && (e.name == "." || e.name == "..")) continue;
                if (!o.json && !long_form) {
                    fmt::print("{}\n", shown(e.name));
                    continue;
                }
                const std::string path = below(p.path, e.name);
                error = listing.attempt(path, [&] { show(e.name, path, *s.inode_of_entry(e.inode, path)); });
                if (error && o.json) out.push_back(describe_damaged(e, *error));
                else if (error) print_damaged(e);
            }
        }
        if (o.json) print(out);
    }
    s.close();
    listing.finish();
}

// What lies in a directory, to the end.
class Tree {
public:
    explicit Tree(Session& s) : s_(s), listing_(s, "tree") {}

    // In `j`, if it is not null, its entries, and an error where these are not all; else they are printed.
    void inside(Inode& directory, const std::string& path, const std::string& indent, Json* j) {
        if (j) (*j)["entries"] = Json::array();
        std::optional<std::string> error;
        const std::optional<std::string> ended = listing_.attempt(path, [&] {
            const Ancestors::Inside here(above_, s_, directory);
            std::vector<Entry> list = listing_.entries(directory, path, error);
            std::erase_if(list, [](const Entry& e) { return e.name == "." || e.name == ".."; });
            for (std::size_t i = 0; i < list.size(); ++i) entry(list[i], i + 1 == list.size(), path, indent, j);
        });
        if (j && (ended || error)) (*j)["error"] = ended ? *ended : *error;
    }
    void finish() const { listing_.finish(); }

private:
    void entry(const Entry& e, bool last, const std::string& directory, const std::string& indent, Json* into) {
        const std::string path = below(directory, e.name);
        InodeRef inode;
        const std::optional<std::string> error =
            listing_.attempt(path, [&] { inode = s_.inode_of_entry(e.inode, path); });
        const bool folder = !error && inode->is_directory();
        if (!into) {
            fmt::print("{}{}{}{}\n", indent, last ? "`-- " : "|-- ", shown(e.name), error ? " [damaged]" : "");
            if (folder) inside(*inode, path, indent + (last ? "    " : "|   "), nullptr);
            return;
        }
        Json j;
        set_text(j, "name", e.name);
        j["inode"] = e.inode;
        if (error) j["error"] = *error;
        else if (folder) inside(*inode, path, {}, &j);
        (*into)["entries"].push_back(std::move(j));
    }

    Session& s_;
    Listing listing_;
    Ancestors above_;
};

void stat_place(const std::string& place, bool follow, const CommonOptions& o) {
    const Place p = image_place(place);
    Session s(p.image, false, o);
    {
        InodeRef inode = s.resolve(p.path, follow);
        const Json j = describe(s, p.path, p.path, *inode);
        if (o.json) print(j);
        else print_members(j, 8);
    }
    s.close();
}

void disk_free(const std::string& place, const CommonOptions& o) {
    const Place p = image_place(place);
    Session s(p.image, false, o);
    s.resolve(p.path);
    const struct statvfs v = need(s.fs().statistics(), p.image);
    const Json j{{"block_size", v.f_bsize},        {"blocks", v.f_blocks}, {"free_blocks", v.f_bfree},
                 {"available_blocks", v.f_bavail}, {"inodes", v.f_files},  {"free_inodes", v.f_ffree}};
    if (o.json) {
        print(j);
    } else {
        const std::uint64_t k = v.f_bsize / 1024;
        fmt::print("{:>14} {:>14} {:>14} {:>10} {:>10}\n", "1K-blocks", "used", "available", "inodes", "free");
        fmt::print("{:>14} {:>14} {:>14} {:>10} {:>10}\n", v.f_blocks * k, (v.f_blocks - v.f_bfree) * k, v.f_bavail * k,
                   v.f_files, v.f_ffree);
    }
    s.close();
}

void extents(const std::string& place, const CommonOptions& o) {
    const Place p = image_place(place);
    Session s(p.image, false, o);
    {
        InodeRef inode = s.resolve(p.path);
        const mode_t mode = inode->mode();
        if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode))
            give_up(negative, s.at(p.path) + ": is a device, fifo or socket, which has no extents");
        Json out = Json::array();
        const std::uint64_t bs = s.fs().volume().geometry().block_size;
        need(s.fs().extents(*inode, 0, ~std::uint64_t{0} >> 1,
                            [&](const Mapping& m) {
                                Json j{{"offset", m.offset}, {"length", m.length}, {"place", place_name(m.place)}};
                                if (m.has_block()) j["physical"] = m.block.value * bs;
                                if (!o.json)
                                    fmt::print("{:>16} {:>14} {:>16} {}\n", m.offset, m.length,
                                               m.has_block() ? std::to_string(m.block.value * bs) : "-",
                                               place_name(m.place));
                                out.push_back(std::move(j));
                                return true;
                            }),
             s.at(p.path));
        if (o.json) print(out);
    }
    s.close();
}

}  // namespace

void add_listing_verbs(CLI::App& app) {
    struct State {
        std::string place;
        bool long_form = false, all = false, follow = false;
        CommonOptions o;
    };
    auto verb = [&](const char* name, const char* help, const char* example) {
        auto state = std::make_shared<State>();
        CLI::App* v = app.add_subcommand(name, help);
        v->footer(std::string("Example: ") + example);
        v->add_option("PLACE", state->place, "IMAGE or IMAGE:/path")->required();
        add_common(v, state->o, true, true);
        return std::pair(v, state);
    };
    {
        auto [v, s] = verb("ls", "Lists a directory", "uext4 ls -l disk.img:/etc");
        v->add_flag("-l", s->long_form, "With attributes");
        v->add_flag("-a", s->all, "With . and ..");
        v->callback([s] { list(s->place, s->long_form, s->all, s->o); });
    }
    {
        auto [v, s] = verb("tree", "Lists everything below a directory", "uext4 tree disk.img:/etc");
        v->callback([s] {
            const Place p = image_place(s->place);
            Session session(p.image, false, s->o);
            Tree tree(session);
            {
                InodeRef inode = session.resolve(p.path);
                if (!inode->is_directory()) give_up(negative, session.at(p.path) + ": is no directory");
                if (!s->o.json) fmt::print("{}\n", shown(p.path));
                Json j;
                tree.inside(*inode, p.path, "", s->o.json ? &j : nullptr);
                if (s->o.json) print(j["entries"]);
            }
            session.close();
            tree.finish();
        });
    }
    {
        auto [v, s] = verb("stat", "Shows what an inode says", "uext4 stat --json disk.img:/etc/passwd");
        v->add_flag("-L", s->follow, "Follow a symbolic link");
        v->callback([s] { stat_place(s->place, s->follow, s->o); });
    }
    {
        auto [v, s] = verb("df", "Shows used and free space", "uext4 df disk.img");
        v->callback([s] { disk_free(s->place, s->o); });
    }
    {
        auto [v, s] = verb("fiemap", "Shows where a file's bytes live", "uext4 fiemap disk.img:/file");
        v->callback([s] { extents(s->place, s->o); });
    }
}

}  // namespace uext4::cli

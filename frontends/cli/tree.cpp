// tree
#include "cli/listing.h"
#include "cli/options.h"
#include "cli/verbs.h"

namespace uext4::cli {

namespace {

struct TreeOptions {
    std::vector<std::string> places;
    unsigned levels = 0;  // 0: all
    bool directories = false;
    CommonOptions o;
};

// What lies in a directory, to the end.
class Tree {
public:
    Tree(Listing& listing, Session& s, const TreeOptions& o) : listing_(listing), s_(s), o_(o) {}

    // In `j`, if it is not null, its entries, and an error where these are not all; else they are printed.
    void inside(Inode& directory, const std::string& path, const std::string& indent, unsigned level, Json* j) {
        if (j) (*j)["entries"] = Json::array();
        std::optional<std::string> error;
        const std::optional<std::string> ended = listing_.attempt(s_.at(path), [&] {
            const Ancestors::Inside here(above_, s_, directory);
            std::vector<Entry> list = listing_.entries(s_, directory, path, error);
            std::erase_if(list, [](const Entry& e) { return is_dot(e.name); });
            if (o_.directories) std::erase_if(list, [&](const Entry& e) { return !is_directory(e, path); });
            for (std::size_t i = 0; i < list.size(); ++i) entry(list[i], i + 1 == list.size(), path, indent, level, j);
        });
        if (j && (ended || error)) (*j)["error"] = ended ? *ended : *error;
    }

private:
    // What cannot be read stays in the list, which tells of it.
    bool is_directory(const Entry& e, const std::string& directory) {
        try {
            return s_.inode_of_entry(e.inode, below(directory, e.name))->is_directory();
        } catch (const Failure&) {
            return true;
        }
    }

    void entry(const Entry& e, bool last, const std::string& directory, const std::string& indent, unsigned level,
               Json* into) {
        const std::string path = below(directory, e.name);
        InodeRef inode;
        const std::optional<std::string> error =
            listing_.attempt(s_.at(path), [&] { inode = s_.inode_of_entry(e.inode, path); });
        const bool enters = !error && inode->is_directory() && level != o_.levels;
        if (!into) {
            fmt::print("{}{}{}{}\n", indent, last ? "`-- " : "|-- ", printable(e.name), error ? " [damaged]" : "");
            if (enters) inside(*inode, path, indent + (last ? "    " : "|   "), level + 1, nullptr);
            return;
        }
        Json j;
        set_text(j, "name", e.name);
        j["inode"] = e.inode;
        if (error) j["error"] = *error;
        else if (enters) inside(*inode, path, {}, level + 1, &j);
        (*into)["entries"].push_back(std::move(j));
    }

    Listing& listing_;
    Session& s_;
    const TreeOptions& o_;
    Ancestors above_;
};

void print_trees(const TreeOptions& o) {
    Listing listing("tree", o.places, false, o.o);
    Json all = Json::array();
    listing.each([&](Session& s, const std::string& path) {
        InodeRef inode = s.resolve(path);
        if (!inode->is_directory()) fail_with(exit_negative, s.at(path) + ": is no directory");
        Json j;
        set_text(j, "directory", listing.name(s, path));
        if (!o.o.json) fmt::print("{}\n", printable(listing.name(s, path)));
        Tree(listing, s, o).inside(*inode, path, "", 1, o.o.json ? &j : nullptr);
        if (o.o.json) all.push_back(std::move(j));
    });
    if (o.o.json && listing.count() > 1) print(all);
    else if (!all.empty()) print(all.front()["entries"]);
    listing.finish();
}

}  // namespace

void add_tree_verb(CLI::App& app) {
    auto s = std::make_shared<TreeOptions>();
    CLI::App* v = app.add_subcommand("tree", "Lists everything below directories, with names that begin with a dot");
    v->footer("Examples: uext4 tree disk.img:/etc   uext4 tree -d -L 2 disk.img");
    v->add_option("PLACES", s->places, "IMAGE or IMAGE:/path")->required();
    v->add_option("-L", s->levels, "So many levels at most")->check(CLI::Range(1U, 2048U));
    v->add_flag("-d", s->directories, "Directories only");
    add_plain_flag(v, "-a", "Names that begin with a dot as well, which is so in any case");
    add_common(v, s->o, true, true);
    v->callback([s] { print_trees(*s); });
}

}  // namespace uext4::cli

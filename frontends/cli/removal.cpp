// rm.
#include "cli/listing.h"
#include "cli/verbs.h"

namespace uext4::cli {

namespace {

struct RemovalArguments {
    std::vector<std::string> places;
    bool recursive = false, force = false, directories = false, verbose = false;
    CommonOptions o;
};

// Removes what is named in one image.
class Removal {
public:
    Removal(Session& session, const RemovalArguments& arguments, Listing& listing)
        : s_(session), arguments_(arguments), listing_(listing) {}

    void operand(const std::string& path) {
        if (arguments_.force && is_missing(path)) return;
        const FileSystem::Parent place = s_.parent(path);
        // Before what is in it is gone.
        if (place.name == "." || place.name == "..")
            fail_with(exit_negative, fmt::format("{}: \"{}\" cannot be removed", s_.at(path), place.name));
        const bool directory = is_directory(place, path);
        if (arguments_.recursive) {
            tree(*place.directory, place.name, path);
        } else if (directory && arguments_.directories) {
            remove_directory(*place.directory, place.name, path);
        } else if (directory) {
            fail_with(exit_negative,
                      s_.at(path) + ": is a directory (-r removes it and what is in it, -d an empty one)");
        } else {
            unlink(*place.directory, place.name, path);
        }
    }

private:
    // Nothing else that keeps it from being found is passed over.
    bool is_missing(const std::string& path) {
        const Result<InodeRef> there = s_.fs().resolve(path, operator_identity(), false);
        return !there && (there.error().code == ENOENT || there.error().code == ENOTDIR);
    }

    // The end of the verb for "name/" that is none.
    bool is_directory(const FileSystem::Parent& place, const std::string& path) {
        const bool is =
            value_or_fail(s_.fs().lookup(*place.directory, place.name, operator_identity(), false), s_.at(path))
                ->is_directory();
        if (place.slash && !is) fail_with(exit_negative, s_.at(path) + ": is no directory");
        return is;
    }

    void unlink(Inode& directory, const std::string& name, const std::string& path) {
        value_or_fail(s_.fs().unlink(directory, name, operator_identity(), false), s_.at(path));
        if (arguments_.verbose) fmt::print("removed '{}'\n", printable(s_.at(path)));
    }

    void remove_directory(Inode& directory, const std::string& name, const std::string& path) {
        value_or_fail(s_.fs().rmdir(directory, name, operator_identity(), false), s_.at(path));
        if (arguments_.verbose) fmt::print("removed directory '{}'\n", printable(s_.at(path)));
    }

    // In a damaged image a name in the tree may lead to a directory that lies elsewhere, and has other things in it.
    void expect_own(Inode& directory, Inode& inside, const std::string& path) {
        const InodeNr parent =
            value_or_fail(s_.fs().lookup(inside, "..", operator_identity(), false), s_.at(path))->number();
        if (parent != directory.number())
            fail_with(exit_failure, fmt::format("{}: directory inode {} lies in inode {}, and is found in inode {}",
                                                s_.at(path), inside.number(), parent, directory.number()));
    }

    // Whether it is gone. What stays in it was told, and so were those that failed; the others are gone.
    bool tree(Inode& directory, const std::string& name, const std::string& path) {
        InodeRef inode = value_or_fail(s_.fs().lookup(directory, name, operator_identity(), false), s_.at(path));
        if (!inode->is_directory()) {
            unlink(directory, name, path);
            return true;
        }
        expect_own(directory, *inode, path);
        if (!inside(*inode, path)) return false;
        inode = InodeRef();
        remove_directory(directory, name, path);
        return true;
    }

    bool inside(Inode& directory, const std::string& path) {
        const Ancestors::Inside here(above_, s_, directory);
        std::vector<std::string> names;
        const auto add = [&](const DirectoryEntry& e) {
            if (e.name != "." && e.name != "..") names.emplace_back(e.name);
            return true;
        };
        bool all = !listing_.attempt(s_.at(path),
                                     [&] { value_or_fail(s_.fs().read_directory(directory, 0, add), s_.at(path)); });
        for (const std::string& name : names) {
            const std::string place = below(path, name);
            bool gone = false;
            listing_.attempt(s_.at(place), [&] { gone = tree(directory, name, place); });
            all = all && gone;
        }
        return all;
    }

    Session& s_;
    const RemovalArguments& arguments_;
    Listing& listing_;
    Ancestors above_;
};

}  // namespace

void add_removal_verb(CLI::App& app) {
    auto s = std::make_shared<RemovalArguments>();
    CLI::App* v = app.add_subcommand("rm", "Removes files, or trees with -r");
    v->footer("Example: uext4 rm -r disk.img:/tmp/x");
    v->add_option("PLACES", s->places, "IMAGE:/path")->required()->expected(1, -1);
    v->add_flag("-r,-R,--recursive", s->recursive, "Directories and what is in them");
    v->add_flag("-d,--dir", s->directories, "Empty directories");
    v->add_flag("-f,--force", s->force, "No error for what does not exist");
    v->add_flag("-v,--verbose", s->verbose, "Print what was removed");
    add_common(v, s->o, false, false);
    v->callback([s] {
        Listing places("rm", s->places, true, s->o);
        places.each([&](Session& session, const std::string& path) { Removal(session, *s, places).operand(path); });
        places.finish();
    });
}

}  // namespace uext4::cli

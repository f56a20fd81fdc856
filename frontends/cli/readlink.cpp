// readlink
#include "cli/listing.h"
#include "cli/verbs.h"

#include <deque>

namespace uext4::cli {

namespace {

struct ReadlinkOptions {
    std::vector<std::string> places;
    bool canonical = false, no_newline = false, zero = false;
    CommonOptions o;
};

// The parts of a path, the first one in front.
void prepend_parts(std::deque<std::string>& parts, const std::string& path) {
    std::vector<std::string> found;
    std::string part;
    for (const char c : path + "/") {
        if (c != '/') {
            part += c;
        } else if (!part.empty()) {
            found.push_back(std::move(part));
            part.clear();
        }
    }
    parts.insert(parts.begin(), found.begin(), found.end());
}

// Without links, "." and "..". The last part need not be there.
std::string canonical(Session& s, const std::string& path) {
    constexpr int most_links = 40;
    if (path.starts_with('<'))
        fail_with(exit_failure, s.at(path) + ": an inode that is named by its number has no path");
    std::deque<std::string> left;
    prepend_parts(left, path);
    std::vector<std::string> names;
    std::vector<InodeRef> inodes{s.resolve("/")};  // of "/" and of each name
    int links = 0;
    while (!left.empty()) {
        const std::string part = std::move(left.front());
        left.pop_front();
        if (!inodes.back()->is_directory()) fail_with(exit_negative, s.at(path) + ": Not a directory");
        if (part == ".") continue;
        if (part == "..") {
            if (!names.empty()) {
                names.pop_back();
                inodes.pop_back();
            }
            continue;
        }
        InodeRef inode = value_or_fail(s.fs().find(*inodes.back(), part, operator_identity(), false), s.at(path));
        if (!inode && !left.empty()) fail_with(exit_negative, s.at(path) + ": No such file or directory");
        if (inode && S_ISLNK(inode->mode())) {
            if (++links > most_links) fail_with(exit_negative, s.at(path) + ": Too many levels of symbolic links");
            const std::string target = value_or_fail(s.fs().read_link(*inode), s.at(path));
            if (target.starts_with('/')) {
                names.clear();
                inodes.resize(1);
            }
            prepend_parts(left, target);
            continue;
        }
        names.push_back(part);
        if (!inode) break;
        inodes.push_back(std::move(inode));
    }
    std::string out;
    for (const std::string& name : names) out += "/" + name;
    return out.empty() ? "/" : out;
}

void read_links(const ReadlinkOptions& o) {
    Listing listing("readlink", o.places, false, o.o);
    const char end = o.zero ? '\0' : '\n';
    const bool no_end = o.no_newline && listing.count() == 1;
    listing.each([&](Session& s, const std::string& path) {
        std::string out;
        if (o.canonical) {
            out = canonical(s, path);
        } else {
            InodeRef inode = s.resolve(path, false);
            if (!S_ISLNK(inode->mode())) fail_with(exit_negative, s.at(path) + ": is no symbolic link");
            out = value_or_fail(s.fs().read_link(*inode), s.at(path));
        }
        fmt::print("{}", printable(out));
        if (!no_end) std::fputc(end, stdout);
    });
    listing.finish();
}

}  // namespace

void add_readlink_verb(CLI::App& app) {
    auto s = std::make_shared<ReadlinkOptions>();
    CLI::App* v = app.add_subcommand("readlink", "Prints what symbolic links lead to");
    v->footer("Examples: uext4 readlink disk.img:/etc/localtime   uext4 readlink -f disk.img:/bin/sh");
    v->add_option("PLACES", s->places, "IMAGE:/path")->required();
    v->add_flag("-f,--canonicalize", s->canonical, "The path without links, . and ..; its last part need not exist");
    v->add_flag("-n,--no-newline", s->no_newline, "No end of line behind a single one");
    v->add_flag("-z,--zero", s->zero, "A NUL ends each one, not an end of line");
    add_common(v, s->o, true, false);
    v->callback([s] { read_links(*s); });
}

}  // namespace uext4::cli

// OrphanList are made, deleted and cut off by power; the next mount finishes what is left.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>

namespace uext4::explore::orphans {
namespace {

const Credentials root = Credentials::root();

constexpr std::size_t size = 30000;

void prepare(World& w) {
    for (const char* name : {"/f", "/g"}) w.write(*w.open(name, O_CREAT | O_RDWR), 0, size, 'a');
}

// At a cut: of f and g, which are gone for good, and which have to be there.
struct Cut {
    std::string gone, there;
};

// The names are those of a moment that may be, and a file with a name has all its bytes.
void judge(World& w, const Cut& cut) {
    const std::vector<std::string> names = w.names("/");
    std::vector<std::string> wanted{".", ".."};
    for (const std::string name : {"f", "g"}) {
        const bool here = std::ranges::count(names, name) != 0;
        w.require(!here || !cut.gone.contains(name), name + ": an unlinked name is back");
        w.require(here || !cut.there.contains(name), name + " is gone, and nobody had unlinked it");
        if (!here) continue;
        wanted.push_back(name);
        w.require(w.read(*w.open("/" + name), 0, size + 1) == std::string(size, 'a'), name + ": other bytes");
    }
    wanted.emplace_back("lost+found");
    w.require(names == wanted, "the names");
    w.fs().volume().wait_for_deletions();
    w.require_settled();
}

void run(World& w) {
    auto f = w.open("/f");
    auto top = w.expect(w.fs().root(), "root");
    std::string untouched = "fg", unlinked, gone;
    std::vector<Cut> cuts;
    auto unlink = [&](const std::string& name) {
        std::erase(untouched, name[0]);
        w.expect(w.fs().unlink(*top, name, root, false), "unlink");
        unlinked += name;
    };
    auto cut_twice = [&] {
        for (int i = 0; i < 2; ++i) {
            w.pause();
            const std::string before = gone;  // others go on. NOLINT(performance-unnecessary-copy-initialization)
            w.cut_power();
            cuts.push_back({before, untouched});
        }
    };
    w.run({{"unlink",
            [&] {
                unlink("f");
                const std::string before = unlinked;  // as above. NOLINT(performance-unnecessary-copy-initialization)
                w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                gone += before;
                f.reset();
            }},
           {"other", [&] { unlink("g"); }},
           {"cut", cut_twice}});
    top.reset();
    // The mount ends while what is left to be deleted is being deleted, and the next one finds what is left of that.
    w.run({{"remount",
            [&] {
                w.reopen();
                gone = "fg";
            }},
           {"cut", cut_twice}});
    judge(w, {gone, ""});
    std::size_t n = 0;
    w.after_cut([&](World& after) { judge(after, cuts[n++]); });
    w.remount();
    judge(w, {gone, ""});
    w.unmount();
}

const Register registered({"orphans",
                           "orphan processing against remount: space leaked, freed twice, or a name to nothing",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime,background", prepare, run});

}  // namespace
}  // namespace uext4::explore::orphans

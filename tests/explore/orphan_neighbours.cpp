// Deletions and truncations side by side, whose inodes lie beside each other on the list of orphans, while new files
// take the numbers that come free.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::orphan_neighbours {
namespace {

const Credentials root = Credentials::root();
constexpr const char* names[] = {"/a", "/b", "/c"};

void prepare(World& w) {
    for (const char* name : names) w.write(*w.open(name, O_CREAT | O_RDWR), 0, 3000, 'a');
    w.write(*w.open("/long", O_CREAT | O_RDWR), 0, 30000, 'l');
}

void run(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    std::vector<std::unique_ptr<OpenFile>> files;
    for (const char* name : names) {
        files.push_back(w.open(name));
        w.expect(w.fs().unlink(*top, name + 1, root, false), "unlink");
    }
    auto shortened = w.open("/long");
    auto let_go = [&](std::size_t i) {
        return [&w, &files, i] {
            files[i].reset();
            w.fs().volume().wait_for_deletions();
        };
    };
    w.run({{"first", let_go(0)},
           {"second", let_go(1)},
           {"third", let_go(2)},
           {"truncate", [&] { w.expect(shortened->truncate(5000), "truncate"); }},
           {"create", [&] {
                for (const char* name : {"/n1", "/n2", "/n3"}) w.write(*w.open(name, O_CREAT | O_RDWR), 0, 1000, 'n');
            }}});
    shortened.reset();
    w.fs().volume().wait_for_deletions();
    for (const char* name : {"/n1", "/n2", "/n3"})
        w.require(w.read(*w.open(name), 0, 2000) == std::string(1000, 'n'), "a new file is not what was written");
    top.reset();
    w.expect(w.fs().sync(), "sync");
    w.require_settled();
    w.unmount();
}

const Register without({"orphan-numbers",
                        "deletions side by side, neighbours on the list of orphans, while numbers are given out anew",
                        "-t ext4 -O ^has_journal -b 1024 -N 64 8M", "noatime", prepare, run});
const Register with({"orphan-neighbours", "deletions and truncations side by side, neighbours on the list of orphans",
                     "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::orphan_neighbours

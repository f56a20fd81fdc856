// The log is small and everybody wants room in it; handles restart in the middle.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::journal_full {
namespace {

const Credentials root = Credentials::root();

constexpr std::size_t block = 1024, shorter = 5000;

void prepare(World& w) {
    // Every other block, so that freeing them takes many steps.
    auto file = w.open("/f", O_CREAT | O_RDWR);
    for (int i = 0; i < 700; ++i) w.write(*file, static_cast<std::uint64_t>(i) * 2 * block, block, 'a');
}

// Exactly what the three leave, whatever their order.
void judge(World& w) {
    std::string wanted;
    for (int i = 0; wanted.size() < shorter; ++i) wanted.append(block, i % 2 == 0 ? 'a' : '\0');
    wanted.resize(shorter);
    w.require(w.read(*w.open("/f"), 0, 2 * shorter) == wanted, "what stays");
    w.require(w.names("/") == std::vector<std::string>{".", "..", "f", "lost+found", "n0", "n1", "n2"}, "the names");
    for (const char* name : {"/n0", "/n1", "/n2"}) w.require(w.read(*w.open(name), 0, 1).empty(), name);
}

void run(World& w) {
    auto file = w.open("/f");
    auto top = w.expect(w.fs().root(), "root");
    w.run({{"truncate", [&] { w.expect(w.fs().truncate(file->inode(), shorter, root, false), "truncate"); }},
           {"create",
            [&] {
                for (int i = 0; i < 3; ++i)
                    w.expect(w.fs().create(*top, "n" + std::to_string(i), S_IFREG | 0644, 0, "", root, false),
                             "create");
            }},
           {"full", [&] {
                // Handles that ask for nearly all there is make every transaction short.
                Journal& journal = w.fs().volume().fs().journal;
                for (int i = 0; i < 4; ++i) {
                    auto handle = w.expect(journal.start(journal.max_credits() - 8), "start");
                    w.pause();
                    w.expect(handle.restart(journal.max_credits() - 8), "restart");
                }
            }}});
    top.reset();
    file.reset();
    judge(w);
    w.remount();
    judge(w);
    w.unmount();
}

const Register registered({"journal-full", "journal full against handle restart: deadlock, or room that never comes",
                           "-t ext3 -b 1024 -N 64 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::journal_full

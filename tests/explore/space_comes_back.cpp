// Several that fill files and remove them: as long as what is alive fits, nobody is told that there is no space.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::space_comes_back {
namespace {

constexpr unsigned threads = 3, turns = 3;
constexpr std::size_t blocks = 8, block = 1024;

// One file more than there are threads would not fit.
void prepare(World& w) { w.fill_but(threads * blocks + blocks / 2); }

void run(World& w) {
    std::vector<World::Body> all;
    for (unsigned number = 0; number < threads; ++number)
        all.push_back({std::to_string(number), [&w, number] {
                           const std::string name = std::to_string(number),
                                             bytes(blocks * block, static_cast<char>('0' + number));
                           for (unsigned turn = 0; turn < turns; ++turn) {
                               auto file = w.open("/" + name, O_CREAT | O_RDWR);
                               const auto n =
                                   w.expect(file->write(0, std::as_bytes(std::span(bytes))), "what is alive fits");
                               w.require(n == bytes.size(), "a write was cut short");
                               if (turn == number) w.expect(file->sync(false), "fsync");
                               file.reset();
                               w.expect(w.fs().unlink(**w.fs().root(), name, Credentials::root(), false), "unlink");
                           }
                       }});
    w.run(std::move(all));
    w.unmount();
}

constexpr const char* looks_for =
    "I: space that was given up is on its way back: who wants it waits, and is not refused";
constexpr const char* format = "-t ext4 -b 1024 -N 64 -m 0 -J size=1 8M";
const Register here({"space-comes-back", looks_for, format, "noatime", prepare, run});
const Register behind({"space-comes-back-later", looks_for, format, "noatime,background", prepare, run});

}  // namespace
}  // namespace uext4::explore::space_comes_back

// Problem H: what lay behind the new end of a file never shows again.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::truncate_tail {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    w.write(*file, 0, size, 'a');
}

void run(World& w) {
    auto file = w.open("/f");
    auto synced = w.open("/f");
    auto seen = w.open("/f");
    (void)w.read(*seen, 0, size);
    w.run({{"truncate",
            [&] {
                w.expect(file->truncate(5000), "truncate");
                w.expect(file->truncate(size), "grow");
                w.write(*file, 6000, 10, 'b');
            }},
           {"sync", [&] { w.expect(synced->sync(false), "fsync"); }},
           {"cut", [&] {
                w.pause();
                w.cut_power();
            }}});
    auto judge = [](World& after, bool complete) {
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        const std::size_t kept = std::min<std::size_t>(bytes.size(), 5000);
        after.require_bytes("the part that stays", bytes.substr(0, kept), "a");
        if (bytes.size() == size && bytes[5000] == 'a' && !complete) {
            after.require_bytes("not truncated yet", bytes, "a");
            return;
        }
        std::string rest = bytes.substr(kept);
        for (std::size_t i = 0; i < rest.size(); ++i)
            if (rest[i] == 'b' && i >= 1000 && i < 1010) rest[i] = 0;
        after.require_bytes("behind the cut end", rest, std::string_view("\0", 1));
        if (complete) after.require(bytes.size() == size, "the size");
    };
    judge(w, true);
    file.reset(), synced.reset(), seen.reset();
    w.after_cut([&](World& after) { judge(after, false); });
    w.remount();
    judge(w, true);
    w.unmount();
}

const Register registered({"truncate-tail", "H: bytes behind the end of the file come back when it grows",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::truncate_tail

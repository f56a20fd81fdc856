// A file grows by pieces while it is written back: its size on disk never reaches over bytes that are not there.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::append_size {
namespace {

constexpr std::size_t pieces[] = {700, 600, 4096, 5000}, block = 1024;

void prepare(World& w) { w.open("/f", O_CREAT | O_RDWR); }

void run(World& w) {
    // Each piece has bytes of its own.
    std::string wanted;
    for (std::size_t i = 0; i < std::size(pieces); ++i) wanted.append(pieces[i], static_cast<char>('a' + i));
    auto judge = [&](std::string_view what) { w.require(w.read(*w.open("/f"), 0, wanted.size() + 1) == wanted, what); };
    auto file = w.open("/f");
    auto other = w.open("/f");
    struct Sizes {
        std::size_t durable, begun;
    };
    std::size_t begun = 0, done = 0;
    std::vector<Sizes> cuts;
    w.run({{"append",
            [&] {
                for (const std::size_t n : pieces) {
                    begun = done + n;
                    w.write(*file, done, n, wanted[done]);
                    done = begun;
                }
            }},
           {"writeback", [&] {
                for (int i = 0; i < 2; ++i) {
                    const std::size_t durable = done;
                    w.expect(write_back(other->inode()), "writeback");
                    w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                    w.cut_power();
                    cuts.push_back({durable, begun});
                }
            }}});
    file.reset(), other.reset();
    judge("the file");
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, wanted.size() + 1);
        const Sizes sizes = cuts[n++];
        after.require(wanted.starts_with(bytes), "after the cut: bytes that nobody wrote there");
        after.require(bytes.size() >= sizes.durable, "after the cut: what was written back and committed is gone");
        after.require(bytes.size() <= sizes.begun, "after the cut: bytes from later");
        // As far as somebody wrote, or up to a block that waits.
        bool ends = bytes.size() % block == 0;
        for (std::size_t i = 0, at = 0; i < std::size(pieces); ++i) ends = ends || (at += pieces[i]) == bytes.size();
        after.require(ends, "after the cut: a size that nobody made");
    });
    w.remount();
    judge("after a remount");
    w.unmount();
}

const Register registered({"append-size",
                           "J, P4: the size on disk reaches over bytes that came while the file was written back",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::append_size

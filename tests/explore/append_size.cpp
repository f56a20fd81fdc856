// A file grows by pieces while it is written back: its size on disk never reaches over bytes that are not there.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::append_size {
namespace {

constexpr std::size_t pieces[] = {700, 600, 4096, 5000}, block = 1024;

void prepare(World& w) { w.open("/f", O_CREAT | O_RDWR); }

// What the device has behind the end of the file, in its last block.
std::string behind_the_end(World& after) {
    auto file = after.open("/f");
    const std::uint64_t end = file->inode().size_hint(), last = end / block * block;
    BlockNr place;
    after.expect(after.fs().extents(file->inode(), last, block,
                                    [&](const Mapping& m) {
                                        if (m.state == BlockState::mapped) place = m.block + (last - m.offset) / block;
                                        return false;
                                    }),
                 "extents");
    if (end == last || !place) return {};
    std::string bytes(block, 0);
    after.expect(after.device().read(place.value * block, std::as_writable_bytes(std::span(bytes))), "a look");
    return bytes.substr(end - last);
}

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
                std::size_t committed = 0;
                for (int i = 0; i < 2; ++i) {
                    const std::size_t durable = done;
                    w.expect(write_back(other->inode()), "writeback");
                    w.cut_power();
                    cuts.push_back({committed, begun});
                    w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                    w.cut_power();
                    cuts.push_back({durable, begun});
                    committed = durable;
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
        after.require_bytes("behind the end, on the device", behind_the_end(after), std::string_view("\0", 1));
    });
    w.remount();
    judge("after a remount");
    w.unmount();
}

const Register registered({"append-size",
                           "J, P4: the size on disk reaches over bytes that came while the file was written back; the "
                           "device has bytes behind it",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::append_size

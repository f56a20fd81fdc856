// An open, mapped file loses its last name while reclaim wants its folios; the last map lets it go.
#include "tests/explore/mapped.h"

#include <fcntl.h>

#include <optional>

namespace uext4::explore::mapped_unlink {
namespace {

const Credentials root = Credentials::root();
constexpr std::size_t size = 16384;

void prepare(World& w) {
    w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a');
    w.write(*w.open("/big", O_CREAT | O_RDWR), 0, 160 * 1024, 'z');
}

void run(World& w) {
    auto big = w.open("/big");
    auto top = w.expect(w.fs().root(), "root");
    const std::uint64_t free = w.fs().volume().counts().free_blocks;
    (void)w.read(*big, 0, 128 * 1024);
    auto mapped = std::make_unique<Mapped>(w, "/f", size);
    int users = 2;
    auto leave = [&] {
        if (--users == 0) mapped.reset();
    };
    w.run({{"unlink", [&] { w.expect(w.fs().unlink(*top, "f", root, false), "unlink"); }},
           {"store",
            [&] {
                for (std::uint64_t at : {0, 8192}) mapped->store(at, 8, 's');
                w.require_bytes("the store", mapped->load(8192, 8), "s");
                leave();
            }},
           {"load",
            [&] {
                for (std::uint64_t at : {8192, 4096}) w.require_bytes("a load", mapped->load(at, 64), "as");
                leave();
            }},
           {"reclaim", [&] { (void)w.read(*big, 32 * 1024, 128 * 1024); }}});
    w.require(!w.fs().resolve("/f", root), "the name is still there");
    big.reset(), top.reset();
    // The flusher may have had the last reference, and have handed it over just now: the unmount waits for it.
    w.remount();
    w.require_settled();
    w.require(w.fs().volume().counts().free_blocks == free + size / 4096, "its blocks were not given back");
    w.unmount();
}

const Register registered({"mapped-unlink",
                           "unlink of an open mapped file against reclaim: freed while mapped, twice, or never",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,background,tiny-cache", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_unlink

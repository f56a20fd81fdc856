// Problem E, at its other end: data=journal, a folio that its commit has let go of, and reclaim after it, is looked for
// in the journal.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::journaled_takeover {
namespace {

constexpr std::size_t page = 4096, size = 3 * page, others = 24;

void prepare(World& w) {
    w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a');
    w.write(*w.open("/others", O_CREAT | O_RDWR), 0, others * page, 'z');
}

void run(World& w) {
    auto file = w.open("/f");
    auto cached = w.open("/others");
    PageCache& cache = w.fs().volume().fs().pages;
    w.write(*file, 0, size, 'b');
    // The cache is full, and what is in it may go, but for those pages.
    for (std::size_t at = 0; at < others * page && cache.used_bytes() <= cache.limit(); at += page)
        (void)w.read(*cached, at, page);
    w.require(cache.used_bytes() > cache.limit(), "the cache is not full");
    w.run({{"commit", [&] { w.expect(w.fs().volume().fs().journal.commit_all(), "commit"); }},
           {"read", [&] {
                for (int i = 0; i < 2; ++i) {
                    cache.reclaim();
                    w.require_bytes("what was written", w.read(*file, 0, size), "b");
                }
            }}});
    file.reset(), cached.reset();
    w.remount();
    w.require_bytes("a remount", w.read(*w.open("/f"), 0, size), "b");
    w.unmount();
}

const Register registered({"journaled-takeover",
                           "E: a reader of a folio that went as soon as its commit allowed sees older contents",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,data=journal,tiny-cache", prepare, run});

}  // namespace
}  // namespace uext4::explore::journaled_takeover

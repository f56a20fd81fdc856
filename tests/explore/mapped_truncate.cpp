// Truncate against writeback, commit and faults; the file loses its name meanwhile.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore {
namespace {

constexpr std::size_t size = 16384;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto file = w.open("/f");
    auto synced = w.open("/f");
    auto top = w.expect(w.fs().root(), "root");
    {
        Mapped mapped(w, "/f", size);
        w.run({{"store",
                [&] {
                    for (std::uint64_t at : {0, 4096, 8192}) {
                        auto done = mapped.try_store(at, 8, 's');
                        if (!done && (done.error().code != EFAULT || at < 6000)) w.wrong("store: " + done.error().what);
                    }
                }},
               {"truncate", [&] { w.expect(file->truncate(6000), "truncate"); }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }},
               {"commit", [&] { w.expect(w.fs().volume().fs().journal.commit_all(), "commit"); }},
               {"unlink", [&] { w.expect(w.fs().unlink(*top, "f", Credentials::root(), false), "unlink"); }}});
        const std::string bytes = w.read(*file, 0, size);
        w.require(bytes.size() == 6000, "the size");
        w.require_bytes("the first store", bytes.substr(0, 8), "s");
        w.require_bytes("the second store", bytes.substr(4096, 8), "s");
        w.require(bytes == mapped.load(0, 6000), "the map and a read differ");
    }
    file.reset(), synced.reset(), top.reset();
    w.fs().volume().finish_deletions();
    w.unmount();
}

const Register registered({"mapped-truncate",
                           "truncate against writeback, commit and faults; unlink of a mapped file",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M",
                           "noatime,background",
                           prepare,
                           run,
                           {{"shipped", "", 0, ""}}});

}  // namespace
}  // namespace uext4::explore

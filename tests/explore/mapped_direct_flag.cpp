// A file's data goes to the journal from now on, while somebody reads it past the cache: what is stored then is in the
// log alone, and its blocks hold what they held before. Calls that write wait for the direct read; stores do not.
#include "format/constants.h"
#include "tests/explore/mapped.h"

#include <fcntl.h>

namespace uext4::explore::mapped_direct_flag {
namespace {

const Credentials root = Credentials::root();

constexpr std::size_t page = 4096, size = 2 * page;

// All that is free holds what was removed.
void prepare(World& w) {
    {
        auto removed = w.open("/removed", O_CREAT | O_RDWR);
        const struct statvfs free = w.expect(w.fs().statistics(), "statfs");
        w.write(*removed, 0, (free.f_bavail - 8) * free.f_frsize, 'x');
        w.expect(removed->sync(false), "fsync");
    }
    const auto at = w.fs().resolve_parent("/removed", root);
    w.expect(w.fs().unlink(*at->directory, at->name, root, false), "unlink");
    w.expect(w.open("/f", O_CREAT | O_RDWR)->truncate(size), "truncate");
}

void run(World& w) {
    auto flagged = w.open("/f"), direct = w.open("/f", O_RDONLY | O_DIRECT);
    {
        Mapped mapped(w, "/f", size);
        w.run({{"flag",
                [&] {
                    const std::uint32_t flags = w.fs().get_flags(flagged->inode()) | format::inode_flag::journal_data;
                    w.expect(w.fs().set_flags(flagged->inode(), flags, root, false), "chattr");
                    mapped.store(0, page, 'a');
                }},
               {"direct", [&] {
                    for (int i = 0; i < 2; ++i)
                        w.require_bytes("a direct read", w.read(*direct, 0, page), std::string("\0a", 2));
                }}});
        w.require_bytes("a direct read, later", w.read(*direct, 0, page), "a");
    }
    flagged.reset(), direct.reset();
    w.remount();
    w.require_bytes("after a remount", w.read(*w.open("/f"), 0, page), "a");
    w.require_settled();
    w.unmount();
}

const Register registered({"mapped-direct-flag",
                           "D: direct reads of a file that becomes a journaled one see what its blocks held before",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_direct_flag

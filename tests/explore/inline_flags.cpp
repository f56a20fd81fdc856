// Contents that have grown leave the inode when they are written back, while somebody sets flags of the file: both
// change the flags of the inode.
#include "format/constants.h"
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::inline_flags {
namespace {

const Credentials root = Credentials::root();

constexpr std::size_t size = 3000;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, 40, 'a'); }

void run(World& w) {
    namespace f = format::inode_flag;
    auto file = w.open("/f"), synced = w.open("/f"), flagged = w.open("/f");
    w.write(*file, 40, size - 40, 'b');
    w.run({{"flags",
            [&] {
                // The flags of then: contents in the inode have no extents.
                const std::uint32_t flags = w.fs().get_flags(flagged->inode());
                w.expect(w.fs().set_flags(flagged->inode(), flags | f::nodump, root, false), "chattr");
            }},
           {"sync", [&] { w.expect(synced->sync(false), "fsync"); }},
           {"attribute", [&] {
                auto set = w.fs().set_xattr(file->inode(), "user.a", std::as_bytes(std::span("value")), 0, root, false);
                w.expect(std::move(set), "setxattr");
            }}});
    file.reset(), synced.reset(), flagged.reset();
    auto judge = [&] {
        auto seen = w.open("/f");
        w.require((w.fs().get_flags(seen->inode()) & f::nodump) != 0, "the flag is gone");
        w.require((w.fs().get_flags(seen->inode()) & f::extents) != 0, "nobody asked for another kind of map");
        w.require(!seen->inode().is_inline(),
                  "the contents have left the inode, and the flag says that they are there");
        const std::string bytes = w.read(*seen, 0, size + 1);
        w.require(bytes.size() == size, "the size");
        w.require_bytes("the old part", bytes.substr(0, 40), "a");
        w.require_bytes("the new part", bytes.substr(40), "b");
    };
    judge();
    w.remount();
    judge();
    w.unmount();
}

const Register registered({"inline-flags", "A: flags are set while the contents leave the inode: one of both is undone",
                           "-t ext4 -b 1024 -N 64 -O inline_data -I 256 -J size=1 8M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::inline_flags

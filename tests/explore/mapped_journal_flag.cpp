// A file's data goes to the journal from now on, and then no longer, while it is stored to, overwritten and synced.
#include "format/constants.h"
#include "tests/explore/mapped.h"

#include <fcntl.h>

namespace uext4::explore::mapped_journal_flag {
namespace {

const Credentials root = Credentials::root();

constexpr std::size_t page = 4096, size = 2 * page;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto direct = w.open("/f", O_RDWR | O_DIRECT), synced = w.open("/f");
    auto overwrite = [&](char fill) {
        auto memory = std::make_unique<Aligned<page>>();
        std::fill_n(memory->bytes, page, static_cast<std::byte>(fill));
        w.expect(direct->write(page, memory->bytes), "direct write");
    };
    // The first write after a mount takes the long way, for the bits that it may have to remove. Not so the next.
    overwrite('a');
    std::string may_be = "a012", may_be_behind = "abd";
    std::vector<std::array<std::string, 2>> at_cut;
    auto cut = [&] {
        at_cut.push_back({may_be, may_be_behind});
        w.cut_power();
    };
    {
        Mapped mapped(w, "/f", size);
        mapped.store(0, 4, '0');
        w.run({{"flag",
                [&] {
                    const std::uint32_t flags = w.fs().get_flags(synced->inode());
                    for (const std::uint32_t more : {format::inode_flag::journal_data, 0u})
                        w.expect(w.fs().set_flags(synced->inode(), flags | more, root, false), "chattr");
                }},
               {"store",
                [&] {
                    mapped.store(0, 4, '1');
                    w.expect(synced->sync(false), "fsync");
                    may_be = "12";
                    mapped.store(0, 4, '2');
                    w.expect(synced->sync(false), "fsync");
                    may_be = "2";
                }},
               {"direct",
                [&] {
                    overwrite('b');
                    w.require_bytes("a load behind a direct write", mapped.load(page, 64), "b");
                    overwrite('d');
                    w.require_bytes("a read behind a direct write", w.read(*synced, page, page), "d");
                    w.expect(direct->sync(true), "fdatasync");
                    may_be_behind = "d";
                }},
               {"cut", [&] {
                    for (int i = 0; i < 2; ++i) {
                        w.pause();
                        cut();
                    }
                }}});
        cut();
        w.require_bytes("a load, later", mapped.load(0, 4), "2");
        w.require_bytes("a load, later", mapped.load(page, page), "d");
    }
    direct.reset(), synced.reset();
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const auto& [first, second] = at_cut[n++];
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        after.require(bytes.size() == size, "after the cut: the size");
        after.require_bytes("after the cut, what was stored", bytes.substr(0, 4), first);
        after.require_bytes("after the cut, beside it", bytes.substr(4, page - 4), "a");
        after.require_bytes("after the cut, what was overwritten", bytes.substr(page), second);
    });
    w.remount();
    const std::string bytes = w.read(*w.open("/f"), 0, size);
    w.require_bytes("after a remount, what was stored", bytes.substr(0, 4), "2");
    w.require_bytes("after a remount, what was overwritten", bytes.substr(page), "d");
    w.require_settled();
    w.unmount();
}

const Register registered({"mapped-journal-flag",
                           "D: the flag j of a live file is set, and what an fsync promised is lost",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::mapped_journal_flag

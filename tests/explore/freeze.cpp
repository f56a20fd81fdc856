// Problem K: freeze against everything that changes bytes. What is frozen is a clean image, and thaw lets all go on.
#include "tests/explore/freezing.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>

namespace uext4::explore::freeze {
namespace {

const Credentials root = Credentials::root();

constexpr std::size_t size = 9000;
constexpr std::uint64_t block = 1024;

void prepare(World& w) {
    // Of /f all have a part; the others are of one body each.
    for (const char* name : {"/f", "/direct", "/emptied", "/zeroed", "/collapsed", "/inserted", "/flags"})
        w.write(*w.open(name, O_CREAT | O_RDWR), 0, size, 'a');
}

// f after the write, the fallocate, the punch and the truncate, a letter each, in this order.
std::string made_by(std::string_view order) {
    std::string bytes(size, 'a');
    for (const char c : order) {
        if (c == 'w') bytes.resize(std::max<std::size_t>(bytes.size(), 5000)), bytes.replace(0, 5000, 5000, 'b');
        if (c == 'f') bytes.resize(std::max<std::size_t>(bytes.size(), 17000));
        if (c == 'p' && bytes.size() > block) {
            const std::size_t n = std::min<std::size_t>(bytes.size() - block, block);
            bytes.replace(block, n, n, '\0');
        }
        if (c == 't') bytes.resize(4000);
    }
    return bytes;
}

// All has been done, and f is as one of the orders leaves it.
Shown judge(World& w) {
    Shown shown = show(w);
    auto bytes = [&](const char* name) -> const std::string& { return shown.tree[name].contents; };
    const std::string zeros(block, '\0');
    std::string order = "fptw";
    bool possible = false;
    do possible = possible || bytes("/f") == made_by(order);
    while (std::ranges::next_permutation(order).found);
    w.require(possible, "f: no order makes that");
    w.require(bytes("/direct") == std::string(4 * block, 'd') + std::string(size - 4 * block, 'a') +
                                      std::string(16 * block - size, '\0') + std::string(block, 'e'),
              "what was written directly");
    w.require(bytes("/emptied") == std::string(2000, 'n'), "what was emptied and written");
    w.require(bytes("/zeroed") == zeros + std::string(size - block, 'a'), "what was zeroed");
    w.require(bytes("/collapsed") == std::string(size - block, 'a'), "what was cut out");
    w.require(bytes("/inserted") == std::string(block, 'a') + zeros + std::string(size - block, 'a'), "what was moved");
    w.require(bytes("/flags") == std::string(size, 'a'), "a file whose flags changed");
    w.require(shown.tree["/flags"].flags == format::inode_flag::nodump, "the flags");
    return shown;
}

void run(World& w) {
    auto f = w.open("/f"), direct = w.open("/direct", O_RDWR | O_DIRECT), zeroed = w.open("/zeroed");
    auto collapsed = w.open("/collapsed"), inserted = w.open("/inserted"), flagged = w.open("/flags");
    w.write(*direct, 0, 4 * block, 'c');  // knows since then that an overwrite takes no set-id bits
    Freezing freezing(w);
    auto space = [&](OpenFile& file, int mode, std::uint64_t offset, std::uint64_t length) {
        return [&, mode, offset, length] { w.expect(file.fallocate(mode, offset, length), "fallocate"); };
    };
    Inode& inode = flagged->inode();
    auto flip = [&](std::uint32_t flag) {
        w.expect(w.fs().set_flags(inode, w.fs().get_flags(inode) ^ flag, root, false), "chattr");
    };
    w.run({{"freeze",
            [&] {
                freezing.freeze_and_thaw();
                w.pause();
                freezing.freeze_and_thaw();
            }},
           {"bytes",
            [&] {
                freezing.change_all({{"write", [&] { w.write(*f, 0, 5000, 'b'); }},
                                     {"O_TRUNC",
                                      [&] {
                                          auto emptied = w.open("/emptied", O_RDWR | O_TRUNC);
                                          w.write(*emptied, 0, 2000, 'n');
                                      }},
                                     {"trim", [&] { w.expect(w.fs().trim(0), "trim"); }}});
                w.expect(f->sync(false), "fsync");
            }},
           {"direct",
            [&] {
                freezing.change_all({{"direct write", [&] { w.write(*direct, 16 * block, block, 'e'); }},
                                     {"direct overwrite", [&] { w.write(*direct, 0, 4 * block, 'd'); }}});
            }},
           {"space",
            [&] {
                freezing.change_all(
                    {{"fallocate", space(*f, 0, 8000, 9000)},
                     {"punch", space(*f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, block, block)},
                     {"truncate", [&] { w.expect(w.fs().truncate(f->inode(), 4000, root, false), "truncate"); }}});
            }},
           {"ranges",
            [&] {
                freezing.change_all({{"zero", space(*zeroed, FALLOC_FL_ZERO_RANGE, 0, block)},
                                     {"collapse", space(*collapsed, FALLOC_FL_COLLAPSE_RANGE, 2 * block, block)},
                                     {"insert", space(*inserted, FALLOC_FL_INSERT_RANGE, block, block)}});
            }},
           {"flags", [&] {
                auto there_and_back = [&](std::uint32_t flag) { return [&, flag] { flip(flag), flip(flag); }; };
                freezing.change_all({{"flag d", [&] { flip(format::inode_flag::nodump); }},
                                     {"flag e", there_and_back(format::inode_flag::extents)},
                                     {"flag j", there_and_back(format::inode_flag::journal_data)}});
            }}});
    f.reset(), direct.reset(), zeroed.reset(), collapsed.reset(), inserted.reset(), flagged.reset();
    freezing.judge();
    const Shown before = judge(w);
    w.remount();
    const std::string other = before.difference(judge(w));
    w.require(other.empty(), "a remount shows something else: " + other);
    w.unmount();
}

const Register registered({"freeze",
                           "K: bytes change while the file system is frozen, or the thaw leaves somebody behind",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime,background", prepare, run});

}  // namespace
}  // namespace uext4::explore::freeze

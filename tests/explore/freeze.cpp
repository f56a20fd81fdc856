// Problem K: freeze against everything. What is frozen is a clean image, and thaw lets all go on.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>

namespace uext4::explore {
namespace {

const Credentials root = Credentials::root();

constexpr std::size_t size = 9000;

void prepare(World& w) {
    for (const char* name : {"/f", "/g", "/h"}) w.write(*w.open(name, O_CREAT | O_RDWR), 0, size, 'a');
}

// f after the write, the fallocate, the punch (which comes behind it) and the truncate, a letter each, in this order.
std::string made_by(std::string_view order) {
    std::string bytes(size, 'a');
    for (const char c : order) {
        if (c == 'w') bytes.resize(std::max<std::size_t>(bytes.size(), 5000)), bytes.replace(0, 5000, 5000, 'b');
        if (c == 'f') bytes.resize(std::max<std::size_t>(bytes.size(), 17000));
        if (c == 'p' && bytes.size() > 1024) {
            const std::size_t n = std::min<std::size_t>(bytes.size() - 1024, 1024);
            bytes.replace(1024, n, n, '\0');
        }
        if (c == 't') bytes.resize(4000);
    }
    return bytes;
}

// All has been done, and f is as one of the orders leaves it. Returns what is in it.
std::string judge(World& w) {
    std::string bytes = w.read(*w.open("/f"), 0, 20000), order = "fptw";
    bool possible = false;
    do possible = possible || (order.find('f') < order.find('p') && bytes == made_by(order));
    while (std::ranges::next_permutation(order).found);
    w.require(possible, "f: no order makes that");
    w.require(w.read(*w.open("/i"), 0, size + 1) == std::string(size, 'a'), "what was h");
    auto top = w.expect(w.fs().root(), "root");
    w.require(w.names("/") == std::vector<std::string>{".", "..", "d", "f", "i", "lost+found"}, "the names");
    w.require(w.names("/d") == std::vector<std::string>{".", ".."}, "d's names");
    const auto value = w.expect(w.fs().get_xattr(*top, "user.a", root, false), "getxattr");
    w.require(std::ranges::equal(value, std::as_bytes(std::span("value"))), "the attribute");
    return bytes;
}

void run(World& w) {
    auto f = w.open("/f");
    auto top = w.expect(w.fs().root(), "root");
    w.run({{"freeze",
            [&] {
                w.expect(w.fs().freeze(), "freeze");
                w.cut_power();
                w.pause();
                w.cut_power();
                w.expect(w.fs().thaw(), "thaw");
            }},
           {"write",
            [&] {
                w.write(*f, 0, 5000, 'b');
                w.expect(f->sync(false), "fsync");
            }},
           {"names",
            [&] {
                w.expect(w.fs().unlink(*top, "g", root, false), "unlink");
                w.expect(w.fs().rename(*top, "h", *top, "i", 0, root, false), "rename");
            }},
           {"attributes",
            [&] {
                auto set = w.fs().set_xattr(*top, "user.a", std::as_bytes(std::span("value")), 0, root, false);
                w.expect(std::move(set), "setxattr");
                w.expect(w.fs().create(*top, "d", S_IFDIR | 0755, 0, "", root, false), "mkdir");
                w.expect(w.fs().sync(), "sync");
            }},
           {"space",
            [&] {
                w.expect(f->fallocate(0, 8000, 9000), "fallocate");
                w.expect(f->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1024, 1024), "punch");
            }},
           {"truncate", [&] { w.expect(w.fs().truncate(f->inode(), 4000, root, false), "truncate"); }}});
    f.reset();
    top.reset();
    w.compare_cuts_clean();
    const std::string before = judge(w);
    w.remount();
    w.require(judge(w) == before, "a remount shows other bytes");
    w.unmount();
}

const Register registered({"freeze",
                           "K: something changes the device while it is frozen, or the thaw leaves somebody behind",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M", "noatime,background", prepare, run});

}  // namespace
}  // namespace uext4::explore

// Truncate against writeback, commit and faults: of a file that loses its name meanwhile, of one whose stores are
// looked for on the device, and of one that grows again over what was cut off.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore::mapped_truncate {
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
    w.fs().volume().wait_for_deletions();
    w.unmount();
}

const Register registered({"mapped-truncate", "truncate against writeback, commit and faults; unlink of a mapped file",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,background", prepare, run});

// ---- what was stored and synced is on the device

void run_synced(World& w) {
    auto file = w.open("/f");
    auto other = w.open("/f");
    auto synced = w.open("/f");
    bool durable = false;
    std::vector<bool> was_durable;
    // Two stores to a page each: between them it may be written back, and clean.
    auto judge = [&](World& seen, const std::string& bytes, bool all) {
        for (std::size_t at : {0, 4096}) {
            const std::string first = bytes.substr(at, 8), second = bytes.substr(at + 16, 8);
            seen.require(first == std::string(8, 's') || (!all && first == std::string(8, 'a')), "the first store");
            seen.require(second == std::string(8, 't') || (!all && second == std::string(8, 'a')), "the second store");
            seen.require_bytes("between them", bytes.substr(at + 8, 8), "a");
            seen.require_bytes("behind them", bytes.substr(at + 24, 1000), "a");
        }
        seen.require_bytes("the end", bytes.substr(5200, 800), "a");
    };
    {
        Mapped mapped(w, "/f", size);
        w.run({{"store",
                [&] {
                    for (auto [inside, mark] : {std::pair{0, 's'}, std::pair{16, 't'}})
                        for (std::uint64_t at : {0, 4096}) mapped.store(at + static_cast<unsigned>(inside), 8, mark);
                    w.expect(synced->sync(false), "msync");
                    durable = true;
                }},
               {"truncate", [&] { w.expect(file->truncate(6000), "truncate"); }},
               {"sync", [&] { w.expect(other->sync(false), "fsync"); }},
               {"commit", [&] { w.expect(w.fs().volume().fs().journal.commit_all(), "commit"); }},
               {"cut", [&] {
                    w.pause();
                    was_durable.push_back(durable);
                    w.cut_power();
                }}});
        was_durable.push_back(durable);
        w.cut_power();
        const std::string bytes = w.read(*file, 0, size);
        w.require(bytes.size() == 6000, "the size");
        judge(w, bytes, true);
        w.require(bytes == mapped.load(0, 6000), "the map and a read differ");
    }
    file.reset(), other.reset(), synced.reset();
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, size);
        after.require(bytes.size() == 6000 || bytes.size() == size, "after the cut, a size that nobody made");
        judge(after, bytes, was_durable[n++]);
        after.require_bytes("after the cut, behind it", bytes.substr(6000), "a");
    });
    w.remount();
    const std::string bytes = w.read(*w.open("/f"), 0, size);
    w.require(bytes.size() == 6000, "the size after a remount");
    judge(w, bytes, true);
    w.unmount();
}

const Register on_the_device({"mapped-truncate-synced",
                              "truncate against writeback, commit and faults: stores that were synced are lost",
                              "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,background", prepare, run_synced});

// ---- what was cut off does not come back

void run_regrown(World& w) {
    constexpr std::size_t cut = 6000;
    auto file = w.open("/f");
    auto synced = w.open("/f");
    const auto judge = [&](const std::string& bytes) {
        w.require(bytes.size() == size, "the size");
        w.require_bytes("before the cut", bytes.substr(0, cut), "as");
        w.require_bytes("behind the cut", bytes.substr(cut), std::string_view("\0", 1));
    };
    {
        Mapped mapped(w, "/f", size);
        w.run({{"store",
                [&] {
                    for (std::uint64_t at : {4096, 8192, 12288}) {
                        auto done = mapped.try_store(at, 8, 's');
                        if (!done && (done.error().code != EFAULT || at < cut)) w.wrong("store: " + done.error().what);
                    }
                }},
               {"truncate", [&] { w.expect(file->truncate(cut), "truncate"); }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }}});
        w.expect(file->truncate(size), "truncate");
        const std::string bytes = w.read(*file, 0, size);
        judge(bytes);
        w.require(bytes == mapped.load(0, size), "the map and a read differ");
    }
    w.expect(synced->sync(false), "fsync");
    file.reset(), synced.reset();
    w.remount();
    judge(w.read(*w.open("/f"), 0, size));
    w.unmount();
}

const Register regrown({"mapped-truncate-grow",
                        "truncate against stores and writeback: what was cut off is in the file that grows again",
                        "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run_regrown});

}  // namespace
}  // namespace uext4::explore::mapped_truncate

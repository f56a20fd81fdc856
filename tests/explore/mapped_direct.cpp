// Problem C: direct input and output against a map of the same file.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <optional>

namespace uext4::explore::mapped_direct {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto direct = w.open("/f", O_RDWR | O_DIRECT);
    {
        // The first write after a mount takes the long way, for the bits that it may have to remove. Not so the next.
        auto memory = std::make_unique<Aligned<4096>>();
        std::fill_n(memory->bytes, 4096, std::byte{'a'});
        w.expect(direct->write(4096, memory->bytes), "direct write");
    }
    {
        Mapped mapped(w, "/f", size);
        w.run({{"direct",
                [&] {
                    auto memory = std::make_unique<Aligned<4096>>();
                    std::fill_n(memory->bytes, 4096, std::byte{'d'});
                    w.expect(direct->write(4096, memory->bytes), "direct write");
                    w.require_bytes("a load behind a direct write", mapped.load(4096, 64), "d");
                }},
               {"store", [&] { mapped.store(10, 4, 's'); }},
               {"load", [&] { w.require_bytes("a load", mapped.load(4096, 64), "ad"); }}});
        auto memory = std::make_unique<Aligned<4096>>();
        w.expect(direct->read(0, memory->bytes), "direct read");
        w.require(memory->bytes[10] == std::byte{'s'}, "a direct read misses a store");
        w.require_bytes("a load, later", mapped.load(4096, 4096), "d");
    }
    direct.reset();
    w.remount();
    w.require_bytes("the store", w.read(*w.open("/f"), 10, 4), "s");
    w.require_bytes("the direct write", w.read(*w.open("/f"), 4096, 4096), "d");
    w.unmount();
}

const Register registered({"mapped-direct", "C: direct and mapped views of one file differ; P6",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

// ---- a direct read into the map of what is read, where nothing is cached yet

void prepare_hole(World& w) { w.expect(w.open("/f", O_CREAT | O_RDWR)->truncate(size), "truncate"); }

void run_into_itself(World& w) {
    auto file = w.open("/f");
    auto punched = w.open("/f");
    auto synced = w.open("/f");
    // A hole, and a page that has no block yet.
    w.write(*file, 4096, 4096, 'd');
    auto judge = [&](const std::string& bytes) {
        w.require(bytes.size() == size, "the size");
        w.require_bytes("the hole", bytes.substr(0, 4096), std::string_view("\0", 1));
        // The copy of older bytes does not come behind the write.
        w.require_bytes("what was written beside the read", bytes.substr(4096, 100), "e");
        w.require_bytes("what was written before", bytes.substr(4196, 2000), "d");
        w.require_bytes("what was punched beside the read", bytes.substr(6196, 1000), std::string_view("\0", 1));
        w.require_bytes("the end", bytes.substr(7196), "d");
    };
    {
        Mapped mapped(w, "/f", size);
        w.run({{"direct", [&] { mapped.read_direct_into(0, size, 0); }},
               {"write", [&] { w.write(*file, 4096, 100, 'e'); }},
               {"punch",
                [&] {
                    w.expect(punched->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), "punch");
                    w.expect(punched->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 6196, 1000), "punch");
                }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }},
               {"load", [&] {
                    w.require_bytes("a load of the hole", mapped.load(0, 64), std::string_view("\0", 1));
                    w.require_bytes("a load of what was written", mapped.load(4096, 64), "de");
                }}});
        judge(mapped.load(0, size));
        judge(w.read(*file, 0, size));
    }
    file.reset(), punched.reset(), synced.reset();
    w.remount();
    judge(w.read(*w.open("/f"), 0, size));
    w.unmount();
}

const Register into_itself({"mapped-direct-read",
                            "C: a direct read of a file into its own map, over a hole and over what has no block yet",
                            "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare_hole, run_into_itself});

}  // namespace
}  // namespace uext4::explore::mapped_direct

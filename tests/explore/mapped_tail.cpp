// Problem H: stores behind the end of the file, in its last page, while it shrinks and grows. A store behind which
// the file was still short is never in the file; one before which it was long is; in between either may be.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <memory>

namespace uext4::explore::mapped_tail {
namespace {

constexpr std::size_t page = 4096, first_size = 5000, shortest = 4500, at = 5500, length = 10;
constexpr std::string_view zero("\0", 1);

constexpr std::size_t cache = 64 << 10;

void prepare(World& w) {
    w.write(*w.open("/f", O_CREAT | O_RDWR), 0, first_size, 'a');
    w.write(*w.open("/big", O_CREAT | O_RDWR), 0, 2 * cache, 'z');
}

// Which of the stores '1', '2', ... may stand in the file in the end, or nothing: by the size that the storing thread
// saw before and behind its store.
class Seen {
public:
    void store(World& w, Mapped& mapped, char mark) {
        const Inode& inode = mapped.file().inode();
        const bool inside = inode.size_hint() > at;
        mapped.store(at, length, mark);
        if (inside) may_ = mark;
        else if (inode.size_hint() > at) may_ += mark;
        if (inside) w.require_bytes("a load behind the growth", mapped.load(at, length), may_);
        ever_ += may_;
    }
    const std::string& in_the_file() const { return may_; }
    // Before the last store, too.
    const std::string& at_a_cut() const { return ever_; }

private:
    std::string may_{zero}, ever_{zero};
};

struct Way {
    const char* name;
    const char* what;
    std::size_t size;  // of the file, once it has grown
    void (*grow)(World& w, OpenFile& file);
};

// What a growth writes by itself is 'w', at 6000 or behind.
constexpr Way ways[] = {
    {"mapped-tail", "truncate", 7000, [](World& w, OpenFile& file) { w.expect(file.truncate(7000), "grow"); }},
    {"mapped-tail-write", "a write in the same page", 6100,
     [](World& w, OpenFile& file) { w.write(file, 6000, 100, 'w'); }},
    {"mapped-tail-append", "a write to the next page", 9000,
     [](World& w, OpenFile& file) { w.write(file, 8500, 500, 'w'); }},
    {"mapped-tail-allocate", "fallocate", 9000,
     [](World& w, OpenFile& file) { w.expect(file.fallocate(0, 0, 9000), "fallocate"); }},
    {"mapped-tail-direct", "a direct write to the next page", 12288, [](World& w, OpenFile&) {
         auto memory = std::make_unique<Aligned<page>>();
         std::fill_n(memory->bytes, page, std::byte{'w'});
         w.expect(w.open("/f", O_RDWR | O_DIRECT)->write(2 * page, memory->bytes), "direct write");
     }}};

void require_grown(World& w, const Way& way, const std::string& bytes, std::string_view stored) {
    w.require(bytes.size() == way.size, "the size");
    w.require_bytes("what stays", bytes.substr(0, shortest), "a");
    w.require_bytes("behind the shortest end", bytes.substr(shortest, at - shortest), zero);
    const std::string place = bytes.substr(at, length);
    w.require_bytes("the bytes stored behind the end", place, stored);
    w.require(place == std::string(length, place[0]), "a torn store");
    w.require_bytes("behind the store", bytes.substr(at + length, 6000 - at - length), zero);
    w.require_bytes("what the growth brought", bytes.substr(6000), std::string_view("w\0", 2));
}

void run(World& w, const Way& way) {
    auto file = w.open("/f");
    auto synced = w.open("/f");
    auto big = w.open("/big");
    Seen seen;
    {
        (void)w.read(*big, 0, cache);
        Mapped mapped(w, "/f", 8192);
        w.run({{"store",
                [&] {
                    for (char mark : {'1', '2', '3'}) seen.store(w, mapped, mark);
                }},
               {"size",
                [&] {
                    w.expect(file->truncate(shortest), "truncate");
                    way.grow(w, *file);
                }},
               // The page may have left the cache in between.
               {"reclaim", [&] { (void)w.read(*big, cache, cache); }},
               {"sync", [&] { w.expect(synced->sync(false), "fsync"); }},
               {"cut", [&] {
                    w.pause();
                    w.cut_power();
                }}});
        const std::string bytes = w.read(*file, 0, 16384);
        require_grown(w, way, bytes, seen.in_the_file());
        w.require(bytes.substr(0, 8192) == mapped.load(0, std::min<std::size_t>(way.size, 8192)),
                  "the map and a read differ");
    }
    file.reset(), synced.reset(), big.reset();
    w.after_cut([&](World& after) {
        // What lies behind the end on the disk shows when the file grows.
        auto cut = after.open("/f");
        const std::size_t was = after.read(*cut, 0, 16384).size();
        after.expect(cut->truncate(16384), "grow");
        const std::string bytes = after.read(*cut, 0, 16384);
        after.require_bytes("after the cut, what stays", bytes.substr(0, shortest), "a");
        after.require_bytes("after the cut, what was cut off", bytes.substr(shortest, first_size - shortest),
                            was > first_size ? zero : std::string_view("a\0", 2));
        after.require_bytes("after the cut, before the store", bytes.substr(first_size, at - first_size), zero);
        after.require_bytes("after the cut, the bytes stored behind the end", bytes.substr(at, length),
                            was > first_size ? seen.at_a_cut() : std::string(zero));
        after.require_bytes("after the cut, behind the store", bytes.substr(at + length, 6000 - at - length), zero);
        after.require_bytes("after the cut, behind the end", bytes.substr(std::max<std::size_t>(was, 6000)), zero);
    });
    w.remount();
    require_grown(w, way, w.read(*w.open("/f"), 0, 16384), seen.in_the_file());
    w.unmount();
}

struct RegisterWays {
    RegisterWays() {
        for (const Way& way : ways)
            const Register registered(
                {way.name,
                 std::string("H: a store behind the end reaches the disk, or shows when the file grows by ") +
                     way.what + "; P4",
                 "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime,tiny-cache", prepare,
                 [&way](World& w) { run(w, way); }});
    }
} const registered;

}  // namespace
}  // namespace uext4::explore::mapped_tail

// Truncate against writeback, commit and reads.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>

namespace uext4::explore::truncate_writeback {
namespace {

constexpr std::size_t block = 4096, size = 3 * block, shorter = 6000;
constexpr std::size_t second_at = 14000, second_length = 500;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

// What is done to the file, a letter each: the first write, the second one (which grows the file), and the truncate. A
// set of them is a string, too. The hole that the second write leaves may be in the file on the device before what it
// wrote: 'h'.
constexpr std::string_view orders[] = {"t1h2", "1th2", "1h2t"};

bool all_of(std::string_view letters, std::string_view set) {
    return std::ranges::all_of(letters, [&](char c) { return set.contains(c); });
}

// The file after these, in this order.
std::string made_by(std::string_view operations) {
    std::string bytes(size, 'a');
    const auto put = [&](std::size_t at, std::size_t length, char fill) {
        bytes.resize(std::max(bytes.size(), at + length));
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), length, fill);
    };
    for (const char c : operations) {
        if (c == '1') put(block, block, 'b');
        if (c == 'h') bytes.resize(std::max(bytes.size(), second_at / block * block));
        if (c == '2') put(second_at, second_length, 'c');
        if (c == 't') bytes.resize(shorter);
    }
    return bytes;
}

// When somebody looked: these had to be in the file, and no others could be.
struct Look {
    std::string least, most;
    std::string bytes;
};

// The moments in the life of the file that may have been seen.
std::vector<std::string> moments(std::string_view order, const Look& look) {
    std::vector<std::string> out;
    for (std::size_t n = 0; n <= order.size(); ++n)
        if (const auto some = order.substr(0, n); all_of(look.least, some) && all_of(some, look.most))
            out.emplace_back(some);
    return out;
}

std::string_view block_of(std::string_view bytes, std::size_t at, std::size_t end) {
    return bytes.substr(std::min(at, bytes.size()), std::min(at + block, end) - at);
}

// A reader's size is of one moment, and each block as well. What is gone by the time it comes there is zeros.
bool reader_may_see(std::string_view order, const Look& look) {
    const auto all = moments(order, look);
    const std::size_t end = look.bytes.size();
    const auto has_size = [&](const std::string& m) { return !m.ends_with('h') && made_by(m).size() == end; };
    if (std::ranges::none_of(all, has_size)) return false;
    for (std::size_t at = 0; at < end; at += block) {
        const auto is_there = [&](const std::string& m) {
            std::string then = made_by(m);
            then.resize(std::max(then.size(), end));
            return block_of(look.bytes, at, end) == block_of(then, at, end);
        };
        if (std::ranges::none_of(all, is_there)) return false;
    }
    return true;
}

// The same of the device, but every byte was in the file at that moment. The truncate changes the map and the size in
// one transaction, with a new last block: what was before it is not mixed with what came after.
bool device_may_hold(std::string_view order, const Look& look) {
    const auto all = moments(order, look);
    const std::size_t end = look.bytes.size();
    return std::ranges::any_of(all, [&](const std::string& of_size) {
        if (made_by(of_size).size() != end) return false;
        for (std::size_t at = 0; at < end; at += block) {
            const auto is_there = [&](const std::string& m) {
                return m.contains('t') == of_size.contains('t') &&
                       block_of(look.bytes, at, end) == block_of(made_by(m), at, end);
            };
            if (std::ranges::none_of(all, is_there)) return false;
        }
        return true;
    });
}

void run(World& w) {
    auto file = w.open("/f");
    auto other = w.open("/f");
    auto synced = w.open("/f");
    std::string begun, done, durable;
    Look reader, cut;
    w.run({{"write",
            [&] {
                begun += '1';
                w.write(*other, 4096, 4096, 'b');
                done += '1';
                begun += "h2";
                w.write(*other, second_at, second_length, 'c');
                done += "h2";
            }},
           {"truncate",
            [&] {
                begun += 't';
                w.expect(file->truncate(shorter), "truncate");
                done += 't';
            }},
           {"writeback",
            [&] {
                const std::string before = done;
                w.expect(synced->sync(true), "fdatasync");
                durable += before;
            }},
           {"read",
            [&] {
                reader.least = done;
                reader.bytes = w.read(*synced, 0, 16384);
                reader.most = begun;
            }},
           {"commit",
            [&] {
                // The writes are not the journal's.
                const bool cut_off = done.contains('t');
                w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                if (cut_off) durable += 't';
            }},
           {"cut", [&] {
                cut.least = durable;
                w.cut_power();
                cut.most = begun;
            }}});
    const std::string before = w.read(*file, 0, 16384);
    // Each order leaves a file of its own.
    const auto order = std::ranges::find(orders, before, made_by);
    w.require(order != std::end(orders), "a file that no order makes");
    w.require(reader_may_see(*order, reader), "a reader saw what was never there");
    file.reset(), other.reset(), synced.reset();
    w.after_cut([&](World& after) {
        cut.bytes = after.read(*after.open("/f"), 0, 16384);
        after.require(device_may_hold(*order, cut), "after the cut: what was never there, or not any more");
    });
    w.remount();
    w.require(w.read(*w.open("/f"), 0, 16384) == before, "a remount shows other bytes");
    w.unmount();
}

const Register registered({"truncate-writeback", "truncate against writeback, commit and reads",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::truncate_writeback

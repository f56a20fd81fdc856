// The last blocks are wanted by many: each gets room or ENOSPC, and what was written stays.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::last_block {
namespace {

void prepare(World& w) {
    w.fill_but(40);
    for (const char* name : {"/0", "/1", "/2"}) w.open(name, O_CREAT | O_RDWR);
}

void run(World& w) {
    std::size_t done[3] = {};
    auto writer = [&](int number) {
        auto file = w.open("/" + std::to_string(number));
        const std::string bytes(4096, static_cast<char>('0' + number));
        for (int i = 0; i < 5; ++i) {
            auto n = file->write(done[number], std::as_bytes(std::span(bytes)));
            if (!n && n.error().code != ENOSPC) w.wrong("write: " + n.error().what);
            if (!n) break;
            done[number] += *n;
        }
        w.expect(file->sync(false), "fsync: what was accepted has its space");
    };
    w.run({{"0", [&] { writer(0); }}, {"1", [&] { writer(1); }}, {"2", [&] { writer(2); }}});
    w.require(done[0] + done[1] + done[2] >= 8192, "nobody got the room there was");
    w.remount();
    for (int i = 0; i < 3; ++i) {
        const std::string bytes = w.read(*w.open("/" + std::to_string(i)), 0, 1 << 16);
        w.require(bytes.size() == done[i], "a file is not as long as was written");
        w.require_bytes("a file", bytes, std::string(1, static_cast<char>('0' + i)));
    }
    w.unmount();
}

const Register registered({"last-block",
                           "I: out of space is an error to that write alone: no deadlock, nothing accepted is lost",
                           "-t ext4 -b 1024 -N 64 -m 0 -J size=1 8M", "noatime", prepare, run});

// ---- room for one of two

void prepare_promise(World& w) {
    w.fill_but(12);
    for (const char* name : {"/0", "/1"}) w.open(name, O_CREAT | O_RDWR);
}

void run_promise(World& w) {
    std::size_t done[2] = {};
    auto writer = [&](int number) {
        auto file = w.open("/" + std::to_string(number));
        const std::string bytes(1024, static_cast<char>('0' + number));
        for (int i = 0; i < 8; ++i) {
            auto n = file->write(done[number], std::as_bytes(std::span(bytes)));
            if (!n && n.error().code != ENOSPC) w.wrong("write: " + n.error().what);
            if (!n) break;
            done[number] += *n;
        }
        w.expect(file->sync(false), "fsync: what was accepted has its space");
    };
    w.run({{"0", [&] { writer(0); }}, {"1", [&] { writer(1); }}});
    w.require(done[0] + done[1] >= 8192, "nobody got the room there was");
    for (int i = 0; i < 2; ++i) {
        const std::string bytes = w.read(*w.open("/" + std::to_string(i)), 0, 1 << 16);
        w.require(bytes.size() == done[i], "a file is not as long as was written");
        w.require_bytes("a file", bytes, std::string(1, static_cast<char>('0' + i)));
    }
    w.unmount();
}

const Register promised({"last-promise", "I: more is promised than there is", "-t ext4 -b 1024 -N 64 -m 0 -J size=1 8M",
                         "noatime", prepare_promise, run_promise});

}  // namespace
}  // namespace uext4::explore::last_block

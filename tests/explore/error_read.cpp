// Reads that fail: an error to whoever asked, nothing changed by halves, nothing kept that should have been given back.
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

namespace uext4::explore::error_read {
namespace {

const Credentials root = Credentials::root();
constexpr std::size_t size = 40 * 1024;

// Every other block, so that the tree has blocks of its own to read.
void prepare(World& w) {
    for (const char* name : {"/f", "/g"}) {
        auto file = w.open(name, O_CREAT | O_RDWR);
        for (std::size_t at = 0; at < size; at += 2048) w.write(*file, at, 1024, 'a');
    }
    w.write(*w.open("/big", O_CREAT | O_RDWR), 0, 120 * 1024, 'z');
}

void run(World& w) {
    auto file = w.open("/f");
    auto seen = w.open("/f");
    auto big = w.open("/big");
    auto top = w.expect(w.fs().root(), "root");
    bool shorter = false, punched = false, gone = false;
    w.run({{"truncate", [&] { shorter = w.done(file->truncate(20500), "truncate"); }},
           {"punch",
            [&] {
                punched = w.done(seen->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2100, 6000), "punch");
                std::string bytes(4096, '?');
                const auto n = seen->read(8192, std::as_writable_bytes(std::span(bytes)));
                if (w.done(n, "read")) w.require_bytes("a reader", bytes.substr(0, *n), std::string_view("a\0", 2));
            }},
           {"unlink", [&] { gone = w.done(w.fs().unlink(*top, "g", root, false), "unlink"); }},
           {"reclaim", [&] {
                std::string bytes(120 * 1024, '?');
                const auto n = big->read(0, std::as_writable_bytes(std::span(bytes)));
                if (w.done(n, "read")) w.require_bytes("the big file", bytes.substr(0, *n), "z");
            }}});
    auto judge = [&] {
        const std::string bytes = w.read(*w.open("/f"), 0, size);
        w.require(bytes.size() == (shorter ? 20500 : size - 1024) || !shorter, "the size");
        w.require_bytes("the front", bytes.substr(0, 1024), "a");
        w.require_bytes("what is there", bytes, std::string_view("a\0", 2));
        if (punched) w.require_bytes("what was punched", bytes.substr(2100, 6000), std::string_view("\0", 1));
        w.require(!gone || !w.fs().resolve("/g", root), "a name that was removed");
        return bytes;
    };
    w.end_after_failed_reads(judge, [&] { top.reset(), file.reset(), seen.reset(), big.reset(); });
}

const Register registered({"error-read",
                           "failing reads beside truncate, punch, deletion and reclaim: blocks lost, or half a change",
                           "-t ext4 -b 1024 -N 64 -J size=1 8M",
                           "noatime,background,tiny-cache",
                           prepare,
                           run,
                           {.reads = true, .times = 4}});

}  // namespace
}  // namespace uext4::explore::error_read

// An overwrite in place and its fdatasync, while another commits an append to the same file: the flush of a commit that
// is under way may be over when the data is written.
#include "file/file_io.h"
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::overwrite_commit {
namespace {

constexpr std::size_t size = 8192;

void prepare(World& w) { w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a'); }

void run(World& w) {
    auto one = w.open("/f");
    auto other = w.open("/f");
    bool durable = false;
    std::vector<bool> was_durable;
    w.run({{"overwrite",
            [&] {
                w.write(*one, 0, 4096, 'b');
                w.expect(one->sync(true), "fdatasync");
                durable = true;
            }},
           {"append",
            [&] {
                w.write(*other, size, 4096, 'c');
                w.expect(write_back(other->inode()), "writeback");
                w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
            }},
           {"cut", [&] {
                for (int i = 0; i < 3; ++i) {
                    w.pause();
                    was_durable.push_back(durable);
                    w.cut_power();
                }
            }}});
    one.reset(), other.reset();
    std::size_t n = 0;
    w.after_cut([&](World& after) {
        const std::string bytes = after.read(*after.open("/f"), 0, 2 * size);
        after.require(bytes.size() >= size, "after the cut, the size");
        after.require_bytes("after the cut, what was overwritten", bytes.substr(0, 4096),
                            was_durable[n++] ? "b" : "ab");
        after.require_bytes("after the cut, what nobody wrote", bytes.substr(4096, 4096), "a");
        after.require_bytes("after the cut, what was appended", bytes.substr(size), "c");
    });
    w.unmount();
}

const Register registered(
    {"overwrite-commit",
     "fdatasync of an overwrite beside a commit: it returns before a flush that is behind the data",
     "-t ext4 -b 4096 -N 64 -J size=4 24M",
     "noatime",
     prepare,
     run,
     {.cuts_lose = true}});

}  // namespace
}  // namespace uext4::explore::overwrite_commit

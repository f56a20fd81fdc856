// A collapse and an append behind a pass of writeback that has written everything, and has not settled the size yet.
#include "file/file_io.h"
#include "tests/explore/scenario.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>

namespace uext4::explore::shift_append {
namespace {

constexpr std::size_t block = 4096;

void prepare(World& w) {
    auto file = w.open("/f", O_CREAT | O_RDWR);
    for (std::size_t i = 0; i < 4; ++i) w.write(*file, i * block, block, static_cast<char>('a' + i));
}

void run(World& w) {
    {
        auto shifted = w.open("/f"), written = w.open("/f");
        w.write(*written, 3 * block, block, 'd');  // dirty
        w.run({{"writeback",
                [&] {
                    w.expect(write_back(written->inode()), "writeback");
                    w.expect(w.fs().volume().fs().journal.commit_all(), "commit");
                    w.cut_power();
                }},
               {"shift", [&] {
                    w.expect(shifted->fallocate(FALLOC_FL_COLLAPSE_RANGE, block, 2 * block), "collapse");
                    w.write(*shifted, 2 * block, block, 'x');
                }}});
    }
    w.after_cut([](World& cut) {
        const std::string bytes = cut.read(*cut.open("/f"), 0, 8 * block);
        std::string letters;
        for (std::size_t at = 0; at < bytes.size(); at += block) letters += bytes[at] == 0 ? '0' : bytes[at];
        cut.require(letters == "abcd" || letters == "ad" || letters == "adx",
                    "after a cut, what the file never was: " + letters);
    });
    w.unmount();
}

const Register registered({"shift-append", "J: the size on disk is ahead of the data after a collapse and an append",
                           "-t ext4 -b 4096 -N 64 -J size=4 16M", "noatime", prepare, run});

}  // namespace
}  // namespace uext4::explore::shift_append

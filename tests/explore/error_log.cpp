// A log that cannot be written ends in read-only: nobody waits for ever, nothing is acknowledged that is not there.
#include "tests/explore/mapped.h"

#include <fcntl.h>
#include <sys/stat.h>

namespace uext4::explore::error_log {
namespace {

const Credentials root = Credentials::root();
constexpr std::size_t size = 8192;

void prepare(World& w) {
    w.write(*w.open("/f", O_CREAT | O_RDWR), 0, size, 'a');
    w.write(*w.open("/g", O_CREAT | O_RDWR), 0, size, 'g');
}

void run(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    auto synced = w.open("/g");
    bool made = false, stored = false;
    {
        Mapped mapped(w, "/f", size);
        w.run({{"store",
                [&] {
                    const bool done = w.done(mapped.try_store(100, 8, 's'), "a store through the map");
                    stored = w.done(mapped.file().sync(false), "fsync") && done;
                }},
               {"names",
                [&] {
                    const bool done = w.done(w.fs().create(*top, "new", S_IFREG | 0644, 0, "", root, false), "create");
                    w.done(w.fs().unlink(*top, "g", root, false), "unlink");
                    made = w.done(w.fs().volume().fs().journal.commit_all(), "commit") && done;
                }},
               {"truncate", [&] { w.done(synced->truncate(3000), "truncate"); }},
               {"freeze", [&] {
                    // In time, or with an error: then nothing is frozen.
                    if (w.done(w.fs().freeze(), "freeze")) w.done(w.fs().thaw(), "thaw");
                    mapped.resume();
                }}});
        mapped.end();
    }
    if (w.failing().failed() != 0) {
        w.require(w.fs().read_only(), "the log failed and the file system is not read-only");
        auto again = w.fs().create(*top, "later", S_IFREG | 0644, 0, "", root, false);
        w.require(!again && again.error().code == EROFS, "a change after the log failed");
    }
    synced.reset(), top.reset();
    w.remount_after_errors();
    if (made) w.require(w.fs().resolve("/new", root).has_value(), "a committed name is gone");
    if (made) w.require(!w.fs().resolve("/g", root), "a name whose removal was committed is back");
    const std::string bytes = w.read(*w.open("/f"), 0, size);
    w.require(bytes.size() == size, "the size");
    w.require_bytes("the store", bytes.substr(100, 8), stored ? "s" : "as");
    w.require_settled();
    w.unmount();
}

const Register registered(
    {"error-log",
     "a failing log beside commits, stores and a freeze: somebody waits for ever, or is told a lie",
     "-t ext4 -b 4096 -N 64 -J size=4 24M",
     "noatime,background",
     prepare,
     run,
     {.writes = true, .flushes = true, .times = 2, .where = MayFail::Where::log}});

}  // namespace
}  // namespace uext4::explore::error_log

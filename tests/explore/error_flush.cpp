// A flush that fails, once, beside other syncs, of a device that drops its cache then and tells nobody else: what they
// acknowledge is there.
#include "tests/explore/scenario.h"

#include <fcntl.h>

namespace uext4::explore::error_flush {
namespace {

const Credentials root = Credentials::root();
constexpr std::size_t size = 8192;

void prepare(World& w) {
    for (const char* path : {"/f", "/g"}) w.write(*w.open(path, O_CREAT | O_RDWR), 0, size, 'a');
}

// What has been promised so far.
struct Promises {
    bool f = false, g = false, name = false;
};

void judge(World& w, const Promises& promised) {
    const auto contents = [&](const char* path, bool synced) {
        const std::string bytes = w.read(*w.open(path), 0, size);
        w.require(bytes.size() == size, std::string(path) + ": the size");
        w.require_bytes(path, bytes, synced ? "b" : "ab");
    };
    contents("/f", promised.f);
    contents("/g", promised.g);
    if (promised.name) w.require(w.fs().resolve("/new", root).has_value(), "a name that was synced is gone");
}

void run(World& w) {
    auto f = w.open("/f"), g = w.open("/g");
    Promises promised;
    std::vector<Promises> at_cuts;
    const auto overwrite = [&](OpenFile& file, bool& durable) {
        // In two pieces, so that another flush may come between them.
        bool written = w.done_write(file, 0, size / 2, 'b');
        written = w.done_write(file, size / 2, size / 2, 'b') && written;
        durable = w.done(file.sync(true), "fdatasync") && written;
    };
    w.run({{"one", [&] { overwrite(*f, promised.f); }},
           {"two", [&] { overwrite(*g, promised.g); }},
           {"name",
            [&] {
                auto made = w.fs().open_path("/new", O_CREAT | O_RDWR, 0644, root);
                if (made) promised.name = w.done((*made)->sync(false), "fsync");
            }},
           {"cut", [&] {
                for (int i = 0; i < 2; ++i) {
                    w.pause();
                    at_cuts.push_back(promised);
                    w.cut_power();
                }
            }}});
    f.reset(), g.reset();
    const Promises all = promised;
    w.remount_after_errors();
    judge(w, all);
    w.require_settled();
    std::size_t n = 0;
    w.after_cut([&](World& after) { judge(after, at_cuts[n++]); });
    w.unmount();
}

const Register registered({"error-flush",
                           "a flush that fails beside other syncs: one of them returns 0 and its data is not there",
                           "-t ext4 -b 4096 -N 64 -J size=4 24M",
                           "noatime",
                           prepare,
                           run,
                           {.flushes = true, .times = 1, .cuts_lose = true}});

}  // namespace
}  // namespace uext4::explore::error_flush

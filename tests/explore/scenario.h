// What is explored: a small file system, a few threads that work on it, and what must be true afterwards.
#pragma once

#include "api/file_system.h"
#include "tests/designs/design.h"
#include "tests/doubles/memory_device.h"
#include "tests/explore/failing_device.h"
#include "tests/explore/token_scheduler.h"
#include "tests/explore/watched_device.h"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace uext4::explore {

struct Scenario;

// Memory for direct I/O.
template <std::size_t size>
struct Aligned {
    alignas(4096) std::byte bytes[size];
};

// What went wrong when a scenario's image was made: there is no schedule yet that shows it.
struct Unprepared {
    std::string text;
};

// One run of one scenario. What goes wrong ends the run: the functions return only when all is well. (While the image
// is made, they throw Unprepared.)
class World {
public:
    World(const Scenario& scenario, std::shared_ptr<MemoryDevice> device, TokenScheduler* scheduler)
        : scenario_(scenario), device_(std::move(device)), scheduler_(scheduler) {}
    ~World();

    void mount();
    FileSystem& fs() { return *fs_; }
    MemoryDevice& device() { return *device_; }
    // Only in scenarios whose device may fail, and until it is well again.
    FailingDevice& failing() { return *failing_; }

    struct Body {
        std::string name;
        std::function<void()> run;
    };
    // Runs the bodies side by side, every choice open, until all have ended.
    void run(std::vector<Body> bodies);

    // ---- for bodies; an error that is not in `allowed` is a failure
    std::unique_ptr<OpenFile> open(std::string_view path, int flags = 2);
    void write(OpenFile& file, std::uint64_t offset, std::size_t length, char fill);
    std::string read(OpenFile& file, std::uint64_t offset, std::size_t length);
    std::vector<std::string> names(std::string_view path);  // in a directory, in their order
    void fill_but(std::uint64_t blocks);                    // a file /fill takes all the others
    template <class T>
    T expect(Result<T> result, const char* what) {
        if (!result) wrong(std::string(what) + ": " + result.error().what);
        if constexpr (!std::is_void_v<T>) return std::move(*result);
    }
    void allow(const Result<void>& result, int code, const char* what) {
        if (!result && result.error().code != code) wrong(std::string(what) + ": " + result.error().what);
    }
    // Where the device may fail: EIO and EROFS are answers, and the value says whether it was done.
    template <class T>
    bool done(const Result<T>& result, const char* what) {
        if (!result && result.error().code != EIO && result.error().code != EROFS)
            wrong(std::string(what) + ": " + result.error().what);
        return result.has_value();
    }
    // All of the bytes were written.
    bool done_write(OpenFile& file, std::uint64_t offset, std::size_t length, char fill);
    [[noreturn]] void wrong(const std::string& text);
    void require(bool condition, std::string_view text) {
        if (!condition) wrong(std::string(text));
    }
    // The bytes [offset, offset + length) are all `fill`, as far as the file reaches.
    void require_bytes(std::string_view what, std::string_view bytes, std::string_view allowed);
    // Yields: other threads may go first here.
    void pause();
    // No choices meanwhile, and no steps: for a body that judges.
    void quietly(const std::function<void()>& look);
    // A write to the device is wrong.
    void forbid_writes(bool on) { watched_->forbid_writes(on); }

    // ---- what the device holds now, as a power cut would leave it: mounted, judged and looked at after the run
    void cut_power();
    void after_cut(const std::function<void(World&)>& look);
    std::shared_ptr<MemoryDevice> image() const { return device_->clone(); }
    // In a world of its own, which is not mounted.
    void on(std::shared_ptr<MemoryDevice> image, const std::function<void(World&)>& look);

    // ---- afterwards
    void unmount();  // when all is settled; and checks the image
    // Nothing is open, deletions have ended and all is synced: no promise of space and no grant is left, and (unless
    // the device may fail) as much can be had as is free in the descriptors, which the check of the image compares with
    // the bitmaps.
    void require_settled();
    // For a device that may have failed: the unmount ends, well or with an error; then the device is well again, and
    // what it holds is mounted, which recovers it. True when nothing was said to have failed.
    bool remount_after_errors();
    // The end where only reads may have failed: the device is well again, `judge` says what is there, `detach_files`
    // drops what the scenario holds; after the deletions all is settled and on the device, and a remount shows the
    // same.
    void end_after_failed_reads(const std::function<std::string()>& judge, const std::function<void()>& let_go);
    void remount() {
        unmount();
        mount();
    }
    // Unmounts and mounts, which bodies may do: nothing of the file system may be open. The image is not checked.
    void reopen();
    // Sound as it is, and closed.
    void check_image();

private:
    std::vector<FailingDevice::Range> log_ranges();
    const Scenario& scenario_;
    std::shared_ptr<MemoryDevice> device_;
    TokenScheduler* scheduler_;
    std::shared_ptr<FailingDevice> failing_;
    std::shared_ptr<WatchedDevice> watched_;
    bool healed_ = false;
    std::unique_ptr<FileSystem> fs_;
    std::vector<std::shared_ptr<MemoryDevice>> cuts_;
};

struct Design {
    std::string name;  // "shipped" or that of a wrong one
    const designs::WrongDesign* wrong = nullptr;
    std::uint64_t found_within = 0;  // schedules, random and PCT alike
};

struct Scenario {
    std::string name;
    std::string looks_for;
    std::string format;                   // mke2fs's arguments, with the size last
    std::string options;                  // mount options; `background` runs the threads that write back and delete,
                                          // `tiny-cache` has room for 16 folios
    std::function<void(World&)> prepare;  // makes the image that every schedule starts from
    std::function<void(World&)> run;      // mount is done; ends with everything judged
    MayFail may_fail = {};                // what the device may do
    std::vector<Design> designs = {};     // "shipped" comes first; the wrong ones name their scenarios themselves
};

const std::vector<Scenario>& scenarios();
const Scenario* find_scenario(std::string_view name);
// Registered by a static object in each scenario's file.
struct Register {
    explicit Register(Scenario scenario);
};

// The image that a scenario's schedules start from; made once.
std::shared_ptr<MemoryDevice> make_template(const Scenario& scenario);

}  // namespace uext4::explore

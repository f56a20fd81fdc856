// Multiple-mount protection: a block that says who uses the file system, kept alive while it is mounted.
#pragma once

#include "device/block_device.h"
#include "format/orphan.h"
#include "sync/condition.h"
#include "sync/thread.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace uext4 {

class MultiMountProtection {
public:
    // Null without the feature. Waits as long as the block's interval demands; EBUSY when somebody else keeps it alive.
    static Result<std::unique_ptr<MultiMountProtection>> acquire(BlockDevice& device, const format::Geometry& geometry,
                                                                 std::function<void(const std::string&)> log,
                                                                 std::optional<std::int64_t> fixed_time);
    ~MultiMountProtection() { release(); }
    // Who is told when another host has taken the file system, once: EBUSY names it. Nothing may be written from then
    // on; the block is left as it is. And when the device did not make the block durable: it may have dropped anything
    // that was written before, and tells that to one caller only.
    void set_lost_callback(std::function<void(const Error&)> told);
    // Between these the block stays as it is: the file system is frozen. resume() looks, before anything else is
    // written, whether somebody has taken it meanwhile, and tells as set_lost_callback() says (EBUSY); where it cannot
    // be read, the log.
    void pause();
    Result<void> resume();
    void release();  // marks it clean, and nobody is told any more

private:
    MultiMountProtection(BlockDevice& device, const format::Geometry& geometry,
                         std::function<void(const std::string&)> log, std::optional<std::int64_t> fixed_time)
        : device_(device), geometry_(geometry), log_(std::move(log)), fixed_time_(fixed_time) {}
    Result<format::MmpBlock> read();
    Result<void> write(format::MmpBlock block);
    void keep_alive_loop();
    Result<format::MmpBlock> next_block();  // what is to be written now; EBUSY: somebody else has it
    Result<void> renew();

    BlockDevice& device_;
    format::Geometry geometry_;
    std::function<void(const std::string&)> log_;
    const std::optional<std::int64_t> fixed_time_;  // what a clean block says; then it names neither host nor image
    std::uint32_t sequence_ = 0, interval_ = 5;
    Mutex lock_{Rank::Leaf, "MultipleMount"};
    CondVar changed_{"multiple mount"};
    bool stop_ = false, paused_ = false;
    bool renewing_ = false;  // the thread, or who resumes, is at it
    std::function<void(const Error&)> lost_callback_;
    std::optional<Error> lost_;
    Thread thread_;
};

}  // namespace uext4

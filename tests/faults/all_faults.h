// The ways in which a device fails that every workload meets.
#pragma once

#include "sync/thread.h"
#include "tests/doubles/faulty_device.h"

#include <atomic>
#include <chrono>
#include <ostream>
#include <random>
#include <vector>

namespace uext4::faults {

using Kind = DeviceRequest::Kind;
using Effect = DeviceFault::Effect;

struct Fault {
    const char* name;
    std::vector<Kind> kinds;
    Effect effect;
    int code;
    std::uint64_t times;  // at most; how many of them is drawn
    bool honest;          // the device says when it fails: promises hold
};
inline constexpr std::uint64_t for_good = DeviceFault::for_good;
inline const Fault all_faults[] = {
    {"ReadFailsOnce", {Kind::Read}, Effect::Fail, EIO, 2, true},
    {"ReadFailsForGood", {Kind::Read}, Effect::Fail, EIO, for_good, true},
    {"WriteFailsOnce", {Kind::Write, Kind::Fua}, Effect::Fail, EIO, 2, true},
    {"WriteFailsForGood", {Kind::Write, Kind::Fua}, Effect::Fail, EIO, for_good, true},
    {"WriteIsTorn", {Kind::Write, Kind::Fua}, Effect::Torn, EIO, 2, true},
    {"FlushFailsOnce", {Kind::Flush}, Effect::Fail, EIO, 2, true},
    {"FlushFailsForGood", {Kind::Flush}, Effect::Fail, EIO, for_good, true},
    {"CommitRecordFails", {Kind::Fua}, Effect::Fail, EIO, 2, true},
    {"ThinDeviceIsFull", {Kind::Write, Kind::Fua}, Effect::Fail, ENOSPC, for_good, true},
    {"Dies", {}, Effect::Fail, EIO, for_good, true},
    {"Slow", {}, Effect::Slow, 0, for_good, true},
    {"ReadIsStuck", {Kind::Read}, Effect::Stick, 0, 2, true},
    {"WriteIsStuck", {Kind::Write, Kind::Fua}, Effect::Stick, 0, 2, true},
    {"FlushIsStuck", {Kind::Flush}, Effect::Stick, 0, 2, true},
    {"WriteIsLost", {Kind::Write}, Effect::Lose, 0, 2, false},
    {"FlushLies", {Kind::Flush}, Effect::Lose, 0, for_good, false},
    {"WriteIsTornSilently", {Kind::Write}, Effect::TearSilent, 0, 2, false},
    {"WriteGoesElsewhere", {Kind::Write}, Effect::Misdirect, 0, 2, false},
    {"ReadComesFromElsewhere", {Kind::Read}, Effect::Misdirect, 0, 2, false},
    {"WriteFlipsABit", {Kind::Write}, Effect::BitFlip, 0, 2, false},
    {"ReadFlipsABit", {Kind::Read}, Effect::BitFlip, 0, 2, false},
};
inline void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }

// The same, set to begin at some request.
inline DeviceFault armed(const Fault& fault, std::mt19937& random) {
    DeviceFault f;
    f.kinds = fault.kinds;
    f.effect = fault.effect;
    f.code = fault.code;
    f.times = fault.times == for_good ? for_good : 1 + random() % fault.times;
    // There are fewer flushes and reads than writes.
    f.skip = random() % (fault.kinds.size() == 1 && fault.kinds[0] != Kind::Write ? 8 : 25);
    f.bytes = fault.effect == Effect::Misdirect ? 4096 * (1 + random() % 9) : random() % 2000 / 512 * 512;
    f.bit = random() % 8;
    f.delay = std::chrono::microseconds(200);
    return f;
}

// A device that is stuck is so for long beside what a request takes, and then goes on.
class Unsticker {
public:
    explicit Unsticker(FaultyDevice& device)
        : thread_("unsticker", [this, &device] {
              while (!over_.load()) {
                  this_thread::sleep(std::chrono::milliseconds(1));
                  if (device.stuck() == 0) continue;
                  this_thread::sleep(std::chrono::milliseconds(20));
                  device.release_stuck();
                  releases_.fetch_add(1);
              }
          }) {}
    Unsticker(const Unsticker&) = delete;
    Unsticker& operator=(const Unsticker&) = delete;
    ~Unsticker() {
        over_.store(true);
        thread_.join();
    }

    std::uint64_t releases() const { return releases_.load(); }

private:
    std::atomic<bool> over_{false};
    std::atomic<std::uint64_t> releases_{0};
    Thread thread_;
};

}  // namespace uext4::faults

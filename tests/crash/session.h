// A mounted file system under a workload, with the maps that the workload has made: they stay, and are stored to again,
// until the end. So do the files that it holds open, unless it gives them up.
#pragma once

#include "api/file_system.h"
#include "tests/crash/operation.h"
#include "tests/doubles/simulated_maps.h"

#include <map>
#include <memory>
#include <mutex>

namespace uext4::crash {

class Session {
public:
    static Result<std::unique_ptr<Session>> open(std::shared_ptr<BlockDevice> device, const VolumeOptions& options);
    ~Session();

    FileSystem& fs() { return *fs_; }
    // Does it. Bytes that are written are a function of `serial`, so that every write has its own. Errors that the
    // state of the tree explains (no such file, exists ...) are returned as any other: the caller decides what they
    // mean.
    Result<void> perform(const Operation& operation, unsigned serial);
    Result<void> close();

private:
    explicit Session(std::unique_ptr<FileSystem> fs) : fs_(std::move(fs)) {}
    Result<void> store_through_map(const Operation& o, unsigned serial);
    Result<void> sync_map(const Operation& o);
    Result<void> hold(const Operation& o);
    Result<void> give_up(const Operation& o);
    Result<void> unmap_all();

    struct Mapped {
        SimulatedMaps::MapRef map;
        std::uint64_t length = 0;
    };
    std::unique_ptr<FileSystem> fs_;
    std::unique_ptr<SimulatedMaps> maps_;
    std::mutex lock_;                         // of mapped_ and held_; what they name belongs to one thread
    std::map<std::uint64_t, Mapped> mapped_;  // by inode number; a mapped inode keeps its number
    std::map<std::string, std::unique_ptr<OpenFile>> held_;
};

}  // namespace uext4::crash

// A mount that was made here, told from what others mount at the same place.
#pragma once

#include "device/mount_table.h"

#include <optional>
#include <string>
#include <utility>

namespace uext4::fuse {

class OwnMount {
public:
    explicit OwnMount(std::string directory) : directory_(std::move(directory)) {}

    void made() { ours_ = find_mount(directory_); }
    void forget() { ours_.reset(); }
    // Not when somebody else's mount lies there by now.
    bool still_there() const;
    std::optional<dev_t> device() const { return ours_ ? std::optional(ours_->device) : std::nullopt; }
    // Whoever waits for an answer gets none. The mount stays.
    void break_off() const;
    // Lazily, by fusermount3 where this process may not.
    void take_away() const;

private:
    std::string directory_;
    std::optional<MountEntry> ours_;
};

}  // namespace uext4::fuse

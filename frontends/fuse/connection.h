// The kernel's end of a mount, held so that it can be broken off when the mount has no name any more.
#pragma once

#include "fuse/own_mount.h"

namespace uext4::fuse {

class Connection {
public:
    // Of a mount that was made by this process. Opens what break_off() needs, as far as it may.
    explicit Connection(const OwnMount& mount);
    ~Connection();
    Connection(const Connection&) = delete;

    // Whoever waits for an answer gets ECONNABORTED. A mount stays: what is open of it keeps it from going along.
    void break_off() const;

private:
    OwnMount mount_;
    int control_ = -1;
};

}  // namespace uext4::fuse

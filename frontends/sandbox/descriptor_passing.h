// Messages to another process that a descriptor may go with, by a socket that both have.
#pragma once

#include "base/descriptor.h"

#include <cstddef>
#include <span>

namespace uext4 {

// `descriptor` -1: none. Whether all of it was sent.
bool send_with_descriptor(int socket, std::span<const std::byte> message, int descriptor);
// Whether a message of just this size has come. What else comes with it is no descriptor of ours.
bool receive_with_descriptor(int socket, std::span<std::byte> message, Descriptor& descriptor);

}  // namespace uext4

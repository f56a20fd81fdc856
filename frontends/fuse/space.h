// Near the end of the space: the kernel takes writes into its cache and asks for space long after the call. Where there
// is little, it is made to ask before it takes more, and to send what it has, so that the call meets the error; what it
// had taken by then and finds no space, the file system keeps (OpenFile::write_beyond_space).
//
// Making it send drops what it has of the file from its cache. So of a file without holes only what lies behind the end
// that is known here: what lies before needs no space. And the more is left, the seldomer.
#pragma once

#include "fuse/server.h"

#include <optional>

namespace uext4::fuse {

// How long the kernel may believe attributes (InodeHandles::attributes_last): of what somebody writes to only until it
// could have taken what is left.
double shorter_if_short_of_space(Server& server, double last);
// Whether whoever writes next may find that there is none.
bool is_short_of_space(Server& server);
// From which byte on the kernel is to send what it has of the file before it takes another write by this descriptor.
std::optional<off_t> to_be_sent_from(Server& server, fuse_ino_t node, OpenFile& file);

}  // namespace uext4::fuse

// Near the end of the space: the kernel takes writes into its cache and asks for space long after the call. Where there
// is little, it is made to ask before each write(2), and to send what it has, so that the call meets the error; what it
// had taken by then and finds no space, the file system keeps (OpenFile::write_beyond_space).
//
// Making it send empties its cache of the file as well. So that is done now and then, and oftener as there is less.
#pragma once

#include "fuse/server.h"

namespace uext4::fuse {

// Whether whoever writes next may find that there is none.
bool is_short_of_space(Server& server);
// How long it may believe attributes (InodeHandles::attributes_last): of what somebody writes to not at all then.
double shorter_if_short_of_space(Server& server, double last);
// Whether the kernel is to send what it has of the file before it takes another write by this descriptor.
bool is_to_send(Server& server, fuse_ino_t node, OpenFile& file);

}  // namespace uext4::fuse

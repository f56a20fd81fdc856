// Near the end of the space: the kernel takes writes into its cache and asks for space long after the call. Where there
// is little, it is made to ask before it takes more, and to send what it has, so that the call meets the error; what it
// had taken by then and finds no space, the file system keeps (OpenFile::write_beyond_reserved_space).
//
// Making it send drops what it has of the file from its cache. So that is only what lies in the file's holes and behind
// the end that is known here: the rest needs no space. And the more is left, the seldomer.
#pragma once

#include "fuse/server.h"

namespace uext4::fuse {

// How long the kernel may believe attributes (InodeHandles::attributes_last): of what somebody writes to only until it
// could have taken half of what is left.
double shorter_if_short_of_space(Server& server, double last);
bool is_little(std::uint64_t bytes);  // left, for all that the kernel may have taken
// Whether whoever writes next may find that there is none.
bool is_short_of_space(Server& server);
// Bytes that are left to those who have no privilege; and that are not spoken for.
std::uint64_t bytes_available(const Volume& volume);
std::uint64_t bytes_left(Server& server);
// What the kernel is to send of the file before it takes another write by this descriptor: what may need space.
enum class Wanted : std::uint8_t { nothing, end, holes_and_end };
Wanted to_be_called_in(Server& server, fuse_ino_t node, OpenFile& file);
// Whether calling that in would help: there is space for some, and of a file with holes what is called in at a time is
// no more than finds some, or than a kernel has of a file. What is refused is gone, and a program's stores to a map did
// not have to ask.
bool is_worth_calling_in(Server& server, Inode& inode);
// Makes the kernel send what it has of the file from a byte on, or in its holes and behind its end, and
// forget it. Where space is short, no more at a time than is sure to find some or to be kept, and none behind the first
// that was refused (writers are told): what is refused is gone then. False: the kernel has the rest still. Not on the
// reading thread, which takes what is sent.
bool call_in(Server& server, const InodeRef& inode, std::uint64_t from = 0);
bool call_in_what_needs_space(Server& server, const InodeRef& inode, Wanted wanted = Wanted::holes_and_end);

}  // namespace uext4::fuse

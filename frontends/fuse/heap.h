// The memory that malloc(3) gives the server, or a verb that makes many inodes. A fault for each page of it is dear: on
// a virtual machine whose host keeps the tables of pages, dearer than the request that meets it.
#pragma once

#include <cstddef>

namespace uext4::fuse {

// Before there is a second thread: all take from one heap. Each of their own would keep, free, as much as one may, and
// what a process may have beside its cache is bounded.
void share_heap();

// On the thread that reads the requests, before the first, or the one that makes the inodes: its heap grows once, where
// the system may give it huge pages. `smallest` bytes and less are freed to where calloc(3), too, looks for them. Does
// nothing without glibc, and little where memory is short.
inline constexpr std::size_t usual_smallest = 128;  // glibc's own
void prepare_heap(std::size_t smallest);

}  // namespace uext4::fuse

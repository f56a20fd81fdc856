// Where a page of the process lies, as /proc/self/maps tells it, which newer kernels let ask for an address. Linux's
// proc_pid_maps(5).
#pragma once

#include "base/result.h"

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace uext4 {

struct ProcMap {
    std::uintptr_t start = 0, end = 0;  // of pages that are mapped alike
    int protection = 0;                 // PROT_*
    bool shared = false;                // MAP_SHARED
    std::uint64_t offset = 0;           // in the file, at `start`
    dev_t device = 0;
    ino_t inode = 0;
    std::string path;  // of find_proc_map() alone; empty if it is long
};

// Gets the descriptor that all looks go by, which is kept for the life of the process. An error: there is none now, but
// there might be; without /proc there is nothing to wait for.
Result<void> keep_proc_maps_open();

// Nothing: nothing is mapped there, or it cannot be told.
std::optional<ProcMap> find_proc_map(std::uintptr_t page);

// Whether anything is mapped at the page, which is told at less cost.
bool is_mapped(std::uintptr_t page);
// Whether it can be told at all.
bool can_query_proc_maps();
// All files that are mapped in [start, end), by address, each as a whole. Empty: none, or there is no /proc to
// tell. Nothing: it cannot be told now.
std::optional<std::vector<ProcMap>> file_maps_in(std::uintptr_t start, std::uintptr_t end);

// Whether the file's bytes at `offset` are mapped there.
bool is_file_mapped_at(std::uintptr_t page, int file, std::uint64_t offset, bool shared);

// Up to which address the file's bytes from `offset` on are mapped in their order, beginning at `page`, whatever rights
// their parts have. `page`: they are not there, or it cannot be told.
std::uintptr_t mapped_until(std::uintptr_t page, int file, std::uint64_t offset, bool shared);

}  // namespace uext4

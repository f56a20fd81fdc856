// Where a range of a file's bytes lives. A byte lives in exactly one place (docs/ARCHITECTURE.md).
#pragma once

#include "base/numbers.h"

#include <cstdint>

namespace uext4 {

enum class BlockState : std::uint8_t {
    hole,         // nowhere: reads as zeros
    delayed,      // dirty in the page cache; space is reserved, no block chosen
    allocated,    // dirty or on its way, or on the device, in blocks that no on-disk structure maps yet
    inline_data,  // in the inode
    unwritten,    // blocks mapped on disk, contents undefined: reads as zeros
    converting,   // unwritten on disk, data on the device: conversion pending, reads come from the block
    mapped        // blocks mapped on disk
};
const char* block_state_name(BlockState state);

// A run of bytes that live alike and contiguously. `sequence` is the sequence number of the inode's map at the lookup:
// while it is the same, every run is where it was. A thread that holds the folio, or excludes its change, since the
// lookup need not compare it (docs/adr/0011-one-iterator.md).
struct Mapping {
    BlockState state = BlockState::hole;
    std::uint64_t offset = 0;  // bytes, a multiple of the block size (0 for inline data)
    std::uint64_t length = 0;  // bytes
    BlockNr block;             // first block, for allocated, unwritten, converting, mapped
    std::uint64_t sequence = 0;
    // Allocated, and the data is in no cache and not on the device yet: still reads as before.
    bool data_pending = false;

    std::uint64_t end() const { return offset + length; }
    bool has_block() const {
        return state == BlockState::allocated || state == BlockState::unwritten || state == BlockState::converting ||
               state == BlockState::mapped;
    }
    bool reads_device() const {
        return (state == BlockState::allocated && !data_pending) || state == BlockState::converting ||
               state == BlockState::mapped;
    }
};

}  // namespace uext4

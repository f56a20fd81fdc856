// What a workload does, one step at a time.
#pragma once

#include "api/file_system.h"

#include <cstdint>
#include <string>
#include <vector>

namespace uext4::crash {

struct Operation {
    enum class Kind : std::uint8_t {
        Create,
        Write,
        Direct,
        MapStore,  // through a map that stays
        Truncate,
        Reopen,  // opened with O_TRUNC, written and closed: a replacement in place
        Fallocate,
        Link,
        Unlink,
        Rename,
        Exchange,
        Mkdir,
        Rmdir,
        Symlink,
        Setxattr,
        Removexattr,
        Chmod,
        Chown,        // `uid`, `gid`
        Mknod,        // `mode` with the kind; `device`
        Utimens,      // `mode`: 1 the time of access, 2 that of change, 3 both; to what the step's number says
        Chattr,       // `mode`: the flags
        Extents,      // `mode`: whether its map is to be one of extents (the flag e)
        Setfacl,      // `other`: access or default; `mode`: the rights of user `uid`
        JournalData,  // the file's flag j: its contents go through the log in data=ordered, too
        Scatter,  // a file whose blocks lie apart on the device, by `offset`; NAME.1 to .3 of an eighth of its length
        Fill,     // all free space but `length` bytes
        Hold,     // opened, and kept open until it is given up by the same path, whatever that names then
        GiveUp,
        Commit,     // deletions and what is running, as the clock does it: nothing is written back for it
        WriteSync,  // a write and a sync of the file in one; `mode`: what descriptor (see below)
        Fsync,
        Fdatasync,
        Msync,  // of a file that has been stored to through a map
        Sync,
    };
    // The descriptor of a WriteSync: O_SYNC and the cache, but for these.
    static constexpr int data_alone = 1, direct = 2;  // O_DSYNC, O_DIRECT

    Kind kind = Kind::Sync;
    std::string path, other{};  // `other`: the new name, the target, the attribute
    std::uint64_t offset = 0, length = 0;
    int mode = 0;  // of fallocate, chmod and others
    std::uint32_t uid = 0, gid = 0;
    std::uint64_t device = 0;

    bool persists() const { return kind >= Kind::WriteSync; }
    // What reads its data back needs, and no more.
    bool persists_data_alone() const {
        return kind == Kind::Fdatasync || (kind == Kind::WriteSync && mode & data_alone);
    }
};
std::string describe(const Operation& operation);

// Never zero, and another value for each write and each 512 bytes of the file: a byte tells who wrote it. In one of
// eight writes each KiB of the file begins as the blocks of a log do: the log has to tell them apart from its own.
std::vector<std::byte> bytes_of_write(unsigned serial, std::uint64_t offset, std::uint64_t length);
// All but what needs maps or files that stay open, for which see Session::perform.
Result<void> perform(FileSystem& fs, const Operation& operation, unsigned serial);

struct Workload {
    std::string name;
    std::vector<Operation> setup;  // done and synced before anything is recorded
    std::vector<Operation> steps;
    // Its files have more extents than one transaction moves: a collapse or insert may be cut in its middle.
    bool in_several_transactions = false;
    // Instead of steps: what each of several threads does at the same time, thread N in /tN.
    std::vector<std::vector<Operation>> threads{};
};

// "ace1", "ace2": every sequence of one or two operations with each point of persistence, between two as well; "ace3":
// `count` sampled ones. Here and below, `large_values`: attributes have values that a block does not hold.
std::vector<Workload> ace_workloads(unsigned length, std::uint64_t seed, std::size_t count, bool large_values = false);
// Bytes of a few files, by every operation on them.
Workload exerciser(std::uint64_t seed, std::size_t steps);
// Both by three threads at once; when they take turns is up to the machine.
Workload stress(std::uint64_t seed, std::size_t steps);
// Names in a few directories.
Workload namespace_stress(std::uint64_t seed, std::size_t steps, bool large_values = false);
// The ways in which programs replace a file, with nothing synced that is not asked for.
std::vector<Workload> replacements();
// On a full file system, blocks that the log has images of are freed and used for data, and the other way round.
Workload reuse(std::uint64_t seed, bool large_values = false);
// Files that lose their names while they are open, and are given up in another order, with commits between.
Workload held(std::uint64_t seed);
// The log is filled and begins anew, several times.
Workload wrap(std::uint64_t seed);
// Files in hundreds of pieces are moved along, punched, cut and deleted, each in several transactions of a small log.
Workload fragments(std::uint64_t seed);

}  // namespace uext4::crash

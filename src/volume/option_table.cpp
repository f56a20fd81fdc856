#include "volume/option_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace uext4 {

namespace {

using enum OptionTarget;

constexpr MountOption table[] = {
    {"ro", "", "verbs that read", "Read only.", image},
    {"rw", "", "mount, verbs that write",
     "Write as well. `uext4 mount -o rw` fails where only reading is possible; without it the mount is read-only then.",
     image},
    {"noload norecovery", "", "the journal is replayed", "Show the image as it is on disk. Needs `ro`.", image},
    {"sb=", "1 KiB", "the superblock at 1 KiB", "Use the backup superblock at this place. Needs `ro`.", image},
    {"offset=", "bytes, or with K, M, G, T", "0", "The file system begins here in the image or partition.", image},
    {"cache=", "`auto`, or bytes, also with K, M, G, T", "auto; of a mount 128M",
     "Memory for the contents of files; at least 1M.", image},
    {"data=", "`journal`, `ordered` or `writeback`", "ordered",
     "What of the contents of files goes through the journal. `writeback` is taken as `ordered`.", image},
    {"commit=", "seconds, at most 86400; 0 is the default", "5", "Time between commits of the journal.", image},
    {"errors=", "`continue`, `remount-ro` or `panic`", "as the superblock says", "What follows damage.", image},
    {"barrier", "[0 or 1]", "1", "Flush the caches of the device.", image},
    {"nobarrier", "", "", "The same as `barrier=0`.", image},
    {"discard", "", "nodiscard", "Tell the device which blocks are free.", image},
    {"nodiscard", "", "so", "Takes back `discard`.", image},
    {"noatime", "", "relatime", "Reading moves no access time.", image},
    {"relatime atime", "", "so", "Reading moves an access time that is older than a day, or than the last change.",
     image},
    {"strictatime", "", "relatime", "Reading always moves the access time.", image},
    {"nodiratime", "", "diratime", "Reading moves no access time of directories.", image},
    {"diratime", "", "so", "Takes back `nodiratime`.", image},
    {"user_xattr", "", "so", "Attributes of the class `user.`.", image},
    {"nouser_xattr", "", "user_xattr", "No attributes of the class `user.`.", image},
    {"acl", "", "so", "Access control lists.", image},
    {"noacl", "", "acl", "No access control lists.", image},
    {"sync", "", "async", "Each change is durable when its call returns.", image},
    {"async", "", "so", "Takes back `sync`.", image},
    {"dirsync", "", "async", "Each change of a directory is durable when its call returns.", image},
    {"auto_da_alloc", "[0 or 1]", "1", "Write a file back that replaces another one by rename or truncate.", image},
    {"noauto_da_alloc", "", "", "The same as `auto_da_alloc=0`.", image},
    {"delalloc", "", "so", "Allocate when data is written back. Not with `data=journal`.", image},
    {"grpid bsdgroups", "", "nogrpid", "A new file has the group of its directory.", image},
    {"nogrpid sysvgroups", "", "so", "A new file has the group of its maker.", image},
    {"resuid=", "user number", "as the superblock says", "This user may use the reserved blocks.", image},
    {"resgid=", "group number", "as the superblock says", "This group may use the reserved blocks.", image},

    {"allow_other", "", "on for root", "Other users may use the mount.", mount},
    {"auto_unmount", "", "off",
     "If the server dies, the supervisor takes the mount away. If both are killed at the same moment, the dead mount "
     "stays for `uext4 umount`.",
     mount},
    {"placement", "", "so",
     "The server's thread moves to its caller's CPU while trials find that this answers more. On two CPUs the other "
     "one "
     "is kept awake meanwhile, with time that nothing else wants.",
     mount},
    {"noplacement", "", "placement", "The server's thread runs where the kernel puts it.", mount},
    {"sandbox", "", "so",
     "The server gives up capabilities, new files, exec, sockets and rings before it reads the image (adr/0006).",
     mount},
    {"nosandbox", "", "sandbox", "The server keeps its rights.", mount},
    {"max_read=", "bytes, at least 4096", "the kernel's", "Largest read request.", mount},
    {"fsname=", "name", "the image's whole path", "Source in the mount table. Of a descriptor: the path that it has.",
     mount},
    {"subtype=", "name", "uext4", "The type in the mount table is `fuse.NAME`.", mount},
    {"nodev nosuid", "", "so", "No devices; no set-id bits.", mount},
    {"dev suid", "", "nodev,nosuid", "Devices; set-id bits. For root.", mount},
    {"noexec", "", "exec", "No programs are started from the mount.", mount},
    {"exec", "", "so", "Takes back `noexec`.", mount},
    {"user", "[name]", "off",
     "`noexec,nosuid,nodev`, unless a later option says otherwise. `user=NAME`, which mount(8) notes, changes nothing.",
     mount},
    {"users", "", "off", "`noexec,nosuid,nodev`, unless a later option says otherwise.", mount},
    {"owner group", "", "off", "`nosuid,nodev`, unless a later option says otherwise.", mount},
    {"nofail", "", "off",
     "If the image is not there, a message says so and the exit status is 0. Any other failure stays one.", mount},

    {"default_permissions", "", "", "The kernel always checks permissions.", nothing},
    {"loop", "", "", "An image needs no loop device.", nothing},
    {"lazytime", "", "",
     "Times that only reads and writes in place move always stay in memory until their inode changes otherwise, until "
     "a "
     "sync, or for some seconds.",
     nothing},
    {"block_validity dioread_nolock nombcache noquota i_version noinit_itable nomand bsddf", "", "", "Always so.",
     nothing},
    {"defaults auto noauto nouser nousers noowner nogroup _netdev", "", "", "For mount(8) and what starts the machine.",
     nothing},
    {"comment x-* X-*", "[text]", "", "For the reader of fstab, and for other programs.", nothing},

    {"abort bh dax debug dioread_lock fc_debug_force grpjquota grpquota init_itable inlinecrypt inode_readahead_blks "
     "journal_async_commit journal_checksum journal_dev journal_ioprio journal_path jqfmt data_err mand max_batch_time "
     "max_dir_size_kb mb_optimize_scan min_batch_time minixdf no_mbcache no_prefetch_block_bitmaps noblock_validity "
     "nodelalloc nolazytime nouid32 nowarn_on_error oldalloc orlov prefetch_block_bitmaps prjquota quota stripe "
     "test_dummy_encryption usrjquota usrquota warn_on_error",
     "[any]", "", "Options of the kernel's ext4 that are not offered.", refused},
    {"allow_root blkdev gid remount uid umask", "[any]", "",
     "Options of other FUSE servers and of mount(8) that are not offered.", refused},
};

// Of one change a letter: put in, left out, or exchanged.
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t above = row[j];
            row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
            diagonal = above;
        }
    }
    return row[b.size()];
}

bool has_name(const MountOption& row, std::string_view name) {
    bool found = false;
    for_each_name(row, [&](std::string_view one) {
        if (one.ends_with('=')) one.remove_suffix(1);
        found = found || (one.ends_with('*') ? name.starts_with(one.substr(0, one.size() - 1)) : name == one);
    });
    return found;
}

}  // namespace

std::span<const MountOption> option_table() { return table; }

const MountOption* find_option(std::string_view name) {
    const auto* row = std::ranges::find_if(table, [&](const MountOption& r) { return has_name(r, name); });
    return row == std::end(table) ? nullptr : row;
}

std::string similar_option(std::string_view name) {
    constexpr std::size_t longest = 40;
    if (name.size() > longest) return {};
    std::size_t nearest = 1 + name.size() / 4;  // two letters of a short word make another one
    std::string_view found;
    for (const MountOption& row : table)
        for_each_name(row, [&](std::string_view one) {
            if (row.use == refused || one.ends_with('*')) return;
            const std::size_t steps = distance(name, one.substr(0, one.find('=')));
            if (steps > nearest || (steps == nearest && !found.empty())) return;
            nearest = steps;
            found = one;
        });
    return found.empty() ? "" : fmt::format("; did you mean '{}'?", found);
}

}  // namespace uext4

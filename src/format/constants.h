// Numbers of the ext4 on-disk format (kernel documentation, "ext4 Data Structures and Algorithms").
#pragma once

#include <cstdint>
#include <string>

namespace uext4::format {

inline constexpr std::uint16_t super_magic = 0xEF53;
inline constexpr std::uint64_t super_offset = 1024;  // bytes from the start of the device
inline constexpr std::uint32_t max_block_size = 65536;
inline constexpr unsigned max_name_length = 255;
inline constexpr std::uint32_t max_links = 65000;

namespace compat {
inline constexpr std::uint32_t dir_prealloc = 0x1, imagic = 0x2, has_journal = 0x4, ext_attr = 0x8, resize_inode = 0x10,
                               dir_index = 0x20, lazy_bg = 0x40, exclude_inode = 0x80, exclude_bitmap = 0x100,
                               sparse_super2 = 0x200, fast_commit = 0x400, stable_inodes = 0x800, orphan_file = 0x1000;
}
namespace incompat {
inline constexpr std::uint32_t compression = 0x1, filetype = 0x2, recover = 0x4, journal_dev = 0x8, meta_bg = 0x10,
                               extents = 0x40, bit64 = 0x80, mmp = 0x100, flex_bg = 0x200, ea_inode = 0x400,
                               dirdata = 0x1000, csum_seed = 0x2000, large_dir = 0x4000, inline_data = 0x8000,
                               encrypt = 0x10000, casefold = 0x20000;
}
namespace ro_compat {
inline constexpr std::uint32_t sparse_super = 0x1, large_file = 0x2, btree_dir = 0x4, huge_file = 0x8, gdt_csum = 0x10,
                               dir_nlink = 0x20, extra_isize = 0x40, has_snapshot = 0x80, quota = 0x100,
                               bigalloc = 0x200, metadata_csum = 0x400, replica = 0x800, readonly = 0x1000,
                               project = 0x2000, shared_blocks = 0x4000, verity = 0x8000, orphan_present = 0x10000;
}

enum class FeatureSet : std::uint8_t { compat, incompat, ro_compat };
// Names of the set bits, in e2fsprogs' words, separated by spaces; unknown ones as FEATURE_C12 and the like.
std::string feature_names(FeatureSet set, std::uint32_t bits);

namespace inode_flag {
inline constexpr std::uint32_t secrm = 0x1, unrm = 0x2, compr = 0x4, sync = 0x8, immutable = 0x10, append = 0x20,
                               nodump = 0x40, noatime = 0x80, dirty = 0x100, comprblk = 0x200, nocompr = 0x400,
                               encrypt = 0x800, index = 0x1000, imagic = 0x2000, journal_data = 0x4000, notail = 0x8000,
                               dirsync = 0x10000, topdir = 0x20000, huge_file = 0x40000, extents = 0x80000,
                               verity = 0x100000, ea_inode = 0x200000, eofblocks = 0x400000, dax = 0x2000000,
                               inline_data = 0x10000000, projinherit = 0x20000000, casefold = 0x40000000,
                               reserved = 0x80000000;
}

namespace special_inode {
inline constexpr std::uint32_t bad_blocks = 1, root = 2, user_quota = 3, group_quota = 4, boot_loader = 5, undelete = 6,
                               resize = 7, journal = 8, exclude = 9, replica = 10, first_default = 11;
}

namespace creator_os {
inline constexpr std::uint32_t linux_os = 0, hurd = 1;
}

namespace super_state {
inline constexpr std::uint16_t valid = 1, errors = 2, orphans = 4, fast_commit_replay = 0x20;
}
namespace error_policy {
inline constexpr std::uint16_t carry_on = 1, remount_ro = 2, panic = 3;
}
// s_default_mount_opts. (Names of users and ACLs are always on, as in Linux.)
namespace default_option {
inline constexpr std::uint32_t bsd_groups = 0x2, uid16 = 0x10, data_mask = 0x60, data_journal = 0x20,
                               data_writeback = 0x60, no_barrier = 0x100, discard = 0x400, no_delalloc = 0x800;
}
namespace group_flag {
inline constexpr std::uint16_t inode_uninit = 1, block_uninit = 2, inode_zeroed = 4;
}
namespace super_flag {
inline constexpr std::uint32_t signed_hash = 1, unsigned_hash = 2, test_filesystem = 4;
}

enum class FileType : std::uint8_t {
    unknown,
    regular,
    directory,
    char_device,
    block_device,
    fifo,
    socket,
    symlink,
    checksum = 0xDE
};
FileType file_type_of_mode(std::uint16_t mode);
std::uint8_t dt_of_file_type(std::uint8_t type);  // DT_* of <dirent.h>
std::uint8_t file_type_of_dt(std::uint8_t dt);

}  // namespace uext4::format

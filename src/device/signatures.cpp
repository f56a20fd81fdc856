#include "device/signatures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace uext4 {

namespace {

using namespace std::string_view_literals;

// Those that are sure come before those that other formats may contain.
constexpr Signature signatures[] = {
    {0, "QFI\xfb"sv, "a qcow2 image", "`qemu-img convert -O raw {} raw.img` makes a raw disk of it"},
    {0, "QED\0"sv, "a QED image", "`qemu-img convert -f qed -O raw {} raw.img` makes a raw disk of it"},
    {0, "conectix"sv, "a VHD image", "`qemu-img convert -f vpc -O raw {} raw.img` makes a raw disk of it"},
    {0, "vhdxfile"sv, "a VHDX image", "`qemu-img convert -f vhdx -O raw {} raw.img` makes a raw disk of it"},
    {0, "KDMV"sv, "a VMDK image", "`qemu-img convert -f vmdk -O raw {} raw.img` makes a raw disk of it"},
    {0, "# Disk DescriptorFile"sv, "the description of a VMDK image, whose data is in other files",
     "`qemu-img convert -f vmdk -O raw {} raw.img` makes a raw disk of it"},
    {64, "\x7f\x10\xda\xbe"sv, "a VDI image", "`qemu-img convert -f vdi -O raw {} raw.img` makes a raw disk of it"},
    {0, "WithoutFreeSpace"sv, "a Parallels image",
     "`qemu-img convert -f parallels -O raw {} raw.img` makes a raw disk of it"},
    {0, "WithouFreSpacExt"sv, "a Parallels image",
     "`qemu-img convert -f parallels -O raw {} raw.img` makes a raw disk of it"},
    {0, "\x3a\xff\x26\xed"sv, "an Android sparse image", "`simg2img {} raw.img` makes a raw image of it"},
    {4096, "\x67\x44\x6c\x61"sv, "an Android super partition", "`lpunpack {} DIRECTORY` unpacks the partitions in it"},
    {0, "ANDROID!"sv, "an Android boot image", "`unpack_bootimg --boot_img {}` unpacks it"},
    {0, "\x1f\x8b\x08"sv, "compressed by gzip", "`gzip -dc {} > raw.img` unpacks it"},
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "compressed by xz", "`xz -dc {} > raw.img` unpacks it"},
    {0, "\x28\xb5\x2f\xfd"sv, "compressed by zstd", "`zstd -dc {} > raw.img` unpacks it"},
    {0, "BZh"sv, "compressed by bzip2", "`bzip2 -dc {} > raw.img` unpacks it"},
    {0, "\x04\x22\x4d\x18"sv, "compressed by lz4", "`lz4 -dc {} > raw.img` unpacks it"},
    {0, "\x02\x21\x4c\x18"sv, "compressed by lz4", "`lz4 -dc {} > raw.img` unpacks it"},
    {0, "\x89LZO\0\r\n\x1a\n"sv, "compressed by lzop", "`lzop -dc {} > raw.img` unpacks it"},
    {0, "LZIP"sv, "compressed by lzip", "`lzip -dc {} > raw.img` unpacks it"},
    {0, "PK\x03\x04"sv, "a zip archive", "`unzip {}` unpacks it"},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive", "`7z x {}` unpacks it"},
    {0, "Rar!\x1a\x07"sv, "a RAR archive", "`unrar x {}` unpacks it"},
    {257, "ustar"sv, "a tar archive", "`tar -xf {}` unpacks it"},
    {0, "070701"sv, "a cpio archive", "`cpio -id < {}` unpacks it"},
    {0, "!<arch>\n"sv, "an ar archive or a Debian package", "`ar x {}` unpacks it"},
    {0, "LUKS\xba\xbe"sv, "an encrypted volume (LUKS)",
     "`cryptsetup open {} NAME` decrypts it, and /dev/mapper/NAME is then the image to use"},
    {0x218, "LVM2 001"sv, "a physical volume of LVM",
     "`losetup -f --show {}` makes a device of a file, `vgchange -ay` shows the volumes; /dev/GROUP/VOLUME is then the "
     "image to use"},
    {0x18, "LVM2 001"sv, "a physical volume of LVM",
     "`losetup -f --show {}` makes a device of a file, `vgchange -ay` shows the volumes; /dev/GROUP/VOLUME is then the "
     "image to use"},
    {0, "hsqs"sv, "a squashfs file system", "`unsquashfs {}` unpacks it"},
    {0, "sqsh"sv, "a squashfs file system", "`unsquashfs {}` unpacks it"},
    {1024, "\xe2\xe1\xf5\xe0"sv, "an EROFS file system", "`fsck.erofs --extract=DIRECTORY {}` unpacks it"},
    {0, "\x45\x3d\xcd\x28"sv, "a cramfs file system", "`mount -t cramfs -o loop {} DIRECTORY` mounts it"},
    {0, "-rom1fs-"sv, "a romfs file system", "`mount -t romfs -o loop {} DIRECTORY` mounts it"},
    {0, "UBI#"sv, "a UBI image", "nandsim and `ubiattach` make volumes of it"},
    {0, "XFSB"sv, "an XFS file system", "`mount -t xfs -o loop {} DIRECTORY` mounts it"},
    {0x10040, "_BHRfS_M"sv, "a btrfs file system", "`mount -t btrfs -o loop {} DIRECTORY` mounts it"},
    {1024, "\x10\x20\xf5\xf2"sv, "an F2FS file system", "`mount -t f2fs -o loop {} DIRECTORY` mounts it"},
    {0x8001, "CD001"sv, "an ISO 9660 file system (a CD or DVD)",
     "`mount -t iso9660 -o loop {} DIRECTORY` mounts it, `7z x {}` unpacks it"},
    {0x8001, "BEA01"sv, "a UDF file system", "`mount -t udf -o loop {} DIRECTORY` mounts it"},
    {3, "NTFS    "sv, "an NTFS file system", "`mount -t ntfs3 -o loop {} DIRECTORY` mounts it"},
    {3, "EXFAT   "sv, "an exFAT file system", "`mount -t exfat -o loop {} DIRECTORY` mounts it"},
    {82, "FAT32   "sv, "a FAT file system",
     "`mount -t vfat -o loop {} DIRECTORY` mounts it, `mcopy -i {}` copies from it"},
    {54, "FAT16   "sv, "a FAT file system",
     "`mount -t vfat -o loop {} DIRECTORY` mounts it, `mcopy -i {}` copies from it"},
    {54, "FAT12   "sv, "a FAT file system",
     "`mount -t vfat -o loop {} DIRECTORY` mounts it, `mcopy -i {}` copies from it"},
    {4086, "SWAPSPACE2"sv, "swap space", "it holds no files"},
    {16374, "SWAPSPACE2"sv, "swap space", "it holds no files"},
    {65526, "SWAPSPACE2"sv, "swap space", "it holds no files"},
    {4086, "S1SUSPEND"sv, "swap space with a suspended system", "it holds no files"},
    {1080, "\x53\xef"sv, "ext2, ext3 or ext4", ""},
};

constexpr std::uint64_t looked_at = 0x10050;  // where the last one ends

}  // namespace

const Signature* identify_signature(const ReadAt& read, std::uint64_t size) {
    std::vector<std::byte> start(std::min(size, looked_at));
    if (!read(0, start)) return nullptr;
    const auto* found = std::ranges::find_if(signatures, [&](const Signature& s) {
        return s.offset + s.bytes.size() <= start.size() &&
               std::memcmp(start.data() + s.offset, s.bytes.data(), s.bytes.size()) == 0;
    });
    return found == std::end(signatures) ? nullptr : found;
}

std::string describe(const Signature& signature, const std::string& image) {
    std::string advice(signature.hint);
    for (std::size_t at = 0; (at = advice.find("{}", at)) != std::string::npos; at += image.size())
        advice.replace(at, 2, image);
    return fmt::format("{}; {}", signature.description, advice);
}

}  // namespace uext4

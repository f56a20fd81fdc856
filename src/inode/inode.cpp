#include "inode/inode.h"

#include "inode/added_features.h"
#include "inode/inline_data.h"
#include "inode/inode_table.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace uext4 {

namespace {
constexpr std::uint64_t in_memory = sizeof(Inode) + 512;  // with what is on disk of it and its place in the table

std::vector<std::byte> with_all_fields(std::vector<std::byte> raw) {
    raw.resize(std::max(raw.size(), sizeof(format::InodeDisk)));
    return raw;
}
}  // namespace

Inode::Inode(FsContext& fs, InodeTable& table, InodeNr number, std::vector<std::byte> raw)
    : rw(Rank::Inode, "Inode::rw", number.value),
      fs_(fs),
      table_(table),
      number_(number),
      raw_size_(raw.size()),
      raw_(with_all_fields(std::move(raw))),
      flags_(disk().flags),
      size_(disk_size()),
      sizes_after_crash_(size_),
      map_(MapEnvironment{fs.buffers, fs.allocator}, *this),
      extent_status_(fs, map_, *this),
      pages_(fs.pages, number.value) {
    call_lock.set_inode(number.value);
    map_lock.set_inode(number.value);
    flush_lock.set_inode(number.value);
    has_links_.store(disk().links_count != 0, std::memory_order_release);
    fs_.inode_memory.fetch_add(in_memory, std::memory_order_relaxed);
}

Inode::~Inode() {
    set_times_pending(false);
    fs_.inode_memory.fetch_sub(in_memory, std::memory_order_relaxed);
}

const format::InodeDisk& Inode::disk() const { return view_as<format::InodeDisk>(ConstBytes(raw_)); }
format::InodeDisk& Inode::disk() { return view_as<format::InodeDisk>(Bytes(raw_)); }

std::uint32_t Inode::generation() const { return disk().generation; }
std::uint16_t Inode::mode() const { return disk().mode; }
std::uint32_t Inode::uid() const { return disk().uid_lo | std::uint32_t{disk().uid_hi} << 16; }
std::uint32_t Inode::gid() const { return disk().gid_lo | std::uint32_t{disk().gid_hi} << 16; }
std::uint32_t Inode::links() const { return disk().links_count; }
std::uint32_t Inode::flags() const { return flags_.load(std::memory_order_relaxed); }
// Without the feature the flag says nothing, as for the kernel.
bool Inode::is_inline() const {
    return has_flag(format::inode_flag::inline_data) && fs_.geometry.has_incompat(format::incompat::inline_data);
}
bool Inode::has_map() const {
    if (is_inline()) return false;
    if (is_symlink()) return block_count_512() > 0 && (uses_extents() || size_hint() >= sizeof disk().block);
    return is_regular() || is_directory();
}
bool Inode::uses_extents() const { return has_flag(format::inode_flag::extents); }
bool Inode::will_use_extents() const {
    return uses_extents() || (is_inline() && fs_.geometry.has_incompat(format::incompat::extents));
}
void Inode::set_mode(std::uint16_t mode) {
    disk().mode = mode;
    nosec.store(false, std::memory_order_relaxed);
}
void Inode::set_links(std::uint32_t links) {
    disk().links_count = static_cast<std::uint16_t>(links);
    atomic_point("Inode::has_links", &has_links_);
    has_links_.store(links != 0, std::memory_order_release);
}
void Inode::set_flags(std::uint32_t flags) {
    disk().flags = flags;
    flags_.store(flags, std::memory_order_relaxed);
}

void Inode::set_owner(std::uint32_t uid, std::uint32_t gid) {
    disk().uid_lo = static_cast<std::uint16_t>(uid);
    disk().uid_hi = static_cast<std::uint16_t>(uid >> 16);
    disk().gid_lo = static_cast<std::uint16_t>(gid);
    disk().gid_hi = static_cast<std::uint16_t>(gid >> 16);
}

namespace {

const Le32* extra(ConstBytes raw, bool has, const Le32& field) {
    (void)raw;
    return has ? &field : nullptr;
}

}  // namespace

format::Timestamp Inode::atime() const {
    return format::decode_time(disk().atime, extra(raw(), UEXT4_INODE_HAS(raw(), atime_extra), disk().atime_extra));
}
format::Timestamp Inode::mtime() const {
    return format::decode_time(disk().mtime, extra(raw(), UEXT4_INODE_HAS(raw(), mtime_extra), disk().mtime_extra));
}
format::Timestamp Inode::ctime() const {
    return format::decode_time(disk().ctime, extra(raw(), UEXT4_INODE_HAS(raw(), ctime_extra), disk().ctime_extra));
}
std::optional<format::Timestamp> Inode::crtime() const {
    if (!UEXT4_INODE_HAS(raw(), crtime)) return {};
    return format::decode_time(disk().crtime, extra(raw(), UEXT4_INODE_HAS(raw(), crtime_extra), disk().crtime_extra));
}
void Inode::set_atime(format::Timestamp t) {
    format::encode_time(t, disk().atime, UEXT4_INODE_HAS(raw(), atime_extra) ? &disk().atime_extra : nullptr);
}
void Inode::set_mtime(format::Timestamp t) {
    format::encode_time(t, disk().mtime, UEXT4_INODE_HAS(raw(), mtime_extra) ? &disk().mtime_extra : nullptr);
}
void Inode::set_ctime(format::Timestamp t) {
    format::encode_time(t, disk().ctime, UEXT4_INODE_HAS(raw(), ctime_extra) ? &disk().ctime_extra : nullptr);
}

void Inode::bump_version() {
    if (fs_.geometry.hurd) return;  // a translator's block is named there
    std::uint64_t v = disk().version_lo.get();
    if (UEXT4_INODE_HAS(raw(), version_hi)) v |= std::uint64_t{disk().version_hi.get()} << 32;
    ++v;
    disk().version_lo = static_cast<std::uint32_t>(v);
    if (UEXT4_INODE_HAS(raw(), version_hi)) disk().version_hi = static_cast<std::uint32_t>(v >> 32);
}

std::uint64_t Inode::block_count_512() const { return format::inode_sectors(fs_.geometry, disk()); }

BlockNr Inode::xattr_block() const {
    return BlockNr(
        disk().file_acl_lo.get() |
        (fs_.geometry.has_incompat(format::incompat::bit64) ? std::uint64_t{disk().file_acl_hi.get()} << 32 : 0));
}

void Inode::set_xattr_block(BlockNr block) {
    disk().file_acl_lo = static_cast<std::uint32_t>(block.value);
    if (fs_.geometry.has_incompat(format::incompat::bit64))
        disk().file_acl_hi = static_cast<std::uint16_t>(block.value >> 32);
}

std::uint64_t Inode::device_number() const {
    return S_ISCHR(mode()) || S_ISBLK(mode()) ? format::decode_device(disk()) : 0;
}

void Inode::fill_stat(struct stat& out) {
    MutexLock guard(map_lock);
    out = {};
    out.st_ino = number_.value;
    out.st_mode = mode();
    out.st_nlink = links();
    out.st_uid = uid();
    out.st_gid = gid();
    out.st_rdev = device_number();
    out.st_size = is_directory() && links() == 0 ? 0 : static_cast<off_t>(size_);  // nothing can be in it any more
    out.st_blksize = fs_.block_size();
    const std::uint64_t promised = delalloc_.sectors();
    out.st_blocks = static_cast<blkcnt_t>(block_count_512() + promised);
    // Bytes that live in the inode count as sectors, as Linux counts them: programs take a file without any for a hole.
    // Once they have outgrown it, their blocks are promised.
    if (is_regular() && is_inline() && promised == 0) out.st_blocks += static_cast<blkcnt_t>((size_ + 511) / 512);
    auto put = [](timespec& to, format::Timestamp from) { to = {from.sec, static_cast<long>(from.nsec)}; };
    put(out.st_atim, atime());
    put(out.st_mtim, mtime());
    put(out.st_ctim, ctime());
}

void Inode::set_size(std::uint64_t size) {
    // Client maps reach as far as the file before anybody can know that it grew.
    if (ClientMapsHook* maps = pages_.client_maps()) maps->extend(size);
    atomic_point("Inode::size", &size_);
    __atomic_store_n(&size_, size, __ATOMIC_RELEASE);
}
std::uint64_t Inode::disk_size() const { return format::inode_size_bytes(fs_.geometry, disk()); }
void Inode::set_disk_size(std::uint64_t size) { format::set_inode_size_bytes(disk(), size); }

std::optional<std::uint64_t> Inode::size_after_crash(std::uint64_t from) {
    if (!fs_.journal.has_log()) return std::nullopt;
    return sizes_after_crash_.smallest_within_block(from, fs_.block_size(), fs_.journal);
}

Result<void> Inode::revoke_data(Handle& handle, BlockNr first, std::uint64_t count) const {
    if (!has_journaled_data()) return fs_.logged_data_blocks.revoke(handle, first, count);
    for (std::uint64_t i = 0; i < count; ++i) TRY(handle.revoke(first + i));
    return {};
}

bool Inode::journals_data() const {
    return is_regular() && fs_.journal.has_log() &&
           (fs_.options.data_journal || has_flag(format::inode_flag::journal_data)) &&
           !has_flag(format::inode_flag::ea_inode);
}

Result<BufferRef> Inode::read_inode_table_block() {
    // Asked for once: who has joined the inode's block to the transaction stores it without reading anything.
    if (!location_) location_ = TRY(fs_.allocator.locate_inode(number_));
    return fs_.buffers.read(location_->block, "inode table");
}

Result<BufferRef> Inode::get_table_write_access(Handle& handle) {
    BufferRef buffer = TRY(read_inode_table_block());
    TRY(handle.get_write_access(buffer));
    return buffer;
}

Result<void> Inode::clear_inline(Handle& handle) { return clear_inline_data(handle, *this); }

Result<void> Inode::get_write_access(Handle& handle) {
    TRY(get_table_write_access(handle));
    return {};
}

Result<BufferRef> Inode::get_store_access(Handle& handle) {
    if (disk_size() > max_small_file_size) TRY(enable_large_file(fs_, handle));
    return get_table_write_access(handle);
}

Result<void> Inode::store(Handle& handle, bool data) {
    const Result<BufferRef> joined = get_store_access(handle);
    if (!joined) {
        set_times_pending(true);
        unstored_ = unstored_ || data;
        return fail(joined.error());
    }
    const BufferRef& buffer = *joined;
    if (std::exchange(unstored_, false)) data = true;
    format::set_inode_checksum(fs_.geometry, number_, raw());
    {
        MutexLock guard(buffer->lock);
        buffer->set_kind(BlockKind::inode_table);
        std::memcpy(buffer->data().data() + location_->offset, raw_.data(), raw_size_);
    }
    set_times_pending(false);
    note_tid(handle.tid(), data);
    sizes_after_crash_.note_stored(disk_size(), handle.tid(), fs_.journal);
    return {};
}

Bytes Inode::i_block() { return Bytes(disk().block, sizeof disk().block); }

Result<void> Inode::add_blocks(Handle& handle, std::int64_t fs_blocks) {
    const std::int64_t sectors = fs_blocks * static_cast<std::int64_t>(fs_.block_size() / 512);
    const std::int64_t now = static_cast<std::int64_t>(block_count_512()) + sectors;
    if (now < 0) return fail(EUCLEAN, "inode {}: i_blocks would be {}", number_, now);
    if (now > std::int64_t{0xFFFFFFFF} && !fs_.geometry.has_ro_compat(format::ro_compat::huge_file))
        return fail(EFBIG, "inode {}: {} sectors are too many without the feature huge_file", number_, now);
    format::set_inode_sectors(fs_.geometry, disk(), static_cast<std::uint64_t>(now));
    set_flags(disk().flags);  // perhaps the unit of the count has changed
    if (counts_as_deleting_) count_as_deleting();
    return store(handle);
}

void Inode::count_as_deleting() {
    counts_as_deleting_ = true;
    const std::uint64_t blocks = block_count_512() / (fs_.block_size() / 512) + delalloc_.reserved_blocks();
    const auto has = static_cast<std::int64_t>(blocks);
    fs_.allocator.add_pending_free_blocks(has - std::exchange(deleting_blocks_, has));
}

void Inode::end_counting_as_deleting() {
    counts_as_deleting_ = false;
    fs_.allocator.add_pending_free_blocks(-std::exchange(deleting_blocks_, 0));
}

// ---- references

InodeRef::InodeRef(const InodeRef& other) : inode_(other.inode_) {
    if (!inode_) return;
    atomic_point("Inode::references", &inode_->references_);
    inode_->references_.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace uext4

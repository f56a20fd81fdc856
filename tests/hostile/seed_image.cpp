#include "tests/hostile/seed_image.h"

#include "format/acl.h"
#include "format/journal.h"
#include "tests/hostile/ciphered_image.h"
#include "tests/hostile/fast_commit_image.h"
#include "tests/hostile/logged_blocks.h"
#include "tests/hostile/must.h"
#include "tests/root.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <mutex>

namespace uext4::hostile {

namespace {

struct Recipe {
    std::string_view name, features;
};
constexpr std::string_view of_checksums =
    "-t ext4 -I 256 -g 2048 -O metadata_csum,64bit,orphan_file,ea_inode,large_dir,^resize_inode";
constexpr std::string_view of_bare = "-t ext4 -I 256 -g 2048 -O ^metadata_csum,uninit_bg,64bit,ea_inode,^resize_inode";
constexpr std::array<Recipe, seed_kind_count> recipes{{
    {"checksums", of_checksums},
    {"bare", of_bare},
    {"inline_data", "-t ext4 -I 256 -g 4096 -O metadata_csum,inline_data"},
    {"indirect", "-t ext3 -I 128 -g 4096"},
    {"bigalloc", "-t ext4 -I 256 -O metadata_csum,bigalloc -C 4096"},
    {"protected_mmp", "-t ext4 -I 256 -O metadata_csum,mmp"},
    {"dirty_v3", "-t ext4 -I 256 -g 4096 -O metadata_csum,64bit"},
    {"dirty_bare", "-t ext4 -I 256 -g 4096 -O ^metadata_csum,^64bit"},
    {"fast_commits", "metadata_csum,64bit"},
    {"dirty_v2", "-t ext4 -I 256 -g 4096 -O metadata_csum,64bit,orphan_file"},
    {"dirty_v1", "-t ext4 -I 256 -g 4096 -O ^metadata_csum,uninit_bg,^64bit"},
    {"ciphered", "-t ext4 -I 256 -g 4096 -O metadata_csum,64bit"},
    {"few_names", of_checksums},
    {"few_names_bare", of_bare},
}};

// Whoever visits an image looks up each name, twice or more: most of the time, where there are many.
constexpr int names_for_one_level = 30, names_for_inner_nodes = 340;
bool has_inner_nodes(SeedKind kind) {
    return kind == SeedKind::checksums || kind == SeedKind::bare || kind == SeedKind::indirect ||
           kind == SeedKind::dirty_v3;
}
bool has_large_values(SeedKind kind) {
    return kind == SeedKind::checksums || kind == SeedKind::bare || kind == SeedKind::few_names ||
           kind == SeedKind::few_names_bare;
}

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
    std::vector<std::byte> out(size);
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>((i * 31 + seed * 17 + i / 251) | 1);
    return out;
}

class Filler {
public:
    explicit Filler(FileSystem& fs) : fs_(fs) {}

    void write(const std::string& path, std::uint64_t at, std::size_t size) {
        auto file = must(fs_.open_path(path, O_CREAT | O_RDWR, 0644, root));
        must(file->write(at, pattern(size, static_cast<unsigned>(at + size))));
    }
    InodeRef make(const std::string& path, mode_t mode, dev_t rdev = 0, std::string_view target = {}) {
        const auto parent = must(fs_.resolve_parent(path, root));
        return must(fs_.create(*parent.directory, parent.name, mode, rdev, target, root, true));
    }
    void attribute(const std::string& path, std::string_view name, std::size_t size) {
        const auto value = pattern(size, 3);
        must(fs_.set_xattr(*must(fs_.resolve(path, root)), name, value, 0, root, true));
    }
    void acl(const std::string& path, std::string_view name) {
        format::Acl acl{{format::AclTag::user_obj, 7, 0},  {format::AclTag::user, 5, 1000},
                        {format::AclTag::group_obj, 5, 0}, {format::AclTag::group, 4, 100},
                        {format::AclTag::mask, 7, 0},      {format::AclTag::other, 4, 0}};
        must(fs_.set_xattr(*must(fs_.resolve(path, root)), name, format::encode_xattr_acl(acl), 0, root, true));
    }

    void fill(SeedKind kind) {
        write("/plain", 0, 5000);
        // Blocks that do not adjoin: a tree of two levels below the root, or single and double indirect blocks.
        const unsigned pieces = kind == SeedKind::bigalloc ? 90 : 340;
        for (unsigned i = 0; i < pieces; ++i) write("/pieces", std::uint64_t{i} * 8192 + 1024, 100);
        if (kind != SeedKind::indirect)
            must(must(fs_.open_path("/pieces", O_RDWR, 0, root))->fallocate(0, 1 << 16, 4096));
        write("/far", std::uint64_t{1} << 33, 3000);
        make("/linear", S_IFDIR | 0755);
        for (int i = 0; i < 8; ++i) write(fmt::format("/linear/file{}", i), 0, 40 + static_cast<std::size_t>(i) * 30);
        make("/linear/below", S_IFDIR | 0755);
        write("/linear/below/leaf", 0, 2000);
        // Names of 250 bytes: few of them fit in a block, so there soon is an index, and one of two levels.
        make("/hashed", S_IFDIR | 0755);
        const InodeRef target = must(fs_.resolve("/plain", root));
        const InodeRef hashed = must(fs_.resolve("/hashed", root));
        for (int i = 0; i < (has_inner_nodes(kind) ? names_for_inner_nodes : names_for_one_level); ++i)
            must(fs_.link(*target, *hashed, fmt::format("{:04}{}", i, std::string(246, 'n')), root, true));
        make("/short_link", S_IFLNK | 0777, 0, "plain");
        make("/long_link", S_IFLNK | 0777, 0, std::string(300, 't'));
        make("/device", S_IFCHR | 0600, makedev(1, 3));
        make("/fifo", S_IFIFO | 0600);
        write("/attributes", 0, 100);
        attribute("/attributes", "user.short", 20);
        attribute("/attributes", "user.long", 300);
        attribute("/attributes", "user.longer", 200);
        acl("/attributes", "system.posix_acl_access");
        make("/inherits", S_IFDIR | 0755);
        acl("/inherits", "system.posix_acl_default");
        if (has_large_values(kind)) attribute("/attributes", "user.huge", 5000);
    }

private:
    FileSystem& fs_;
};

std::shared_ptr<MemoryDevice> formatted(const Recipe& recipe) {
    const std::string path = fmt::format("/dev/shm/uext4-seed-{}", ::getpid());
    const bool journal = recipe.features.find("^has_journal") == std::string_view::npos;
    const std::string command = fmt::format(
        "E2FSPROGS_FAKE_TIME=1500000000 mke2fs -q -F -b 1024 -N 512 {} {} -U 01234567-89ab-cdef-0123-456789abcdef "
        "-E lazy_itable_init=0,hash_seed=01234567-89ab-cdef-0123-456789abcdef {} 12M 1>&2",
        journal ? "-J size=1" : "", recipe.features, path);
    const int status = std::system(command.c_str());
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fmt::print(stderr, "seed image: failed: {}\n", command);
        std::abort();
    }
    auto loaded = must(MemoryDevice::load(path));
    ::unlink(path.c_str());
    return std::shared_ptr<MemoryDevice>(std::move(loaded));
}

// An empty log that has it keeps it, where the file system's own features do not want better.
void choose_sums(const std::shared_ptr<MemoryDevice>& device, SeedKind kind) {
    const std::uint64_t at = log_of(device).front().first.value * 1024;
    format::JournalSuper super;
    must(device->read(at, std::as_writable_bytes(std::span(&super, 1))));
    if (kind == SeedKind::dirty_v1) {
        super.feature_compat = super.feature_compat | format::journal::compat_checksum;
    } else {
        super.feature_incompat = super.feature_incompat | format::journal::incompat_csum_v2;
        super.checksum_type = format::journal::checksum_crc32c;
        super.checksum = format::journal_super_checksum(super);
    }
    must(device->write(at, bytes_of(super)));
}

Seed make_seed(SeedKind kind) {
    if (kind == SeedKind::fast_commits)
        return {kind,
                everything_of(*clean_fast_commit_image(recipes[static_cast<std::size_t>(kind)].features)).crashed()};
    std::shared_ptr<MemoryDevice> device = formatted(recipes[static_cast<std::size_t>(kind)]);
    const bool dirty = has_log_to_replay(kind);
    if (kind == SeedKind::dirty_v1 || kind == SeedKind::dirty_v2) choose_sums(device, kind);
    Seed out{kind, nullptr};
    auto fs = must(mount_seed(device, ""));
    Filler filler(*fs);
    filler.fill(kind);
    if (kind == SeedKind::ciphered) {
        fill_secret(*fs);
        must(fs->unmount());
        cipher(device);
        return {kind, device};
    }
    if (dirty) {
        must(fs->sync());
        must(fs->volume().fs().journal.checkpoint_all());
        // What only the log knows: new files, a directory's blocks freed (revoked), attributes changed.
        const InodeRef linear = must(fs->resolve("/linear", root));
        const InodeRef top = must(fs->root());
        filler.make("/gone", S_IFDIR | 0755);
        for (int i = 0; i < 30; ++i) filler.make(fmt::format("/gone/{}{}", i, std::string(60, 'x')), S_IFIFO | 0600);
        must(fs->sync());
        const InodeRef gone = must(fs->resolve("/gone", root));
        for (int i = 0; i < 30; ++i) must(fs->unlink(*gone, fmt::format("{}{}", i, std::string(60, 'x')), root, true));
        must(fs->rmdir(*top, "gone", root, true));
        fs->volume().wait_for_deletions();
        filler.write("/late", 0, 9000);
        must(fs->unlink(*linear, "file3", root, true));
        // Blocks of every kind of tree that a file system has.
        for (unsigned i = 0; i < 8; ++i) filler.write("/pieces", std::uint64_t{i} * 81920 + 5120, 100);
        for (char c = 'a'; c < 'i'; ++c) filler.make(fmt::format("/hashed/{}", std::string(250, c)), S_IFREG | 0600);
        filler.attribute("/attributes", "user.long", 280);
        filler.acl("/attributes", "system.posix_acl_access");
        filler.write("/orphan", 0, 3000);
        const auto orphan = must(fs->open_path("/orphan", O_RDWR, 0, root));
        must(fs->unlink(*top, "orphan", root, true));
        must(fs->sync());
        out.image = device->clone();
        must(fs->unmount());
        return out;
    }
    // Two files without a name that somebody still has open: orphans on disk.
    filler.write("/orphan1", 0, 3000);
    filler.write("/orphan2", 0, 200);
    auto first = must(fs->open_path("/orphan1", O_RDWR, 0, root));
    auto second = must(fs->open_path("/orphan2", O_RDWR, 0, root));
    const InodeRef top = must(fs->root());
    must(fs->unlink(*top, "orphan1", root, true));
    must(fs->unlink(*top, "orphan2", root, true));
    must(fs->freeze());
    out.image = device->clone();
    must(fs->thaw());
    first.reset();
    second.reset();
    must(fs->unmount());
    return out;
}

}  // namespace

std::string_view seed_name(SeedKind kind) { return recipes[static_cast<std::size_t>(kind)].name; }

const Seed& seed(SeedKind kind) {
    static std::array<Seed, seed_kind_count> seeds;
    static std::array<std::once_flag, seed_kind_count> made;
    const auto index = static_cast<std::size_t>(kind);
    std::call_once(made[index], [&] { seeds[index] = make_seed(kind); });
    return seeds[index];
}

Result<std::unique_ptr<FileSystem>> mount_seed(std::shared_ptr<BlockDevice> device, std::string_view options,
                                               std::vector<std::string>* said) {
    VolumeOptions parsed = TRY(parse_all_options(options));
    parsed.background = false;
    parsed.cache_bytes = std::uint64_t{16} << 20;
    parsed.cache_grows = false;
    parsed.errors = ErrorPolicy::continue_;  // the superblock may say panic
    auto lock = std::make_shared<std::mutex>();
    return FileSystem::mount_device(std::move(device), parsed, [said, lock](const std::string& line) {
        const std::lock_guard guard(*lock);
        if (said) said->push_back(line);
    });
}

}  // namespace uext4::hostile

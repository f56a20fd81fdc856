// One piece of work on an image, and what it took of the device and of memory: a line of JSON. The instructions are
// counted by whoever runs this program.
#include "api/file_system.h"
#include "device/file_device.h"
#include "tests/root.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <sys/resource.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <map>

namespace uext4 {
namespace {

// Counts what the file system asks of a file.
class CountingDevice final : public BlockDevice {
public:
    explicit CountingDevice(std::unique_ptr<FileDevice> file) : file_(std::move(file)) {}
    std::uint64_t size() const override { return file_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override {
        read_blocks_ += blocks(offset, out.size());
        return file_->read(offset, out);
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        written_blocks_ += blocks(offset, in.size());
        return file_->write(offset, in);
    }
    Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts) override {
        for (const Bytes& part : parts) read_blocks_ += blocks(0, part.size());
        return file_->readv(offset, parts);
    }
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override {
        for (const ConstBytes& part : parts) written_blocks_ += blocks(0, part.size());
        return file_->writev(offset, parts);
    }
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override {
        written_blocks_ += blocks(offset, in.size());
        return file_->write_fua(offset, in);
    }
    Result<void> flush() override { return file_->flush(); }
    bool read_only() const override { return file_->read_only(); }
    std::string name() const override { return file_->name(); }
    std::uint64_t read_blocks() const { return read_blocks_; }
    std::uint64_t written_blocks() const { return written_blocks_; }

private:
    static std::uint64_t blocks(std::uint64_t offset, std::uint64_t length) {
        return divide_up(offset % 4096 + length, 4096);
    }
    std::unique_ptr<FileDevice> file_;
    std::atomic<std::uint64_t> read_blocks_{0}, written_blocks_{0};
};

[[noreturn]] void give_up(const std::string& what) {
    fmt::print(stderr, "{}\n", what);
    std::exit(1);
}

template <typename T>
T need(Result<T> result) {
    if (!result) give_up(result.error().what);
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// Names without an order: neighbours of one are not created beside it.
std::string name_of(std::uint64_t i) {
    std::uint64_t x = i + 0x9E3779B97F4A7C15;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return fmt::format("{:016x}-{}", x ^ (x >> 31), i);
}

struct Work {
    FileSystem& fs;
    std::string path;
    std::uint64_t from, count;
};

InodeRef directory(const Work& w) {
    if (auto found = w.fs.resolve(w.path, root)) return std::move(*found);
    InodeRef top = need(w.fs.root());
    return need(w.fs.create(*top, w.path.substr(1), S_IFDIR | 0755, 0, "", root, false));
}

void create_entries(const Work& w) {
    InodeRef dir = directory(w);
    for (std::uint64_t i = w.from; i < w.from + w.count; ++i)
        need(w.fs.create(*dir, name_of(i), S_IFREG | 0644, 0, "", root, false));
}

// Apart from each other, of those that were created: so are their inodes.
constexpr std::uint64_t step = 97;

void look_up(const Work& w) {
    InodeRef dir = directory(w);
    for (std::uint64_t i = 0; i < w.count; ++i) need(w.fs.lookup(*dir, name_of(w.from + i * step), root, false));
}

void remove_entries(const Work& w) {
    InodeRef dir = directory(w);
    for (std::uint64_t i = 0; i < w.count; ++i) need(w.fs.unlink(*dir, name_of(w.from + i * step), root, false));
}

void list_entries(const Work& w) {
    InodeRef dir = directory(w);
    std::uint64_t cookie = 0, found = 0;
    for (bool more = true; more && found < w.count;) {
        more = false;
        need(w.fs.read_directory(*dir, cookie, [&](const DirectoryEntry& entry) {
            more = true;
            cookie = entry.next_cookie;
            return ++found < w.count;
        }));
    }
}

// `count` mapped blocks with a hole behind each: blocks of a file that was allocated once, and punched.
void make_holes(const Work& w) {
    auto file = need(w.fs.open_path(w.path, O_CREAT | O_RDWR, 0644, root));
    constexpr std::uint64_t block = 4096;
    for (std::uint64_t i = 0; i < w.count; ++i) need(file->fallocate(0, 2 * i * block, block));
    need(file->truncate(2 * w.count * block));
    need(file->sync(false));
}

void remove_file(const Work& w) {
    InodeRef top = need(w.fs.root());
    need(w.fs.unlink(*top, w.path.substr(1), root, false));
}

constexpr std::uint64_t punched = 16384;  // blocks

// Commits that are not home yet. Their files are journaled, and so is another, whose space was never written.
void make_commits(const Work& w) {
    auto large = need(w.fs.open_path(w.path, O_CREAT | O_RDWR, 0644, root));
    need(large->fallocate(0, 0, punched * 4096));
    auto file = need(w.fs.open_path(w.path + "-appended", O_CREAT | O_RDWR, 0644, root));
    for (const auto* f : {&large, &file})
        need(w.fs.set_flags((*f)->inode(), w.fs.get_flags((*f)->inode()) | format::inode_flag::journal_data, root,
                            false));
    const std::vector<std::byte> bytes(100, std::byte{'a'});
    for (std::uint64_t i = 0; i < w.count; ++i) {
        need(file->write(i * bytes.size(), bytes));
        need(file->sync(false));
    }
}

void punch_after_commits(const Work& w) {
    make_commits(w);
    auto large = need(w.fs.open_path(w.path, O_RDWR, 0644, root));
    need(large->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, punched * 4096));
    need(large->sync(false));
}

// Files without a name, all open at once.
void keep_orphans(const Work& w) {
    std::vector<std::unique_ptr<OpenFile>> kept;
    for (std::uint64_t i = 0; i < w.count; ++i)
        kept.push_back(need(w.fs.open_path(w.path, O_TMPFILE | O_RDWR, 0600, root)));
}

// ---- many files, a hundred in each directory

constexpr std::uint64_t files_in_each = 100;

std::string folder_of(std::uint64_t i) { return fmt::format("/d{}", i / files_in_each); }
std::string path_of(std::uint64_t i) { return fmt::format("{}/{}", folder_of(i), name_of(i)); }

void create_spread(const Work& w) {
    InodeRef top = need(w.fs.root()), dir;
    const std::vector<std::byte> bytes(100, std::byte{'s'});
    for (std::uint64_t i = w.from; i < w.from + w.count; ++i) {
        if (i % files_in_each == 0 || !dir) {
            if (auto found = w.fs.resolve(folder_of(i), root)) dir = std::move(*found);
            else dir = need(w.fs.create(*top, folder_of(i).substr(1), S_IFDIR | 0755, 0, "", root, false));
        }
        auto file = need(w.fs.open_path(path_of(i), O_CREAT | O_RDWR, 0644, root));
        need(file->write(0, bytes));
    }
}

void read_spread(const Work& w) {
    std::vector<std::byte> bytes(100);
    for (std::uint64_t i = w.from; i < w.from + w.count; ++i)
        need(need(w.fs.open_path(path_of(i), O_RDONLY, 0, root))->read(0, bytes));
}

void stat_spread(const Work& w) {
    struct stat info{};
    for (std::uint64_t i = w.from; i < w.from + w.count; ++i) need(w.fs.resolve(path_of(i), root))->fill_stat(info);
}

void rename_spread(const Work& w) {
    for (std::uint64_t i = w.from; i < w.from + w.count; ++i) {
        InodeRef dir = need(w.fs.resolve(folder_of(i), root));
        need(w.fs.rename(*dir, name_of(i), *dir, name_of(i) + "r", 0, root, false));
        need(w.fs.rename(*dir, name_of(i) + "r", *dir, name_of(i), 0, root, false));
    }
}

void unlink_spread(const Work& w) {
    for (std::uint64_t i = w.from; i < w.from + w.count; ++i) {
        InodeRef dir = need(w.fs.resolve(folder_of(i), root));
        need(w.fs.unlink(*dir, name_of(i), root, false));
    }
}

const std::map<std::string, std::function<void(const Work&)>> works = {
    {"nothing", [](const Work&) {}}, {"create", create_entries}, {"lookup", look_up},
    {"unlink", remove_entries},      {"list", list_entries},     {"holes", make_holes},
    {"remove", remove_file},         {"orphans", keep_orphans},  {"commits", make_commits},
    {"punch", punch_after_commits},  {"spread", create_spread},  {"read", read_spread},
    {"stat", stat_spread},           {"rename", rename_spread},  {"unlink_spread", unlink_spread}};

}  // namespace
}  // namespace uext4

int main(int argc, char** argv) {
    using namespace uext4;
    if (argc != 6 || !works.contains(argv[2])) give_up("growth_driver IMAGE WORK PATH FROM COUNT");
    auto device = std::make_shared<CountingDevice>(need(FileDevice::open(argv[1])));
    std::uint64_t mounting = 0, looks = 0, inode_bytes = 0;
    const char* const given = std::getenv("UEXT4_GROWTH_OPTIONS");
    const VolumeOptions options = need(parse_volume_options(given ? given : "noatime,commit=600,cache=128M"));
    {
        auto fs = need(FileSystem::mount_device(device, options));
        mounting = device->read_blocks();
        works.at(argv[2])({*fs, argv[3], std::strtoull(argv[4], nullptr, 10), std::strtoull(argv[5], nullptr, 10)});
        looks = fs->volume().inodes().scanned_inodes();
        inode_bytes = fs->volume().fs().inode_memory.load();
        need(fs->unmount());
    }
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    fmt::print(
        "{{\"read\": {}, \"written\": {}, \"mount_read\": {}, \"peak_kib\": {}, \"looks\": {}, "
        "\"inode_bytes\": {}}}\n",
        device->read_blocks(), device->written_blocks(), mounting, used.ru_maxrss, looks, inode_bytes);
}

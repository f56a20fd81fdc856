#include "tests/doubles/simulated_maps.h"
#include "tests/hostile/visitor.h"
#include "tests/root.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>

#include <algorithm>

namespace uext4::hostile {

namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t most_steps = 4000;
constexpr unsigned most_mounts = 4;
constexpr std::size_t most_maps = 4;

class Program {
public:
    Program(Visit& out, std::shared_ptr<MemoryDevice> device, ConstBytes program)
        : v_(out), device_(std::move(device)), program_(program) {}

    void run() {
        fs_ = v_.mount(device_, "");
        if (!fs_) return;
        v_.walk(*fs_);
        const format::Geometry& g = fs_->volume().geometry();
        unit_ = std::uint64_t{g.block_size} * g.cluster_ratio;
        while (fs_ && at_ < program_.size() && v_.steps() < most_steps) step();
        if (fs_) close();
    }

private:
    unsigned next() { return at_ < program_.size() ? std::to_integer<unsigned>(program_[at_++]) : 0u; }

    std::string file_path() {
        const unsigned n = next();
        if (n < 40) return fmt::format("/new{}", n % 10);
        return v_.files().empty() ? "/none" : v_.files()[n % v_.files().size()];
    }
    std::string directory_path() {
        const unsigned n = next();
        if (v_.directories().empty()) return "/";
        const std::string& path = v_.directories()[n % v_.directories().size()];
        return path.empty() ? "/" : path;
    }
    std::size_t length() { return (next() | next() << 8) % bytes_.size(); }
    ConstBytes bytes(std::size_t count) const { return ConstBytes(bytes_).first(count); }

    // Places of its contents, not of the void around it: whole units of allocation.
    struct Range {
        std::uint64_t offset, length;
    };
    Range of_contents(const OpenFile& file) {
        const std::uint64_t units = file.inode_ref()->size_hint() / unit_ + 1;
        const std::uint64_t first = next() * std::min<std::uint64_t>(units, 1 << 20) / 256;
        return {first * unit_, (next() % 8 + 1) * unit_};
    }

    void step() {
        const unsigned what = next() % 40;
        if (what < 18) return with_file(what);
        if (what < 26) return with_name(what);
        if (what < 34) return with_inode(what);
        with_all(what);
    }

    void with_file(unsigned what) {
        constexpr int flags[] = {0, 0, 0, O_DIRECT, O_DIRECT, O_SYNC, O_APPEND, O_DIRECT | O_DSYNC};
        const std::string path = file_path();
        const bool direct = what == 6 || what == 7;
        auto file =
            v_.take(fs_->open_path(path, O_CREAT | O_RDWR | (direct ? O_DIRECT : flags[next() % 8]), 0644, root));
        if (!file) return;
        OpenFile& f = **file;
        if (what >= 8 && what < 13) return move_contents(what, f);
        if (what >= 13 && what < 16) return through_map(what, f);
        const std::uint64_t offset = std::uint64_t{next()} << (next() % 24);
        switch (what) {
            case 0:
            case 1: v_.take(f.write(offset, bytes(length()))); break;
            case 2: v_.take(f.truncate(offset)); break;
            case 3:
                v_.take(f.fallocate(static_cast<int>(next() % 64), offset & ~1023u, (length() + 1024) & ~1023u));
                break;
            case 4: v_.take(f.sync(next() % 2 != 0)); break;
            case 5: v_.look(*fs_, f.inode_ref()); break;
            // In sectors, as they have to be; one time of eight not.
            case 6: v_.take(f.write(sectors(offset), bytes(sectors(length())))); break;
            case 7: {
                std::vector<std::byte> out(sectors(length()));
                v_.take(f.read(sectors(offset), out));
                break;
            }
            case 16: v_.take(f.write_beyond_reserved_space(offset, bytes(length()))); break;
            default: copy(f, offset);
        }
    }
    std::uint64_t sectors(std::uint64_t n) { return next() % 8 ? round_down(n, std::uint64_t{512}) : n; }

    void copy(OpenFile& from, std::uint64_t offset) {
        auto to = v_.take(fs_->open_path(file_path(), O_CREAT | O_RDWR, 0644, root));
        if (to) v_.take(fs_->copy_range(from, offset, **to, std::uint64_t{next()} * 512, length() * 4));
    }

    void move_contents(unsigned what, OpenFile& f) {
        constexpr int modes[] = {FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
                                 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                 FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
        const Range range = of_contents(f);
        v_.take(f.fallocate(modes[what - 8], range.offset, range.length));
    }

    // A store, a load, or what was stored made durable. A map outlives the file that it was made through.
    void through_map(unsigned what, OpenFile& f) {
        const Range range = of_contents(f);
        if (what == 15) return v_.take(fs_->maps().sync(f.inode()));
        if (mapped_.size() < most_maps) {
            if (!maps_) maps_ = std::make_unique<SimulatedMaps>(fs_->maps());
            auto made = v_.take(maps_->map({.inode = f.inode_ref(),
                                            .offset = round_down(range.offset, page),
                                            .length = 16 * page,
                                            .protection = PROT_READ | PROT_WRITE,
                                            .shared = next() % 4 != 0,
                                            .may_write = true}));
            if (made) mapped_.push_back(std::move(*made));
        }
        if (mapped_.empty()) return;
        const auto& map = mapped_[next() % mapped_.size()];
        const std::uint64_t at = std::uint64_t{next()} * 200;
        if (what == 13) return v_.take(maps_->store(*map, at, bytes(length() % 9000)));
        std::vector<std::byte> out(length() % 9000);
        v_.take(maps_->load(*map, at, out));
    }

    void with_name(unsigned what) {
        const std::string path = file_path();
        auto parent = v_.take(fs_->resolve_parent(path, root));
        if (!parent) return;
        Inode& directory = *parent->directory;
        switch (what) {
            case 18: v_.take(fs_->unlink(directory, parent->name, root, true)); break;
            case 19:
            case 20: rename(directory, parent->name); break;
            case 21:
                v_.take(fs_->create(directory, fmt::format("dir{}", next()), S_IFDIR | 0755, 0, {}, root, true));
                break;
            case 22: {
                // What is there to be removed is a directory.
                auto above = v_.take(fs_->resolve_parent(next() % 4 ? directory_path() : path, root));
                if (above) v_.take(fs_->rmdir(*above->directory, above->name, root, true));
                break;
            }
            case 23:
                if (auto to = v_.take(fs_->resolve(directory_path(), root)))
                    if (auto target = v_.take(fs_->resolve(path, root, false)))
                        v_.take(fs_->link(**target, **to, fmt::format("link{}", next() % 16), root, true));
                break;
            case 24:
                v_.take(fs_->create(directory, fmt::format("sym{}", next() % 16), S_IFLNK | 0777, 0,
                                    std::string(next() * 4 + 1, 's'), root, true));
                break;
            default: {
                constexpr mode_t kinds[] = {S_IFIFO | 0600, S_IFCHR | 0600, S_IFREG | 04755, S_IFSOCK | 0600};
                const std::string name(next() % 2 ? 250 : 8, static_cast<char>('a' + next() % 26));
                v_.take(fs_->create(directory, name, kinds[next() % 4], next(), {}, root, true));
            }
        }
    }
    // Over another name, beside it, in its place, with a whiteout.
    void rename(Inode& directory, const std::string& name) {
        auto to = v_.take(fs_->resolve(directory_path(), root));
        if (!to || !(*to)->is_directory()) return;
        constexpr unsigned flags[] = {0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT,
                                      RENAME_WHITEOUT | RENAME_NOREPLACE};
        const unsigned how = flags[next() % 5];
        const unsigned n = next();
        std::string target = fmt::format("to{}", n % 8);
        if (n >= 64) {  // a name that there is
            const std::string other = n % 2 ? directory_path() : file_path();
            if (const std::size_t slash = other.rfind('/'); slash + 1 < other.size()) target = other.substr(slash + 1);
            if (auto there = v_.take(fs_->resolve(other.substr(0, other.rfind('/') + 1), root))) to = there;
        }
        v_.take(fs_->rename(directory, name, **to, target, how, root, true));
    }

    void with_inode(unsigned what) {
        const std::string path = next() % 4 ? file_path() : directory_path();
        auto inode = v_.take(fs_->resolve(path, root, false));
        if (!inode) return;
        Inode& i = **inode;
        constexpr std::string_view prefixes[] = {"user.x", "trusted.x", "security.x", "user.long"};
        switch (what) {
            case 26:
            case 27: {
                const std::string name = fmt::format("{}{}", prefixes[next() % 4], next() % 5);
                v_.take(fs_->set_xattr(i, name, bytes(next() * 12), 0, root, true));
                break;
            }
            case 28:
                v_.take(fs_->remove_xattr(i, fmt::format("{}{}", prefixes[next() % 4], next() % 5), root, true));
                break;
            case 29:
            case 30: {
                // One of those that move contents about, or any.
                namespace flag = format::inode_flag;
                constexpr std::uint32_t some[] = {flag::extents, flag::journal_data, flag::extents | flag::journal_data,
                                                  flag::index,   flag::append,       flag::immutable,
                                                  flag::sync,    flag::dirsync};
                const std::uint32_t n = next();
                const std::uint32_t bits = n < 192 ? some[n % 8] : std::uint32_t{1} << n % 32;
                v_.take(fs_->set_flags(i, fs_->get_flags(i) ^ bits, root, true));
                break;
            }
            case 31: {
                AttributeChange change;
                change.mode = static_cast<std::uint16_t>(next() << 4);
                if (next() % 2) change.uid = next() << 12;
                if (next() % 2) change.mtime = format::Timestamp{static_cast<std::int64_t>(next()) << 26, 5};
                v_.take(fs_->set_attributes(i, change, root, true));
                break;
            }
            case 32: v_.take(fs_->truncate(i, std::uint64_t{next()} << (next() % 34), root, true)); break;
            default: v_.look(*fs_, *inode);
        }
    }

    void with_all(unsigned what) {
        switch (what) {
            case 34:
                if (!mapped_.empty()) {
                    const std::size_t n = next() % mapped_.size();
                    v_.take(maps_->unmap(mapped_[n]));
                    mapped_.erase(mapped_.begin() + static_cast<std::ptrdiff_t>(n));
                }
                break;
            case 35: v_.take(fs_->sync()); break;
            case 36:
                v_.take(fs_->freeze());
                v_.take(fs_->thaw());
                if (maps_) maps_->resume();
                break;
            case 37:
                if (auto directory = v_.take(fs_->resolve(directory_path(), root)))
                    if (auto unnamed = v_.take(fs_->create_tmpfile(**directory, S_IFREG | 0600, 0, root, true)))
                        v_.take(fs_->link(**unnamed, **directory, fmt::format("named{}", next() % 4), root, true));
                break;
            case 38: v_.take(fs_->trim(std::uint64_t{next()} << 10)); break;
            default: mount_again();
        }
    }

    // What was unmounted, or what a crash leaves of it at this moment.
    void mount_again() {
        const unsigned how = next();
        if (++mounts_ > most_mounts) return;
        std::shared_ptr<MemoryDevice> crashed;
        if (how % 2) crashed = device_->clone();
        close();
        if (crashed) device_ = crashed;
        // The check wants a volume that nobody changes.
        if (how >= 128)
            if (auto looked = v_.mount(device_, "ro")) v_.check(*looked);
        constexpr const char* options[] = {"", "data=journal", "data=writeback", "discard", "atime", "sync", "ro", ""};
        fs_ = v_.mount(device_, options[how / 2 % 8]);
    }
    void close() {
        for (const auto& map : mapped_) v_.take(maps_->unmap(map));
        mapped_.clear();
        maps_.reset();
        fs_->volume().wait_for_deletions();
        v_.take(fs_->unmount());
        fs_.reset();
    }

    Visitor v_;
    std::shared_ptr<MemoryDevice> device_;
    const ConstBytes program_;
    std::size_t at_ = 0;
    std::unique_ptr<FileSystem> fs_;
    std::unique_ptr<SimulatedMaps> maps_;
    std::vector<SimulatedMaps::MapRef> mapped_;
    std::uint64_t unit_ = 0;
    unsigned mounts_ = 0;
    const std::vector<std::byte> bytes_ = std::vector<std::byte>(9000, std::byte{'o'});
};

}  // namespace

Visit operate(const std::shared_ptr<MemoryDevice>& device, ConstBytes program) {
    Visit out;
    Program(out, device, program).run();
    return out;
}

}  // namespace uext4::hostile

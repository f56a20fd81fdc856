#include "tests/exercise/steps.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace uext4::exercise {

namespace {

constexpr std::size_t most_views = 4, largest_transfer = 100'000;
constexpr std::size_t sector = 512;

std::size_t up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

}  // namespace

Steps::Steps(Side& side, Model& model, const Rules& rules)
    : side_(side),
      model_(model),
      rules_(rules),
      random_(model.seed * 1'000'003 + model.segment),
      // Small files in every third segment: the inline size and its neighbourhood.
      most_(model.segment % 3 == 0 ? 400 : 300'000),
      buffer_(static_cast<std::byte*>(std::aligned_alloc(page, up(largest_transfer, page) + page))) {
    for (unsigned file = 0; file < files; ++file) {
        unsigned flags = 0;
        journaled_[file] = rules_.journaled || (side_.get_flags(file, flags) == 0 && (flags & FS_JOURNAL_DATA_FL));
    }
}

Steps::~Steps() {
    (void)close_maps();
    std::free(buffer_);
}

std::size_t Steps::any_length() {
    switch (random_() % 4) {
        case 0: return 1 + any(100);
        case 1: return 1 + any(5000);
        case 2: return page * (1 + any(4));
        default: return 1 + any(most_ > 1000 ? 70'000 : 500);
    }
}

std::size_t Steps::any_place(unsigned file) {
    const std::size_t size = model_.file[file].size();
    switch (random_() % 4) {
        case 0: return std::min(size, most_);
        case 1: return any(std::min(most_, size + 3000) + 1) / page * page;
        default: return any(std::min(most_, size + 3000) + 1);
    }
}

std::vector<std::byte> Steps::any_bytes(std::size_t n) {
    std::vector<std::byte> out(n);
    for (std::byte& b : out) b = static_cast<std::byte>(random_() % 255 + 1);
    return out;
}

bool Steps::differs(std::string what) {
    problem = fmt::format("{}: {}", trace, what);
    return false;
}

bool Steps::same(unsigned file, std::size_t at, Bytes got, const char* door) {
    const auto& bytes = model_.file[file].bytes();
    for (std::size_t i = 0; i < got.size(); ++i)
        if (got[i] != bytes[at + i])
            return differs(fmt::format("{}: byte {} of {} of file {} is {}, not {}", door, at + i, bytes.size(), file,
                                       static_cast<int>(got[i]), static_cast<int>(bytes[at + i])));
    return true;
}

bool Steps::expect(const char* what, ssize_t got, ssize_t wanted) {
    if (got == wanted) return true;
    return differs(fmt::format("{} returns {} ({}), not {}", what, got,
                               got < 0 ? std::strerror(static_cast<int>(-got)) : "-", wanted));
}

bool Steps::expect_direct(const char* what, unsigned file, std::size_t at, std::size_t n, ssize_t got, ssize_t wanted,
                          bool& refused) {
    const bool in_sectors = at % sector == 0 && n % sector == 0;
    refused = got == -EINVAL && !in_sectors && !journaled_[file];
    return refused || expect(what, got, wanted);
}

void Steps::align(std::size_t& at, std::size_t& n) {
    if (any(16) == 0) return;
    at = at / sector * sector;
    n = up(n, sector);
}

std::byte* Steps::memory() { return any(16) ? buffer_ : buffer_ + 1 + any(page - 1); }

bool Steps::write(unsigned file, Way way) {
    ModelFile& model = model_.file[file];
    std::size_t at = way == Way::append ? model.size() : any_place(file), n = any_length();
    if (way == Way::direct) align(at, n);
    if (at + n > largest) return true;
    const auto in = any_bytes(n);
    std::byte* const from = memory();
    std::memcpy(from, in.data(), n);
    trace = fmt::format("write {} of {} at {} way {}", n, file, at, static_cast<int>(way));
    // The offset of an append is not looked at.
    const ssize_t done = side_.pwrite(file, way, from, n, way == Way::append ? 0 : static_cast<off_t>(at)),
                  wanted = static_cast<ssize_t>(n);
    if (way != Way::direct) {
        if (!expect("pwrite", done, wanted)) return false;
    } else {
        const bool must_be =
            rules_.unaligned == Rules::Unaligned::refused && !journaled_[file] && (at % sector != 0 || n % sector != 0);
        bool refused = false;
        if (must_be ? !expect("pwrite", done, -EINVAL) : !expect_direct("pwrite", file, at, n, done, wanted, refused))
            return false;
        if (must_be || refused) return true;
    }
    model.write(at, in);
    if (way == Way::synchronous) model.made_durable(at, at + n);
    return true;
}

bool Steps::read(unsigned file, Way way) {
    const std::size_t size = model_.file[file].size();
    std::size_t at = any(size + 100), n = any_length();
    if (way == Way::direct) align(at, n);
    trace = fmt::format("read {} of {} at {} way {}", n, file, at, static_cast<int>(way));
    const std::size_t wanted = at < size ? std::min(n, size - at) : 0;
    std::byte* const into = memory();
    const ssize_t done = side_.pread(file, way, into, n, static_cast<off_t>(at));
    if (way == Way::direct) {
        bool refused = false;
        if (!expect_direct("pread", file, at, n, done, static_cast<ssize_t>(wanted), refused)) return false;
        if (refused) return true;
    }
    return expect("pread", done, static_cast<ssize_t>(wanted)) && same(file, at, Bytes(into, wanted), "pread");
}

bool Steps::write_parts(unsigned file, Way way) {
    ModelFile& model = model_.file[file];
    const std::size_t grain = way == Way::direct ? sector : 1, at = any_place(file) / grain * grain;
    std::vector<std::byte> all;
    std::vector<iovec> parts;
    for (std::size_t i = 1 + any(5); i > 0 && all.size() < 60'000; --i) {
        const auto in = any_bytes(any(6) ? up(1 + any(9000), grain) : 0);
        parts.push_back({buffer_ + all.size(), in.size()});
        all.insert(all.end(), in.begin(), in.end());
    }
    if (at + all.size() > largest) return true;
    std::ranges::copy(all, buffer_);
    trace =
        fmt::format("writev {} in {} of {} at {} way {}", all.size(), parts.size(), file, at, static_cast<int>(way));
    const ssize_t done = side_.pwritev(file, way, parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(at));
    if (!expect("pwritev", done, static_cast<ssize_t>(all.size()))) return false;
    if (all.empty()) return true;
    model.write(at, all);
    if (way == Way::synchronous) model.made_durable(at, at + all.size());
    return true;
}

bool Steps::read_parts(unsigned file, Way way) {
    const std::size_t size = model_.file[file].size(), grain = way == Way::direct ? sector : 1;
    const std::size_t at = any(size + 100) / grain * grain;
    std::vector<iovec> parts;
    std::size_t n = 0;
    for (std::size_t i = 1 + any(5); i > 0 && n < 60'000; --i) {
        const std::size_t length = up(any(9000), grain);
        parts.push_back({buffer_ + n, length});
        n += length;
    }
    trace = fmt::format("readv {} in {} of {} at {} way {}", n, parts.size(), file, at, static_cast<int>(way));
    const std::size_t wanted = at < size ? std::min(n, size - at) : 0;
    const ssize_t done = side_.preadv(file, way, parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(at));
    return expect("preadv", done, static_cast<ssize_t>(wanted)) && same(file, at, Bytes(buffer_, wanted), "preadv");
}

bool Steps::cut(unsigned file) {
    ModelFile& model = model_.file[file];
    const std::size_t size = any(3) ? any(model.size() + 1) : any(most_);
    trace = fmt::format("truncate {} from {} to {}", file, model.size(), size);
    if (!expect("ftruncate", side_.truncate(file, static_cast<off_t>(size)), 0)) return false;
    if (size < model.size()) cut_maps(file, size);
    model.resize(size);
    return true;
}

void Steps::cut_maps(unsigned file, std::size_t at) {
    for (View& view : views_)
        if (view.file == file) view.own.cut(at > view.at ? at - view.at : 0);
}

bool Steps::range(unsigned file) {
    ModelFile& model = model_.file[file];
    static constexpr int modes[] = {0,
                                    FALLOC_FL_KEEP_SIZE,
                                    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    FALLOC_FL_ZERO_RANGE,
                                    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                    FALLOC_FL_UNSHARE_RANGE};
    const std::size_t chosen = any(std::size(modes) + 3);
    if (chosen >= std::size(modes)) return shift(file, chosen == std::size(modes));
    const int mode = modes[chosen];
    const std::size_t at = any_place(file), n = any_length();
    if (at + n > largest) return true;
    trace = fmt::format("fallocate {:#x} {} of {} at {}, size {}", mode, n, file, at, model.size());
    // libfuse and the kernel's FUSE pass on only some; indirect blocks can only be punched.
    const bool passed = !side_.is_mount() || mode != FALLOC_FL_UNSHARE_RANGE;
    const bool possible = passed && (!rules_.no_ranges || (mode & FALLOC_FL_PUNCH_HOLE));
    const int done = side_.fallocate(file, mode, static_cast<off_t>(at), static_cast<off_t>(n));
    if (!expect("fallocate", done, possible ? 0 : -EOPNOTSUPP)) return false;
    if (!possible) return true;
    if (!(mode & FALLOC_FL_KEEP_SIZE) && model.size() < at + n) model.resize(at + n);
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) model.zero(at, at + n);
    return true;
}

// Whole blocks out of the file, or into it; now and then what cannot be.
bool Steps::shift(unsigned file, bool insert) {
    ModelFile& model = model_.file[file];
    const std::size_t grain = rules_.grain, odd = any(16) ? 0 : 1 + any(grain - 1);
    const std::size_t at = any(model.size() / grain + 1) * grain + (any(2) ? odd : 0);
    std::size_t n = grain * (1 + any(any(2) ? 3 : std::max<std::size_t>(65536 / grain, 4))) + odd;
    if (!insert && odd == 0 && any(8) && at + grain < model.size())
        n = std::min(n, (model.size() - at - 1) / grain * grain);
    if (insert && model.size() + n > largest) return true;
    trace = fmt::format("{} {} of {} at {}, size {}", insert ? "insert" : "collapse", n, file, at, model.size());
    const bool outside = insert ? at >= model.size() : at + n >= model.size();
    const int wanted = side_.is_mount() || rules_.no_ranges ? -EOPNOTSUPP : odd != 0 || outside ? -EINVAL : 0;
    const int mode = insert ? FALLOC_FL_INSERT_RANGE : FALLOC_FL_COLLAPSE_RANGE;
    if (!expect("fallocate", side_.fallocate(file, mode, static_cast<off_t>(at), static_cast<off_t>(n)), wanted))
        return false;
    if (wanted != 0) return true;
    if (insert) model.insert(at, n);
    else model.collapse(at, n), cut_maps(file, model.size());
    return true;
}

bool Steps::sync(unsigned file) {
    const bool data_only = any(2);
    trace = fmt::format("{} {}", data_only ? "fdatasync" : "fsync", file);
    if (!expect("sync", side_.sync(file, data_only), 0)) return false;
    model_.file[file].made_durable();
    return true;
}

bool Steps::settle(unsigned file) { return !model_.file[file].wants_sync() || sync(file); }

bool Steps::copy(unsigned file) {
    const unsigned to = static_cast<unsigned>(any(files));
    const std::size_t size = model_.file[file].size(), at = any(size + 1), to_at = any_place(to);
    const std::size_t n = std::min(any_length(), size - at);
    if (to_at + n > largest || n == 0 || (to == file && at < to_at + n && to_at < at + n)) return true;
    trace = fmt::format("copy {} of {} at {} to {} at {}", n, file, at, to, to_at);
    const ssize_t done = side_.copy(file, static_cast<off_t>(at), to, static_cast<off_t>(to_at), n);
    if (!expect("copy_file_range", done, static_cast<ssize_t>(n))) return false;
    const auto& bytes = model_.file[file].bytes();
    const std::vector<std::byte> moved(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                                       bytes.begin() + static_cast<std::ptrdiff_t>(at + n));
    model_.file[to].write(to_at, moved);
    return true;
}

bool Steps::seek(unsigned file) {
    const auto& bytes = model_.file[file].bytes();
    const std::size_t at = any(bytes.size() + 10);
    trace = fmt::format("seek of {} from {} of {}", file, at, bytes.size());
    const off_t data = side_.seek(file, static_cast<off_t>(at), SEEK_DATA);
    const off_t hole = side_.seek(file, static_cast<off_t>(at), SEEK_HOLE);
    if (at >= bytes.size()) return expect("SEEK_DATA", data, -ENXIO) && expect("SEEK_HOLE", hole, -ENXIO);
    if (data < 0 && data != -ENXIO) return differs(fmt::format("SEEK_DATA returns {}", data));
    const std::size_t skipped = data < 0 ? bytes.size() : static_cast<std::size_t>(data);
    for (std::size_t i = at; i < std::min(skipped, bytes.size()); ++i)
        if (bytes[i] != std::byte{0}) return differs(fmt::format("SEEK_DATA passes over the data at {}", i));
    if (hole < static_cast<off_t>(at) || hole > static_cast<off_t>(bytes.size()))
        return differs(fmt::format("SEEK_HOLE returns {}", hole));
    return true;
}

bool Steps::attribute(unsigned file) {
    const auto value = any_bytes(any(120));
    const std::string name = fmt::format("user.a{}", any(3));
    trace = fmt::format("attribute {} of {}, {} bytes", name, file, value.size());
    const int done = side_.set_xattr(file, name.c_str(), value.data(), value.size());
    return done == -ENOSPC || expect("fsetxattr", done, 0);
}

bool Steps::switch_journaling(unsigned file) {
    unsigned flags = 0;
    trace = fmt::format("flag j of {}", file);
    if (!expect("FS_IOC_GETFLAGS", side_.get_flags(file, flags), 0)) return false;
    flags ^= FS_JOURNAL_DATA_FL;
    trace += flags & FS_JOURNAL_DATA_FL ? " set" : " taken away";
    const int done = side_.set_flags(file, flags);
    if (done == -EPERM && ::geteuid() != 0) return true;
    if (!expect("FS_IOC_SETFLAGS", done, 0)) return false;
    journaled_[file] = rules_.journaled || (flags & FS_JOURNAL_DATA_FL);
    return true;
}

bool Steps::sync_all() {
    trace = "syncfs";
    if (!expect("syncfs", side_.sync_all(), 0)) return false;
    for (ModelFile& model : model_.file) model.made_durable();
    return true;
}

// Reads go on; there is nothing else that this thread could do before the thaw.
bool Steps::freeze(unsigned file) {
    trace = "freeze";
    const int done = side_.freeze();
    if (!rules_.alone && done == -EBUSY) return true;
    if (!expect("freeze", done, 0)) return false;
    for (ModelFile& model : model_.file) model.made_durable();
    const bool right = compare_all(file);
    if (right) trace = "freeze and thaw";
    return expect("thaw", side_.thaw(), 0) && right;
}

std::size_t Steps::reach(const View& view) const {
    const std::size_t size = model_.file[view.file].size();
    return view.at >= size ? 0 : std::min(view.length, size - view.at);
}

bool Steps::open_map(unsigned file) {
    if (views_.size() >= most_views && !close_map(any(views_.size()))) return false;
    View view;
    view.file = file;
    view.at = any(model_.file[file].size() + page) / page * page;
    view.length = page * (1 + any(20));
    view.shared = any(4) != 0;
    view.writable = any(4) != 0;
    trace = fmt::format("map {} of {} at {}", view.length, file, view.at);
    void* address = nullptr;
    const int flags = (view.shared ? MAP_SHARED : MAP_PRIVATE) | (any(4) ? 0 : MAP_POPULATE);
    // A map may be made of what lies past the end of the file, but not filled there.
    const bool inside = view.at + view.length <= model_.file[file].size();
    const int done =
        side_.map(file, static_cast<off_t>(view.at), view.length, PROT_READ | (view.writable ? PROT_WRITE : 0),
                  inside ? flags : flags & ~MAP_POPULATE, &address);
    if (!expect("mmap", done, 0)) return false;
    view.address = static_cast<std::byte*>(address);
    // The kernel copies what a map of its own that may be stored to is filled with.
    const auto& bytes = model_.file[file].bytes();
    if (side_.is_mount() && inside && (flags & MAP_POPULATE) && !view.shared && view.writable)
        view.own.store(0, std::span(bytes).subspan(view.at, view.length), view.at, bytes);
    views_.push_back(std::move(view));
    return true;
}

bool Steps::use_map() {
    if (views_.empty()) return true;
    View& view = views_[any(views_.size())];
    const std::size_t there = reach(view);
    if (there == 0) return true;
    if (any(8) == 0) return store_behind_the_end(view);
    const std::size_t at = any(there), n = std::min(1 + any(any(2) ? 20 : 9000), there - at);
    const bool store = view.writable && any(2);
    trace = fmt::format("{} {} of {} at {} through a {} map at {}", store ? "store" : "load", n, view.file,
                        view.at + at, view.shared ? "shared" : "private", view.at);
    if (!store) return same_in_map(view, at, n);
    const auto in = any_bytes(n);
    std::memcpy(view.address + at, in.data(), n);
    if (view.shared) model_.file[view.file].write(view.at + at, in);
    else view.own.store(at, in, view.at, model_.file[view.file].bytes());
    return true;
}

bool Steps::same_in_map(const View& view, std::size_t at, std::size_t n) {
    if (n == 0) return true;
    const std::vector<std::byte> got(view.address + at, view.address + at + n);
    const auto file = std::span(model_.file[view.file].bytes()).subspan(view.at + at, n);
    std::vector<std::byte> shown(file.begin(), file.end());
    view.own.cover(at, shown, got);
    const auto [differs_at, should] = std::ranges::mismatch(got, shown);
    if (differs_at == got.end()) return true;
    return differs(fmt::format("load: byte {} of {} of file {} is {} in a {} map, not {}",
                               view.at + at + static_cast<std::size_t>(differs_at - got.begin()),
                               model_.file[view.file].size(), view.file, static_cast<int>(*differs_at),
                               view.shared ? "shared" : "private", static_cast<int>(*should)));
}

// Into the rest of the last page: nobody else ever sees it, also not once the file has grown. The kernel's own pages,
// which a mount's maps are, keep it (docs/MOUNT.md).
bool Steps::store_behind_the_end(View& view) {
    const std::size_t there = reach(view), rest = up(there, page) - there;
    if (rest == 0 || there == 0 || side_.is_mount() || !view.shared || !view.writable) return true;
    const std::size_t at = any(rest), n = 1 + any(rest - at);
    trace = fmt::format("store {} of {} at {} behind the end at {} through a map at {}", n, view.file,
                        view.at + there + at, view.at + there, view.at);
    const auto in = any_bytes(n);
    std::memcpy(view.address + there + at, in.data(), n);
    return true;
}

// A system call that reads into, or writes from, memory that is a file.
bool Steps::use_map_as_buffer(unsigned file) {
    if (views_.empty()) return true;
    View& view = views_[any(views_.size())];
    const std::size_t there = std::min(reach(view), largest_transfer);
    if (there == 0) return true;
    const Way way = any(2) ? Way::plain : Way::direct;
    const std::size_t grain = way == Way::direct ? sector : 1, start = any(there) / grain * grain;
    const std::size_t n = (there - start) / grain * grain;
    if (n == 0) return true;
    std::byte* const memory = view.address + start;
    if (view.writable && any(2)) {
        const std::size_t size = model_.file[file].size(), at = any(size + 1) / grain * grain;
        const std::size_t wanted = at < size ? std::min(n, size - at) : 0;
        if (file == view.file && at < view.at + start + n && view.at + start < at + n) return true;
        // A direct read that ends early may have made copies of all of the pages that it was to fill.
        if (!view.shared && wanted < n) return true;
        trace = fmt::format("read {} of {} at {} into a map of {} at {} way {}", n, file, at, view.file,
                            view.at + start, static_cast<int>(way));
        const ssize_t done = side_.pread(file, way, memory, n, static_cast<off_t>(at));
        if (!expect("pread", done, static_cast<ssize_t>(wanted))) return false;
        const auto& bytes = model_.file[file].bytes();
        const std::vector<std::byte> moved(bytes.begin() + static_cast<std::ptrdiff_t>(std::min(at, size)),
                                           bytes.begin() + static_cast<std::ptrdiff_t>(std::min(at, size) + wanted));
        if (moved.empty()) return true;
        if (view.shared) model_.file[view.file].write(view.at + start, moved);
        else view.own.store(start, moved, view.at, model_.file[view.file].bytes());
        return true;
    }
    const std::size_t at = any_place(file) / grain * grain;
    if (at + n > largest || (file == view.file && at < view.at + start + n && view.at + start < at + n)) return true;
    trace = fmt::format("write {} of {} at {} from a map of {} at {} way {}", n, file, at, view.file, view.at + start,
                        static_cast<int>(way));
    const ssize_t done = side_.pwrite(file, way, memory, n, static_cast<off_t>(at));
    if (!expect("pwrite", done, static_cast<ssize_t>(n))) return false;
    if (!same_in_map(view, start, n)) return false;
    model_.file[file].write(at, std::vector<std::byte>(memory, memory + n));
    return true;
}

bool Steps::sync_map() {
    if (views_.empty()) return true;
    const View& view = views_[any(views_.size())];
    const bool waits = any(3);
    trace = fmt::format("msync of {} at {}{}", view.file, view.at, waits ? ", MS_SYNC" : "");
    if (!expect("msync", side_.msync(view.address, view.length, waits ? MS_SYNC : MS_ASYNC), 0)) return false;
    if (waits && view.shared) model_.file[view.file].made_durable(view.at, view.at + view.length);
    return true;
}

bool Steps::close_map(std::size_t which) {
    const View view = views_[which];
    views_.erase(views_.begin() + static_cast<std::ptrdiff_t>(which));
    trace = fmt::format("unmap {} at {}", view.file, view.at);
    if (!same_in_map(view, 0, reach(view))) return false;
    if (view.length > page && any(3) == 0) {
        // In two parts.
        const std::size_t part = page * (1 + any(view.length / page - 1));
        return expect("munmap", side_.unmap(view.address, part), 0) &&
               expect("munmap", side_.unmap(view.address + part, view.length - part), 0);
    }
    return expect("munmap", side_.unmap(view.address, view.length), 0);
}

bool Steps::close_maps() {
    bool right = true;
    while (!views_.empty()) right = close_map(0) && right;
    return right;
}

bool Steps::compare_all(unsigned file) {
    const std::size_t size = model_.file[file].size();
    std::vector<std::byte> got(size + 10);
    trace = fmt::format("all of {}", file);
    return expect("pread", side_.pread(file, Way::plain, got.data(), got.size(), 0), static_cast<ssize_t>(size)) &&
           same(file, 0, Bytes(got).first(size), "pread");
}

bool Steps::step() {
    const unsigned file = static_cast<unsigned>(any(files)), what = random_() % 100;
    if (!settle(0) || !settle(1)) return false;
    const Way way = ways[any(3)];
    if (what < 16) return write(file, any(3) ? Way::plain : ways[any(4)]);
    if (what < 30) return read(file, any(2) ? Way::plain : way);
    if (what < 35) return write_parts(file, way);
    if (what < 40) return read_parts(file, way);
    if (what < 49) return cut(file);
    if (what < 68) return range(file);
    if (what < 71) return sync(file);
    if (what < 74) return copy(file);
    if (what < 76) return seek(file);
    if (what < 77) return switch_journaling(file);
    // Not beside other threads of a mount (docs/MOUNT.md): the first has the kernel drop its cache, and what they read
    // directly into a map; and one that unmaps in a freeze holds the memory that whoever is to thaw may need.
    if (what < 78 && (rules_.alone || !side_.is_mount())) return any(4) ? sync_all() : freeze(file);
    if (what < 80) return attribute(file);
    if (!rules_.maps) return read(file, way);
    if (what < 84) return open_map(file);
    if (what < 94) return use_map();
    if (what < 97) return use_map_as_buffer(file);
    if (what < 99) return sync_map();
    return views_.empty() || close_map(any(views_.size()));
}

}  // namespace uext4::exercise

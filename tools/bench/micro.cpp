// What the parts cost inside one process, without a mount: the checksum of a block, and the library's operations on an
// image in memory.
#include "api/file_system.h"
#include "format/checksum.h"

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using namespace uext4;

void checksum(benchmark::State& state) {
    std::vector<std::byte> block(static_cast<std::size_t>(state.range(0)), std::byte{0x5A});
    std::uint32_t crc = ~0u;
    for ([[maybe_unused]] auto turn : state) {
        crc = format::crc32c(crc, block);
        benchmark::DoNotOptimize(crc);
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(checksum)->Name("crc32c")->Arg(1024)->Arg(4096);

// A mounted image of its own, gone with the object.
class Scratch {
public:
    explicit Scratch(const char* megabytes) {
        char path[] = "/dev/shm/uext4-micro-XXXXXX";
        const int fd = ::mkstemp(path);
        if (fd < 0) return;
        ::close(fd);
        image_ = path;
        const std::string command = "mke2fs -q -F -t ext4 -b 4096 -N 262144 " + image_ + " " + megabytes;
        if (std::system(command.c_str()) != 0) return;
        Result<std::unique_ptr<FileSystem>> mounted = FileSystem::mount(image_, "");
        if (!mounted) return;
        fs_ = std::move(*mounted);
        Result<InodeRef> root = fs_->root();
        if (root) root_ = std::move(*root);
    }
    ~Scratch() {
        root_.reset();
        if (fs_)
            if (Result<void> done = fs_->unmount(); !done) std::fprintf(stderr, "%s\n", done.error().what.c_str());
        fs_.reset();
        if (!image_.empty()) ::unlink(image_.c_str());
    }
    Scratch(const Scratch&) = delete;
    explicit operator bool() const { return static_cast<bool>(root_); }
    FileSystem& fs() { return *fs_; }
    Inode& root() { return *root_; }

    Result<InodeRef> create(const std::string& name) {
        return fs_->create(*root_, name, S_IFREG | 0644, 0, {}, Credentials::root(), false);
    }
    Result<std::unique_ptr<OpenFile>> open(const InodeRef& inode) {
        return fs_->open(inode, O_RDWR, Credentials::root(), false);
    }

private:
    std::string image_;
    std::unique_ptr<FileSystem> fs_;
    InodeRef root_;
};

constexpr int files = 20'000;

std::string name_of(std::int64_t i) { return "name" + std::to_string(i); }

void create(benchmark::State& state) {
    Scratch scratch("1G");
    if (!scratch) return state.SkipWithError("no image");
    std::int64_t i = 0;
    for ([[maybe_unused]] auto turn : state)
        if (!scratch.create(name_of(i++))) return state.SkipWithError("create");
}
BENCHMARK(create)->Iterations(files)->Unit(benchmark::kMicrosecond);

void lookup_and_stat(benchmark::State& state) {
    Scratch scratch("1G");
    if (!scratch) return state.SkipWithError("no image");
    for (int i = 0; i < files; ++i)
        if (!scratch.create(name_of(i))) return state.SkipWithError("create");
    std::int64_t i = 0;
    for ([[maybe_unused]] auto turn : state) {
        Result<InodeRef> found = scratch.fs().lookup(scratch.root(), name_of(i++ % files), Credentials::root(), false);
        if (!found || !scratch.fs().attributes(**found)) return state.SkipWithError("lookup");
    }
}
BENCHMARK(lookup_and_stat)->Unit(benchmark::kMicrosecond);

void unlink_each(benchmark::State& state) {
    Scratch scratch("1G");
    if (!scratch) return state.SkipWithError("no image");
    for (int i = 0; i < files; ++i)
        if (!scratch.create(name_of(i))) return state.SkipWithError("create");
    std::int64_t i = 0;
    for ([[maybe_unused]] auto turn : state)
        if (!scratch.fs().unlink(scratch.root(), name_of(i++), Credentials::root(), false))
            return state.SkipWithError("unlink");
}
BENCHMARK(unlink_each)->Name("unlink")->Iterations(files)->Unit(benchmark::kMicrosecond);

constexpr std::uint64_t large_file = std::uint64_t{64} << 20;

// `state.range(0)` bytes at a time through a file of 64 MiB that is cached.
template <class Operation>
void transfer(benchmark::State& state, Operation operation) {
    Scratch scratch("1G");
    if (!scratch) return state.SkipWithError("no image");
    Result<InodeRef> inode = scratch.create("large");
    if (!inode) return state.SkipWithError("create");
    Result<std::unique_ptr<OpenFile>> file = scratch.open(*inode);
    if (!file) return state.SkipWithError("open");
    std::vector<std::byte> data(std::size_t{1} << 20, std::byte{1});
    for (std::uint64_t at = 0; at < large_file; at += data.size())
        if (!(*file)->write(at, data)) return state.SkipWithError("write");
    if (!(*file)->sync(false)) return state.SkipWithError("sync");
    data.resize(static_cast<std::size_t>(state.range(0)));
    std::uint64_t at = 0;
    for ([[maybe_unused]] auto turn : state) {
        if (!operation(**file, at, data)) return state.SkipWithError("transfer");
        at = (at + data.size() * 17) % (large_file - data.size());
        at -= at % 4096;
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

void read(benchmark::State& state) {
    transfer(state, [](OpenFile& file, std::uint64_t at, std::vector<std::byte>& data) {
        return file.read(at, data).has_value();
    });
}
BENCHMARK(read)->Arg(4096)->Arg(1 << 20)->Unit(benchmark::kMicrosecond);

void overwrite(benchmark::State& state) {
    transfer(state, [](OpenFile& file, std::uint64_t at, std::vector<std::byte>& data) {
        return file.write(at, data).has_value();
    });
}
BENCHMARK(overwrite)->Arg(4096)->Arg(1 << 20)->Unit(benchmark::kMicrosecond);

void append_and_sync(benchmark::State& state) {
    Scratch scratch("1G");
    if (!scratch) return state.SkipWithError("no image");
    Result<InodeRef> inode = scratch.create("log");
    if (!inode) return state.SkipWithError("create");
    Result<std::unique_ptr<OpenFile>> file = scratch.open(*inode);
    if (!file) return state.SkipWithError("open");
    const std::vector<std::byte> data(4096, std::byte{2});
    std::uint64_t at = 0;
    for ([[maybe_unused]] auto turn : state) {
        if (!(*file)->write(at, data) || !(*file)->sync(false)) return state.SkipWithError("append");
        at += data.size();
    }
}
BENCHMARK(append_and_sync)->Iterations(5000)->Unit(benchmark::kMicrosecond);

// A new file of 256 MiB in pieces of 1 MiB, and its sync; the time of one piece.
void write_new(benchmark::State& state) {
    Scratch scratch("1G");
    if (!scratch) return state.SkipWithError("no image");
    Result<InodeRef> inode = scratch.create("new");
    if (!inode) return state.SkipWithError("create");
    Result<std::unique_ptr<OpenFile>> file = scratch.open(*inode);
    if (!file) return state.SkipWithError("open");
    const std::vector<std::byte> data(std::size_t{1} << 20, std::byte{3});
    std::uint64_t at = 0;
    for ([[maybe_unused]] auto turn : state) {
        if (!(*file)->write(at, data)) return state.SkipWithError("write");
        at += data.size();
        if (at == (std::uint64_t{256} << 20) && !(*file)->sync(false)) return state.SkipWithError("sync");
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(at));
}
BENCHMARK(write_new)->Iterations(256)->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();

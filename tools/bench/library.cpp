// The library beside the kernel's system calls, in one process and line by line:
//
//     bench_library IMAGE DIR SCALE FIRST
//
// The library mounts IMAGE; in DIR the kernel has the same kind of image mounted. Each line is measured by both,
// by the library first or by the kernel (FIRST: uext4, kernel), and all are printed as one object of JSON: {"line":
// {"uext4": value, "kernel": value}}. Status 2 with a sentence on standard error when a call fails.
#include "measuring.h"
#include "uext4/uext4.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

// Paths are relative to the working directory, which is the mount's root.
class Kernel {
public:
    using File = int;
    static constexpr const char* name = "kernel";

    explicit Kernel(const char* directory) { must(::chdir(directory) == 0, directory); }
    static void make_directory(const char* path) { must(::mkdir(path, 0755) == 0, path); }
    static File open(const char* path, int flags) {
        const int fd = ::open(path, flags | O_CLOEXEC, 0644);
        must(fd >= 0, path);
        return fd;
    }
    static void close(File file) { ::close(file); }
    static void write(File file, const void* data, std::size_t size, std::uint64_t at) {
        must(::pwrite(file, data, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size), "write");
    }
    static void read(File file, void* data, std::size_t size, std::uint64_t at) {
        must(::pread(file, data, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size), "read");
    }
    static void sync(File file) { must(::fsync(file) == 0, "fsync"); }
    static void stat(const char* path) {
        struct stat info{};
        must(::lstat(path, &info) == 0, path);
    }
    static void unlink(const char* path) { must(::unlink(path) == 0, path); }
    // Nothing of the file is cached.
    static void forget(const char* path) {
        const File file = open(path, O_RDONLY);
        must(::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0, path);
        close(file);
    }
};

class Library {
public:
    using File = uext4_file*;
    static constexpr const char* name = "uext4";

    explicit Library(const char* image) : image_(image) { mount(); }
    ~Library() { uext4_umount(fs_); }
    Library(const Library&) = delete;
    void make_directory(const char* path) { check(uext4_mkdir(fs_, path, 0755), path); }
    File open(const char* path, int flags) {
        File file = nullptr;
        check(uext4_open(fs_, path, flags, 0644, &file), path);
        return file;
    }
    static void close(File file) { uext4_close(file); }
    static void write(File file, const void* data, std::size_t size, std::uint64_t at) {
        check(uext4_pwrite(file, data, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size) ? 0 : -EIO, "write");
    }
    static void read(File file, void* data, std::size_t size, std::uint64_t at) {
        check(uext4_pread(file, data, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size) ? 0 : -EIO, "read");
    }
    static void sync(File file) { check(uext4_fsync(file), "fsync"); }
    void stat(const char* path) {
        struct stat info{};
        check(uext4_lstat(fs_, path, &info), path);
    }
    void unlink(const char* path) { check(uext4_unlink(fs_, path), path); }
    void forget(const char*) {
        check(uext4_umount(fs_), "unmount");
        mount();
    }

private:
    static void check(int status, const char* what) {
        if (status >= 0) return;
        std::fprintf(stderr, "%s: %s\n", what, uext4_strerror());
        std::exit(2);
    }
    void mount() { check(uext4_mount(image_, "", &fs_), image_); }

    const char* image_;
    uext4_fs* fs_ = nullptr;
};

double scale = 1;

std::uint64_t scaled(std::uint64_t amount, std::uint64_t least) {
    return std::max(least, static_cast<std::uint64_t>(static_cast<double>(amount) * scale));
}

double mebibytes_a_second(std::uint64_t bytes, const Clock& clock) {
    return static_cast<double>(bytes) / clock.seconds() / 1e6;
}
double a_second(std::uint64_t count, const Clock& clock) { return static_cast<double>(count) / clock.seconds(); }

std::vector<std::string> names_in(const char* directory, std::uint64_t count) {
    std::vector<std::string> names;
    for (std::uint64_t i = 0; i < count; ++i) names.push_back(std::string(directory) + "/name" + std::to_string(i));
    return names;
}

// ---- each of them once for the library and once for the kernel, in the order of the table below

const std::vector<std::string>& empty_files() {
    static const std::vector<std::string> names = names_in("empty", scaled(10'000, 20));
    return names;
}
const std::vector<std::string>& small_files() {
    static const std::vector<std::string> names = names_in("small", scaled(50'000, 20));
    return names;
}

template <class Calls>
double create(Calls& calls) {
    calls.make_directory("empty");
    const Clock clock;
    for (const std::string& name : empty_files()) calls.close(calls.open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL));
    return a_second(empty_files().size(), clock);
}

template <class Calls>
double stat_each(Calls& calls) {
    constexpr int rounds = 10;
    const Clock clock;
    for (int round = 0; round < rounds; ++round)
        for (const std::string& name : empty_files()) calls.stat(name.c_str());
    return a_second(rounds * empty_files().size(), clock);
}

template <class Calls>
double stat_one(Calls& calls) {
    const std::uint64_t count = scaled(400'000, 50);
    const Clock clock;
    for (std::uint64_t i = 0; i < count; ++i) calls.stat(empty_files().back().c_str());
    return a_second(count, clock);
}

template <class Calls>
double open_each(Calls& calls) {
    constexpr int rounds = 5;
    const Clock clock;
    for (int round = 0; round < rounds; ++round)
        for (const std::string& name : empty_files()) calls.close(calls.open(name.c_str(), O_RDONLY));
    return a_second(rounds * empty_files().size(), clock);
}

template <class Calls>
double unlink_each(Calls& calls) {
    const Clock clock;
    for (const std::string& name : empty_files()) calls.unlink(name.c_str());
    return a_second(empty_files().size(), clock);
}

template <class Calls>
double write_small(Calls& calls) {
    calls.make_directory("small");
    const std::vector<char> contents(100, 's');
    const Clock clock;
    for (const std::string& name : small_files()) {
        auto file = calls.open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL);
        calls.write(file, contents.data(), contents.size(), 0);
        calls.close(file);
    }
    return a_second(small_files().size(), clock);
}

template <class Calls>
double read_small(Calls& calls) {
    std::vector<char> contents(100);
    const Clock clock;
    for (const std::string& name : small_files()) {
        auto file = calls.open(name.c_str(), O_RDONLY);
        calls.read(file, contents.data(), contents.size(), 0);
        calls.close(file);
    }
    return a_second(small_files().size(), clock);
}

std::uint64_t large_bytes() { return scaled(1 << 30, 1 << 20) / large * large; }

template <class Calls>
double write_large(Calls& calls) {
    const std::vector<char> data(large, 'x');
    const Clock clock;
    auto file = calls.open("file", O_WRONLY | O_CREAT | O_TRUNC);
    for (std::uint64_t at = 0; at < large_bytes(); at += large) calls.write(file, data.data(), large, at);
    calls.sync(file);
    calls.close(file);
    return mebibytes_a_second(large_bytes(), clock);
}

template <class Calls>
double read_large(Calls& calls, std::uint64_t piece = large) {
    std::vector<char> data(piece);
    auto file = calls.open("file", O_RDONLY);
    const Clock clock;
    for (std::uint64_t at = 0; at < large_bytes(); at += piece) calls.read(file, data.data(), piece, at);
    const double speed = mebibytes_a_second(large_bytes(), clock);
    calls.close(file);
    return speed;
}

template <class Calls>
double read_cold(Calls& calls) {
    const auto once = [&] {
        calls.forget("file");
        return read_large(calls);
    };
    return std::max(once(), once());  // the first one may meet memory that the machine has to find
}

template <class Calls>
double read_cold_pages(Calls& calls) {
    const auto once = [&] {
        calls.forget("file");
        return read_large(calls, page);
    };
    return std::max(once(), once());
}

template <class Calls>
double read_warm(Calls& calls) {
    return std::max(read_large(calls), read_large(calls));
}

template <class Calls>
double read_random(Calls& calls) {
    const std::uint64_t count = scaled(400'000, 50), pages = large_bytes() / page;
    std::vector<char> data(page);
    auto file = calls.open("file", O_RDONLY);
    Random random;
    const Clock clock;
    for (std::uint64_t i = 0; i < count; ++i) calls.read(file, data.data(), page, random.below(pages) * page);
    const double rate = a_second(count, clock);
    calls.close(file);
    return rate;
}

struct Line {
    const char* name;
    double (*library)(Library&);
    double (*kernel)(Kernel&);
};
constexpr Line lines[] = {{"create /s", create, create},
                          {"stat /s", stat_each, stat_each},
                          {"stat of one path /s", stat_one, stat_one},
                          {"open + close /s", open_each, open_each},
                          {"unlink /s", unlink_each, unlink_each},
                          {"create 100 B /s", write_small, write_small},
                          {"read 100 B /s", read_small, read_small},
                          {"write new MB/s", write_large, write_large},
                          {"read cold MB/s", read_cold, read_cold},
                          {"read warm MB/s", read_warm, read_warm},
                          {"read 4 KiB cached /s", read_random, read_random},
                          {"read cold by 4 KiB MB/s", read_cold_pages, read_cold_pages}};

}  // namespace

int main(int count, char** words) {
    const std::string first = count == 5 ? words[4] : "";
    if (first != Library::name && first != Kernel::name) {
        std::fprintf(stderr, "usage: %s IMAGE DIR SCALE uext4|kernel\n", words[0]);
        return 2;
    }
    scale = std::strtod(words[3], nullptr);
    Library library(words[1]);
    Kernel kernel(words[2]);
    const char* comma = "{";
    for (const Line& line : lines) {
        double ours = 0, theirs = 0;
        if (first == Library::name) ours = line.library(library);
        theirs = line.kernel(kernel);
        if (first == Kernel::name) ours = line.library(library);
        std::printf("%s\"%s\": {\"%s\": %.1f, \"%s\": %.1f}", comma, line.name, Library::name, ours, Kernel::name,
                    theirs);
        comma = ", ";
    }
    std::printf("}\n");
    return 0;
}

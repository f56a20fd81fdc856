// The loops of the benchmark's workloads, so that an interpreter is not what is measured.
//
//     bench_driver STEP DIR COUNT [SIZE]
//
// runs one step in a directory and prints one line of JSON: {"seconds": s, "operations": n, "bytes": b}, or for growth
// a list of rates. Status 2 with a sentence on standard error when a call fails.
#include "measuring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace {

class File {
public:
    File(std::string path, int flags) : path_(std::move(path)), fd_(::open(path_.c_str(), flags | O_CLOEXEC, 0644)) {
        must(fd_ >= 0, path_);
    }
    ~File() { ::close(fd_); }
    File(const File&) = delete;
    int fd() const { return fd_; }
    void write(const void* data, std::size_t size, std::uint64_t at) {
        must(::pwrite(fd_, data, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size), path_ + ": write");
    }
    void read(void* data, std::size_t size, std::uint64_t at) {
        must(::pread(fd_, data, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size), path_ + ": read");
    }
    void sync() { must(::fsync(fd_) == 0, path_ + ": fsync"); }
    std::uint64_t size() {
        struct stat info{};
        must(::fstat(fd_, &info) == 0, path_ + ": fstat");
        return static_cast<std::uint64_t>(info.st_size);
    }

private:
    std::string path_;
    int fd_;
};

struct Job {
    std::string directory;
    std::uint64_t count = 0, size = 0;
    bool spread = false;  // a hundred files in each directory
    std::string file() const { return directory + "/file"; }
    std::string folder(std::uint64_t i) const {
        return directory + "/d" + (spread ? std::to_string(i / files_in_each) : "");
    }
    std::string name(std::uint64_t i) const { return folder(i) + "/name" + std::to_string(i); }
    std::string new_name(std::uint64_t i) const { return folder(i) + "/renamed" + std::to_string(i); }
    static constexpr std::uint64_t files_in_each = 100;
};

void report(double seconds, std::uint64_t operations, std::uint64_t bytes) {
    std::printf("{\"seconds\": %.9f, \"operations\": %llu, \"bytes\": %llu}\n", seconds,
                static_cast<unsigned long long>(operations), static_cast<unsigned long long>(bytes));
}

// A file system that acknowledges only an fsync gets one of its root as well.
void sync_all(const std::string& directory) {
    File root(directory, O_RDONLY | O_DIRECTORY);
    must(::syncfs(root.fd()) == 0, "syncfs");
    if (::fsync(root.fd()) != 0 && errno != EINVAL && errno != ENOSYS) give_up("fsync of a directory");
}

// ---- one large file; `count` is its bytes

void write_whole(const Job& job, int flags) {
    const std::vector<char> data(large, 'x');
    const Clock clock;
    {
        File file(job.file(), O_WRONLY | flags);
        for (std::uint64_t at = 0; at < job.count; at += large)
            file.write(data.data(), std::min<std::uint64_t>(large, job.count - at), at);
        file.sync();
    }
    report(clock.seconds(), 1, job.count);
}

void new_file(const Job& job) { write_whole(job, O_CREAT | O_TRUNC); }
void overwrite(const Job& job) { write_whole(job, 0); }

void read_whole(const Job& job) {
    std::vector<char> data(large);
    File file(job.file(), O_RDONLY);
    const std::uint64_t size = file.size();
    const Clock clock;
    for (std::uint64_t at = 0; at < size; at += large)
        file.read(data.data(), std::min<std::uint64_t>(large, size - at), at);
    report(clock.seconds(), 1, size);
}

// ---- 4 KiB pieces of it

void random_read(const Job& job) {
    std::vector<char> data(page);
    File file(job.file(), O_RDONLY);
    const std::uint64_t pages = file.size() / page;
    Random random;
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i) file.read(data.data(), page, random.below(pages) * page);
    report(clock.seconds(), job.count, job.count * page);
}

void random_write(const Job& job) {
    const std::vector<char> data(page, 'r');
    File file(job.file(), O_RDWR);
    const std::uint64_t pages = file.size() / page;
    Random random;
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i) file.write(data.data(), page, random.below(pages) * page);
    file.sync();
    report(clock.seconds(), job.count, job.count * page);
}

void append(const Job& job, std::size_t bytes) {
    const std::vector<char> data(bytes, 'a');
    File file(job.directory + "/log", O_WRONLY | O_CREAT | O_TRUNC);
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i) {
        file.write(data.data(), bytes, i * bytes);
        file.sync();
    }
    report(clock.seconds(), job.count, job.count * bytes);
}

void append_pages(const Job& job) { append(job, page); }
void append_lines(const Job& job) { append(job, 100); }

void map_random(const Job& job) {
    File file(job.file(), O_RDWR);
    const std::uint64_t size = file.size(), pages = size / page;
    void* map = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd(), 0);
    must(map != MAP_FAILED, "mmap");
    Random random;
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i)
        std::memset(static_cast<char*>(map) + random.below(pages) * page, static_cast<int>(i), page);
    must(::msync(map, size, MS_SYNC) == 0, "msync");
    const double seconds = clock.seconds();
    ::munmap(map, size);
    report(seconds, job.count, job.count * page);
}

void remove_file(const Job& job) {
    const Clock clock;
    must(::unlink(job.file().c_str()) == 0, "unlink");
    sync_all(job.directory);
    report(clock.seconds(), 1, 0);
}

// ---- many files in one directory, or, where the step's name begins with "spread_", a hundred in each

void make_directory(const Job& job, std::uint64_t i = 0) {
    if (::mkdir(job.folder(i).c_str(), 0755) != 0 && errno != EEXIST) give_up("mkdir");
}

void create_one(const Job& job, std::uint64_t i, const std::vector<char>& contents) {
    File file(job.name(i), O_WRONLY | O_CREAT | O_EXCL);
    if (!contents.empty()) file.write(contents.data(), contents.size(), 0);
}

void create(const Job& job) {
    make_directory(job);
    const std::vector<char> contents(job.size, 's');
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i) {
        if (job.spread && i % Job::files_in_each == 0) make_directory(job, i);
        create_one(job, i, contents);
    }
    if (job.size) sync_all(job.directory);
    report(clock.seconds(), job.count, job.count * job.size);
}

void stat_each(const Job& job) {
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i) {
        struct stat info{};
        must(::lstat(job.name(i).c_str(), &info) == 0, job.name(i));
    }
    report(clock.seconds(), job.count, 0);
}

void read_each(const Job& job) {
    std::vector<char> data(page);
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i) {
        File file(job.name(i), O_RDONLY);
        file.read(data.data(), job.size, 0);
    }
    report(clock.seconds(), job.count, job.count * job.size);
}

void unlink_each(const Job& job) {
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i) must(::unlink(job.name(i).c_str()) == 0, job.name(i));
    report(clock.seconds(), job.count, 0);
}

void rename_each(const Job& job) {
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i)
        must(::rename(job.name(i).c_str(), job.new_name(i).c_str()) == 0, job.name(i));
    report(clock.seconds(), job.count, 0);
}

void unlink_renamed(const Job& job) {
    const Clock clock;
    for (std::uint64_t i = 0; i < job.count; ++i) must(::unlink(job.new_name(i).c_str()) == 0, job.new_name(i));
    sync_all(job.directory);
    report(clock.seconds(), job.count, 0);
}

// `size` processes, each with a directory of its own, make `count` files in all.
void create_together(const Job& job) {
    std::vector<Job> parts(job.size, job);
    for (std::uint64_t i = 0; i < job.size; ++i) {
        parts[i].directory = job.directory + "/p" + std::to_string(i);
        must(::mkdir(parts[i].directory.c_str(), 0755) == 0, "mkdir");
        make_directory(parts[i]);
    }
    must(job.size > 0, "no process is to create files");
    const Clock clock;
    for (const Job& part : parts) {
        const pid_t child = ::fork();
        must(child >= 0, "fork");
        if (child > 0) continue;
        for (std::uint64_t i = 0; i < job.count / job.size; ++i) create_one(part, i, {});
        ::_exit(0);
    }
    for (std::uint64_t i = 0; i < job.size; ++i) {
        int status = 0;
        must(::wait(&status) > 0 && status == 0, "a process that creates files failed");
    }
    report(clock.seconds(), job.count, 0);
}

// Creates `count` files; the rate over the second half before each mark. Ends early after `size` seconds.
void growth(const Job& job) {
    make_directory(job);
    std::vector<std::uint64_t> marks;
    for (const std::uint64_t mark : {1000, 10'000, 40'000, 100'000, 1'000'000})
        if (mark <= job.count) marks.push_back(mark);
    if (marks.empty()) marks.push_back(job.count);
    std::string out;
    std::uint64_t made = 0;
    const Clock all;
    for (const std::uint64_t mark : marks) {
        const std::uint64_t half = mark / 2;
        Clock part;
        for (; made < mark && all.seconds() < static_cast<double>(job.size); ++made) {
            if (made == half) part = Clock();
            create_one(job, made, {});
        }
        if (made < mark) break;
        char rate[64];
        std::snprintf(rate, sizeof rate, "%s\"%llu\": %.1f", out.empty() ? "" : ", ",
                      static_cast<unsigned long long>(mark), static_cast<double>(mark - half) / part.seconds());
        out += rate;
    }
    std::printf("{\"rates\": {%s}}\n", out.c_str());
}

struct Step {
    const char* name;
    void (*run)(const Job&);
};
constexpr Step steps[] = {{"new_file", new_file},
                          {"overwrite", overwrite},
                          {"read", read_whole},
                          {"random_read", random_read},
                          {"random_write", random_write},
                          {"append_pages", append_pages},
                          {"append_lines", append_lines},
                          {"map_random", map_random},
                          {"remove_file", remove_file},
                          {"create", create},
                          {"stat", stat_each},
                          {"read_each", read_each},
                          {"unlink", unlink_each},
                          {"rename", rename_each},
                          {"unlink_renamed", unlink_renamed},
                          {"create_together", create_together},
                          {"growth", growth}};

}  // namespace

int main(int count, char** words) {
    if (count == 3 && std::string(words[1]) == "sync") {
        const Clock clock;
        sync_all(words[2]);
        report(clock.seconds(), 1, 0);
        return 0;
    }
    if (count == 4 || count == 5) {
        constexpr std::string_view spread = "spread_";
        std::string_view wanted = words[1];
        Job job{words[2], std::strtoull(words[3], nullptr, 10), count == 5 ? std::strtoull(words[4], nullptr, 10) : 0};
        job.spread = wanted.starts_with(spread);
        if (job.spread) wanted.remove_prefix(spread.size());
        for (const Step& step : steps) {
            if (wanted != step.name) continue;
            step.run(job);
            return 0;
        }
    }
    std::fprintf(stderr, "usage: %s STEP DIR COUNT [SIZE]; %s sync DIR\n", words[0], words[0]);
    return 2;
}

// For tests: a file system whose writes are recorded, with real maps, that must end settled: no promise and no grant is
// left, statfs says what the bitmaps say, e2fsck finds nothing. Free blocks hold 0xdb to begin with, but in large ones.
#pragma once

#include "api/file_system.h"
#include "tests/crash/poisoned_file.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"
#include "tests/root.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

namespace uext4::problems {

inline const Credentials user = Credentials::of(1000, 1000);
constexpr std::size_t page = 4096;
inline bool long_run() { return std::getenv("UEXT4_LONG") != nullptr; }
inline unsigned first_seed() {
    const char* wanted = std::getenv("UEXT4_SEED");
    return wanted ? static_cast<unsigned>(std::atoi(wanted)) : 1;
}

inline std::string pattern(std::size_t size, unsigned seed) {
    std::string out(size, 0);
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>((i * 131 + seed * 977 + (i >> 9)) % 251 + 1);
    return out;
}
inline ConstBytes bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

// What a program prints, and how it ended.
struct Said {
    int status = 0;
    std::string text;
};
inline Said say(const std::string& command) {
    Said said;
    std::FILE* pipe = ::popen(("(" + command + ") 2>&1").c_str(), "r");
    char buffer[4096];
    for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) said.text.append(buffer, n);
    said.status = WEXITSTATUS(::pclose(pipe));
    return said;
}

// Memory that direct I/O takes.
class Aligned {
public:
    explicit Aligned(std::size_t size) : size_(size), at_(static_cast<char*>(std::aligned_alloc(page, size))) {}
    explicit Aligned(const std::string& bytes) : Aligned((bytes.size() + page - 1) / page * page) {
        bytes.copy(at_.get(), bytes.size());
    }
    Bytes bytes() { return std::as_writable_bytes(std::span(at_.get(), size_)); }
    std::string text(std::size_t n) const { return std::string(at_.get(), n); }

private:
    struct Free {
        void operator()(char* p) const { std::free(p); }
    };
    std::size_t size_;
    std::unique_ptr<char[], Free> at_;
};

class SettledImage : public testing::Test {
protected:
    void make(const std::string& mke2fs, const std::string& options = "", const char* size = "32M") {
        scratch_ = fmt::format("/dev/shm/uext4-problems-{}", ::getpid());
        ::unlink(scratch_.c_str());
        // Not those that would take much memory, or more than there is.
        if (std::string_view(size).ends_with('M') && std::atoi(size) <= 64) {
            ASSERT_TRUE(crash::make_poisoned_file(scratch_, size));
        }
        const std::string command =
            fmt::format("mke2fs -q -F -t ext4 -E lazy_itable_init=0,nodiscard {} {} {}", mke2fs, scratch_, size);
        ASSERT_EQ(say(command).status, 0) << command;
        auto image = MemoryDevice::load(scratch_);
        ::unlink(scratch_.c_str());
        ASSERT_TRUE(image);
        memory = std::move(*image);
        mount(options);
    }
    void mount(const std::string& options, bool background = true) {
        initial = memory->clone();
        recorder = std::make_shared<RecordingDevice>(memory);
        auto parsed = parse_all_options(options);
        ASSERT_TRUE(parsed) << parsed.error().what;
        parsed->background = background;
        parsed->folio_bytes = folio_bytes;
        auto mounted = FileSystem::mount_device(recorder, *parsed);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    std::unique_ptr<OpenFile> open(const std::string& path, int flags = O_CREAT | O_RDWR,
                                   const Credentials& who = root) {
        auto file = fs->open_path(path, flags, 0666, who);
        EXPECT_TRUE(file) << path << ": " << file.error().what;
        return file ? std::move(*file) : nullptr;
    }
    static void write(OpenFile& file, const std::string& bytes, std::uint64_t at = 0) {
        auto n = file.write(at, bytes_of(bytes));
        ASSERT_TRUE(n) << n.error().what;
        ASSERT_EQ(*n, bytes.size());
    }
    static std::string read(OpenFile& file, std::size_t size, std::uint64_t at = 0) {
        std::string out(size, 0);
        auto n = file.read(at, std::as_writable_bytes(std::span(out)));
        EXPECT_TRUE(n) << n.error().what;
        out.resize(n ? *n : 0);
        return out;
    }
    // Null where there are no maps: the reason is kept.
    char* map(OpenFile& file, std::size_t length, std::uint64_t at = 0) {
        auto address = file.map(at, length, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (!address) reason_ = address.error().what;
        return address ? static_cast<char*>(*address) : nullptr;
    }
    static void unmap(void* address, std::size_t length) {
        auto done = ClientMaps::unmap(address, length);
        EXPECT_TRUE(done) << done.error().what;
    }
    template <class T>
    static void ok(const Result<T>& result) {
        EXPECT_TRUE(result) << result.error().what;
    }

    // All files are closed and all maps are gone: the end of every test.
    void settle() {
        ok(fs->sync());
        fs->volume().wait_for_deletions();
        ok(fs->sync());
        Allocator& space = fs->volume().fs().allocator;
        // The flusher may have had the last reference to a removed file, and hand it over only now.
        for (int i = 0; i < 250 && space.allocated_clusters() + space.reserved_clusters() != 0; ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            fs->volume().wait_for_deletions();
        }
        EXPECT_EQ(space.allocated_clusters(), 0u);
        EXPECT_EQ(space.reserved_clusters(), 0u);
        auto told = fs->statistics();
        ok(told);
        ok(fs->unmount());
        fs.reset();
        judge(*memory, told ? told->f_bfree : 0);
    }
    // e2fsck finds nothing, and the bitmaps have as many free blocks as was told.
    void judge(const MemoryDevice& image, std::uint64_t free_blocks) {
        ASSERT_TRUE(image.save(scratch_));
        const Said checked = say("e2fsck -fn " + scratch_);
        EXPECT_EQ(checked.status, 0) << checked.text;
        const Said dumped = say("dumpe2fs -h " + scratch_ + " | grep '^Free blocks'");
        EXPECT_EQ(std::strtoull(dumped.text.c_str() + dumped.text.find(':') + 1, nullptr, 10), free_blocks);
        ::unlink(scratch_.c_str());
    }
    // What a power cut now would leave that takes everything not flushed.
    std::shared_ptr<MemoryDevice> durable() const { return durable(recorder->log()); }
    std::shared_ptr<MemoryDevice> durable(const std::vector<RecordedWrite>& entries) const {
        std::shared_ptr<MemoryDevice> out = initial->clone();
        std::size_t flushed = 0;
        for (std::size_t i = 0; i < entries.size(); ++i)
            if (entries[i].kind == RecordedWrite::Kind::Flush) flushed = i;
        for (std::size_t i = 0; i < entries.size(); ++i) {
            if (i >= flushed && entries[i].kind != RecordedWrite::Kind::Fua) continue;
            EXPECT_TRUE(RecordingDevice::apply(entries[i], *out));
        }
        return out;
    }
    // What is in /f once our mount has recovered the image, which it does in place: up to `size` bytes.
    static std::string recovered_bytes(const std::shared_ptr<MemoryDevice>& image, std::size_t size) {
        auto recovered = FileSystem::mount_device(image, {});
        EXPECT_TRUE(recovered) << recovered.error().what;
        if (!recovered) return "no mount";
        auto file = (*recovered)->open_path("/f", O_RDONLY, 0, root);
        EXPECT_TRUE(file) << file.error().what;
        std::string bytes = file ? read(**file, size) : "no file";
        if (file) file->reset();
        ok((*recovered)->unmount());
        return bytes;
    }
    // The image after e2fsck's replay of its log; what it says afterwards is nothing.
    std::shared_ptr<MemoryDevice> replayed_by_e2fsck(const MemoryDevice& image) {
        EXPECT_TRUE(image.save(scratch_));
        const Said replayed = say("e2fsck -E journal_only -y " + scratch_);
        EXPECT_LE(replayed.status, 1) << replayed.text;
        const Said checked = say("e2fsck -fn " + scratch_);
        EXPECT_EQ(checked.status, 0) << checked.text;
        auto loaded = MemoryDevice::load(scratch_);
        ::unlink(scratch_.c_str());
        EXPECT_TRUE(loaded);
        return loaded ? std::shared_ptr<MemoryDevice>(std::move(*loaded)) : nullptr;
    }
    void TearDown() override {
        if (fs) ok(fs->unmount());
        fs.reset();
        if (!scratch_.empty()) ::unlink(scratch_.c_str());
    }

    std::uint32_t folio_bytes = page;
    std::shared_ptr<MemoryDevice> memory, initial;
    std::shared_ptr<RecordingDevice> recorder;
    std::unique_ptr<FileSystem> fs;
    std::string scratch_, reason_;
};

// True when `access` ends with SIGBUS. By any thread.
inline thread_local sigjmp_buf refused_at;
inline thread_local volatile std::sig_atomic_t may_be_refused = 0;
inline void jump_when_refused(int number) {
    if (may_be_refused) siglongjmp(refused_at, 1);
    std::signal(number, SIG_DFL);
}
template <class Access>
bool refused(Access access) {
    static const bool installed = [] {
        struct sigaction action{};
        action.sa_handler = jump_when_refused;
        return sigaction(SIGBUS, &action, nullptr) == 0;
    }();
    EXPECT_TRUE(installed);
    volatile bool out = true;
    if (sigsetjmp(refused_at, 1) == 0) {
        may_be_refused = 1;
        access();
        out = false;
    }
    may_be_refused = 0;
    return out;
}

#define NEED_MAP(memory) \
    if (!(memory)) GTEST_SKIP() << reason_

}  // namespace uext4::problems

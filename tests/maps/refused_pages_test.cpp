// What is done to pages of maps for a moment touches nothing else: other volumes, pages that the program moves, and
// blocks beside those that are on their way to the device.
#include "met_signal.h"

#include "api/file_system.h"
#include "device/open_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <future>
#include <thread>

namespace uext4 {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t page = 4096;

// A system call that reads the memory: 0, or its error.
int written_from(const char* memory) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    const int error = ::write(ends[1], memory, 3) == 3 ? 0 : errno;
    ::close(ends[0]);
    ::close(ends[1]);
    return error;
}

// Tells of each request, before a read and after a write.
class ToldDevice final : public BlockDevice {
public:
    using Told = std::function<Result<void>(std::uint64_t offset, std::size_t length)>;
    explicit ToldDevice(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}

    Told on_read, after_write;  // set while `tells` is not
    std::atomic<bool> tells{false};

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override {
        if (tells && on_read) TRY(on_read(offset, out.size()));
        return base_->read(offset, out);
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        TRY(base_->write(offset, in));
        return tells && after_write ? after_write(offset, in.size()) : Result<void>();
    }
    Result<void> flush() override { return base_->flush(); }
    bool read_only() const override { return base_->read_only(); }
    std::string name() const override { return base_->name(); }

private:
    std::shared_ptr<BlockDevice> base_;
};

struct TestVolume {
    std::string path;
    std::shared_ptr<ToldDevice> device;
    std::unique_ptr<FileSystem> fs;

    std::unique_ptr<OpenFile> open(const char* name) const {
        auto file = fs->open_path(name, O_CREAT | O_RDWR, 0644, Credentials::root());
        EXPECT_TRUE(file) << file.error().what;
        return std::move(*file);
    }
};

class RefusedPages : public testing::TestWithParam<bool> {
protected:
    TestVolume& make(const std::string& mke2fs, const char* size = "48M") {
        TestVolume& made = *volumes_.emplace_back(std::make_unique<TestVolume>());
        made.path = fmt::format("/dev/shm/uext4-refused-{}-{}", ::getpid(), volumes_.size());
        const std::string command = fmt::format("mke2fs -q -F {} {} {} >/dev/null 2>&1", mke2fs, made.path, size);
        EXPECT_EQ(std::system(command.c_str()), 0);
        mount(made);
        return made;
    }
    void mount(TestVolume& volume) {
        FileDeviceOptions options;
        options.writable = true;
        auto base = open_device(volume.path, options);
        EXPECT_TRUE(base) << base.error().what;
        volume.device = std::make_shared<ToldDevice>(std::move(*base));
        auto mounted = FileSystem::mount_device(volume.device, {});
        EXPECT_TRUE(mounted) << mounted.error().what;
        volume.fs = std::move(*mounted);
        if (GetParam()) volume.fs->maps().disable_features();
    }
    static void unmount(TestVolume& volume) {
        ok(volume.fs->unmount());
        volume.fs.reset();
        volume.device.reset();
        EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", volume.path).c_str()), 0);
    }
    void TearDown() override {
        for (auto& volume : volumes_) {
            if (volume->fs) unmount(*volume);
            ::unlink(volume->path.c_str());
        }
    }
    template <class T>
    static void ok(const Result<T>& result) {
        EXPECT_TRUE(result) << result.error().what;
    }
    static void write(OpenFile& file, std::size_t at, const std::string& bytes) {
        ok(file.write(at, std::as_bytes(std::span(bytes))));
    }
    static std::string read(OpenFile& file, std::size_t at, std::size_t n) {
        std::string out(n, '-');
        ok(file.read(at, std::as_writable_bytes(std::span(out))));
        return out;
    }
    // Null, and a skipped test, where there are no maps.
    char* map(OpenFile& file, std::size_t length) {
        auto memory = file.map(0, length, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (!memory) reason_ = memory.error().what;
        return memory ? static_cast<char*>(*memory) : nullptr;
    }

    std::string reason_;
    std::vector<std::unique_ptr<TestVolume>> volumes_;
};

#define NEED(memory) \
    if (!(memory)) GTEST_SKIP() << reason_

// A page whose read has failed is asked for once more, and the device hangs. Changes of its own volume wait for the
// answer; another volume's do not, for its file may be that device.
TEST_P(RefusedPages, AreTheirOwnVolumesAffair) {
    TestVolume &ill = make("-t ext4 -b 4096"), &well = make("-t ext4 -b 4096");
    auto file = ill.open("/f");
    auto there = ill.open("/there"), elsewhere = well.open("/elsewhere");
    write(*file, 0, std::string(page, 'a'));
    ok(file->sync(false));
    char* memory = map(*file, page);
    NEED(memory);
    std::atomic<std::uint64_t> bad{0};
    std::promise<void> hangs, heals;
    std::shared_future<void> healed = heals.get_future().share();
    ill.device->on_read = [&](std::uint64_t offset, std::size_t) -> Result<void> {
        if (std::uint64_t none = 0; bad.compare_exchange_strong(none, offset)) return fail(EIO, "a bad sector");
        if (offset != bad) return {};
        hangs.set_value();
        healed.wait();
        return {};
    };
    ill.device->tells = true;
    auto asked = std::async(std::launch::async, [&] { return written_from(memory); });
    hangs.get_future().wait();
    auto here = std::async(std::launch::async, [&] { write(*there, 0, "here"); });
    auto beside = std::async(std::launch::async, [&] { write(*elsewhere, 0, "beside"); });
    EXPECT_EQ(beside.wait_for(10s), std::future_status::ready);
    EXPECT_EQ(here.wait_for(100ms), std::future_status::timeout);
    ill.device->tells = false;
    heals.set_value();
    EXPECT_EQ(asked.get(), 0);
    here.get();
    beside.get();
    EXPECT_EQ(memory[0], 'a');
    ok(ClientMaps::unmap(memory, page));
}

// What a page was given to refuse accesses goes along when the program moves it, and ends all the same.
TEST_P(RefusedPages, AreMovedMeanwhile) {
    TestVolume& volume = make("-t ext4 -b 65536", "512M");
    auto file = volume.open("/f");
    write(*file, 0, std::string(2 * page, 'a'));
    char* memory = map(*file, 16 * page);
    NEED(memory);
    void* room = ::mmap(nullptr, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(room, MAP_FAILED);
    char *at = memory + 5 * page, *to = static_cast<char*>(room);
    for (int round = 0; round < 10; ++round) {
        // Refused again and again, each time for longer.
        for (const auto end = std::chrono::steady_clock::now() + 60ms; std::chrono::steady_clock::now() < end;)
            ASSERT_EQ(written_from(at), EFAULT);
        ASSERT_EQ(::mremap(at, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, to), to) << std::strerror(errno);
        ok(file->truncate(16 * page));
        EXPECT_EQ(signal_of([&] { EXPECT_EQ(*static_cast<volatile char*>(to), 0); }), 0) << round;
        EXPECT_EQ(signal_of([&] { *static_cast<volatile char*>(to) = 'b'; }), 0) << round;
        EXPECT_EQ(read(*file, 5 * page, 1), "b");
        ok(file->truncate(2 * page));
        std::swap(at, to);
    }
    ok(ClientMaps::unmap(memory, 16 * page));
}

// A letter for each KiB, where all of it is the same byte.
std::string letters(const std::string& bytes) {
    std::string out;
    for (std::size_t at = 0; at < bytes.size(); at += 1024) {
        const std::string part = bytes.substr(at, 1024);
        const bool same = part == std::string(part.size(), part[0]);
        out += !same ? '?' : part[0] == 0 ? '0' : part[0];
    }
    return out;
}

// MADV_REMOVE of a page of which one block is being written: the others are on the device, and stay what they were.
TEST_P(RefusedPages, AreThrownAwayDuringWriteback) {
    TestVolume& volume = make("-t ext4 -b 1024");
    auto file = volume.open("/f");
    write(*file, 0, std::string(page, 'a'));
    ok(file->sync(false));
    char* memory = map(*file, page);
    NEED(memory);
    EXPECT_EQ(letters(read(*file, 0, page)), "aaaa");
    write(*file, 1024, std::string(1024, 'b'));
    std::promise<void> written, goes_on;
    std::shared_future<void> may_go_on = goes_on.get_future().share();
    std::atomic<bool> first{true};
    volume.device->after_write = [&](std::uint64_t, std::size_t) -> Result<void> {
        if (!first.exchange(false)) return {};
        written.set_value();
        may_go_on.wait();
        return {};
    };
    volume.device->tells = true;
    auto synced = std::async(std::launch::async, [&] { ok(file->sync(false)); });
    written.get_future().wait();
    ASSERT_EQ(::madvise(memory, page, MADV_REMOVE), 0);
    EXPECT_EQ(letters(read(*file, 0, page)), "a0aa");
    // Where a load counts as a store, it waits for the writeback.
    if (!GetParam()) {
        EXPECT_EQ(signal_of([&] { EXPECT_EQ(letters(std::string(memory, page)), "a0aa"); }), 0);
    }
    goes_on.set_value();
    synced.get();
    // And the one that was on its way is what the device has got.
    EXPECT_EQ(letters(read(*file, 0, page)), "abaa");
    EXPECT_EQ(signal_of([&] { EXPECT_EQ(letters(std::string(memory, page)), "abaa"); }), 0);
    ok(ClientMaps::unmap(memory, page));
    file.reset();
    unmount(volume);
    mount(volume);
    EXPECT_EQ(letters(read(*volume.open("/f"), 0, page)), "abaa");
}

INSTANTIATE_TEST_SUITE_P(Kernels, RefusedPages, testing::Bool(),
                         [](const auto& kernel) { return kernel.param ? "older" : "running"; });

}  // namespace
}  // namespace uext4

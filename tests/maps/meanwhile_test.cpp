// What the program does in the middle of what the library does with its memory: between two looks at what is mapped,
// before memory is watched, after its rights have gone.
#include "hooked_calls.h"
#include "met_signal.h"

#include "api/file_system.h"
#include "mmap/proc_maps.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <thread>
#include <utility>

namespace uext4 {
namespace {

constexpr std::size_t page = 4096, file_pages = 16;

std::set<int> userfault_descriptors() {
    std::set<int> out;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        if (std::filesystem::read_symlink(entry, gone).string().contains("userfaultfd"))
            out.insert(std::stoi(entry.path().filename()));
    }
    return out;
}
// Whoever reads events is held up before the next one, until he is to go on.
class HeldEvent {
public:
    HeldEvent() {
        at_event = [this] {
            is_met_.store(true);
            while (!goes_on_.load()) std::this_thread::yield();
        };
    }
    HeldEvent(const HeldEvent&) = delete;
    HeldEvent& operator=(const HeldEvent&) = delete;
    ~HeldEvent() {
        go_on();
        at_event.clear();
    }
    // False: he has read it without being held up.
    bool wait_until_met() const {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (!is_met_.load() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
        return is_met_.load();
    }
    void go_on() { goes_on_.store(true); }

private:
    std::atomic<bool> is_met_{false}, goes_on_{false};
};
char load(const char* memory) { return *static_cast<const volatile char*>(memory); }
std::uintptr_t address(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory); }

class Meanwhile : public testing::TestWithParam<bool> {
protected:
    void make() {
        answers_queries.store(GetParam());
        path_ = fmt::format("/dev/shm/uext4-meanwhile-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} 48M >/dev/null 2>&1", path_).c_str()), 0);
        mount();
        file = open(O_CREAT | O_RDWR);
        std::string letters;
        for (std::size_t p = 0; p < file_pages; ++p) letters.append(page, static_cast<char>('a' + p));
        auto written = file->write(0, std::as_bytes(std::span(letters)));
        ASSERT_TRUE(written) << written.error().what;
    }
    void mount() {
        auto mounted = FileSystem::mount(path_, "", [](const std::string&) {});
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    std::unique_ptr<OpenFile> open(int flags) {
        auto opened = fs->open_path("/f", flags, 0644, Credentials::root());
        EXPECT_TRUE(opened) << opened.error().what;
        return std::move(*opened);
    }
    // Null where there are no maps.
    char* map(OpenFile& of, std::size_t pages, int flags = MAP_SHARED, int protection = PROT_READ | PROT_WRITE) {
        auto memory = of.map(0, pages * page, protection, flags);
        if (!memory) reason_ = memory.error().what;
        return memory ? static_cast<char*>(*memory) : nullptr;
    }
    static void unmap(void* memory, std::size_t pages) {
        auto done = ClientMaps::unmap(memory, pages * page);
        EXPECT_TRUE(done) << done.error().what;
    }
    char in_file(std::size_t at) {
        char c = 0;
        auto got = file->read(at, std::as_writable_bytes(std::span(&c, 1)));
        EXPECT_TRUE(got) << got.error().what;
        return c;
    }
    // Until it has no name, only the helper lets it go, a moment later.
    void let_go() {
        auto root = fs->resolve("/", Credentials::root());
        ASSERT_TRUE(root) << root.error().what;
        auto removed = fs->unlink(**root, "f", Credentials::root(), true);
        EXPECT_TRUE(removed) << removed.error().what;
        fs->maps().detach_files();
    }
    static bool is_known(const char* memory) { return MapRegistry::instance().find(address(memory)) != nullptr; }
    // A map of 4 pages becomes one of 8, of which the first 4 go. What is left is not known, and cannot be looked at.
    static char* grow_and_cut(char* memory) {
        void* longer = ::mremap(memory, 4 * page, 8 * page, MREMAP_MAYMOVE);
        if (longer == MAP_FAILED) return nullptr;
        has_room.store(false);
        if (::munmap(longer, 4 * page) != 0) return nullptr;
        while (is_known(static_cast<char*>(longer))) std::this_thread::yield();
        return static_cast<char*>(longer);
    }
    static void forget(const char* memory, std::size_t pages) {
        MapRegistry& registry = MapRegistry::instance();
        MutexLock guard(registry.lock());
        registry.forget_locked(registry.parts_locked(address(memory), address(memory) + pages * page));
    }
    void TearDown() override {
        event_of.store(-1);
        at_munmap.clear();
        at_marker.clear(), at_watch.clear(), at_keep_out.clear(), at_unwatch.clear(), at_event.clear();
        has_room.store(true);
        looks_without.store(0);
        file.reset();
        if (fs) {
            auto done = fs->unmount();
            EXPECT_TRUE(done) << done.error().what;
            fs.reset();
            EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} 2>&1", path_).c_str()), 0);
        }
        ::unlink(path_.c_str());
    }

    std::unique_ptr<FileSystem> fs;
    std::unique_ptr<OpenFile> file;
    std::string path_, reason_;
};

#define NEED(memory) \
    if (!(memory)) GTEST_SKIP() << reason_

// Memory that nothing leads to is moved from where nobody has looked yet to where somebody has.
TEST_P(Meanwhile, IsMovedBetweenTwoLooks) {
    make();
    char* memory = map(*file, 8);
    NEED(memory);
    constexpr std::size_t between = 2000;
    char* const low = static_cast<char*>(
        ::mmap(nullptr, (between + 20) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    ASSERT_NE(low, MAP_FAILED);
    char* const behind = low + 8 * page;
    for (std::size_t p = 0; p < between; p += 2) ASSERT_EQ(::mprotect(behind + p * page, page, PROT_READ), 0);
    const int other = ::memfd_create("other", MFD_CLOEXEC);
    ASSERT_EQ(::mmap(behind, page, PROT_NONE, MAP_SHARED | MAP_FIXED, other, 0), behind);
    ::close(other);
    char* const high = behind + (between + 1) * page;
    ASSERT_EQ(::mremap(memory, 8 * page, 8 * page, MREMAP_MAYMOVE | MREMAP_FIXED, high), high);
    while (!is_known(high)) std::this_thread::yield();
    unmap(high + page, 1);
    // As if an event had come too soon for it.
    forget(high + 2 * page, 6);
    std::thread mover;
    marker.store(address(behind));
    at_marker = [&] {
        mover = std::thread(
            [&] { ::mremap(high + 2 * page, 6 * page, 6 * page, MREMAP_MAYMOVE | MREMAP_FIXED, low + 2 * page); });
        const auto is_moved = [&] {
            const auto placed = find_proc_map(address(low) + 2 * page);
            return placed && placed->protection != PROT_NONE;
        };
        while (!is_moved()) std::this_thread::yield();
    };
    ASSERT_EQ(::munmap(high, page), 0);
    while (is_known(high)) std::this_thread::yield();
    let_go();
    ASSERT_TRUE(at_marker.is_over()) << "nobody has looked";
    mover.join();
    char seen = 0;
    EXPECT_EQ(signal_of([&] { seen = load(low + 2 * page); }), 0);
    EXPECT_EQ(seen, 'c');
    EXPECT_EQ(signal_of([&] { low[3 * page] = 'S'; }), 0);
    EXPECT_EQ(in_file(3 * page), 'S');
    EXPECT_EQ(fs->maps().region_count(), 1U);
    unmap(low + 2 * page, 6);
    ::munmap(low, (between + 20) * page);
}

// Nobody has met it, and it may be another's memory by now.
TEST_P(Meanwhile, IsNotWatched) {
    make();
    char* memory = map(*file, 8);
    NEED(memory);
    std::thread other;
    std::uintptr_t refused = 0;
    at_watch = [&](std::uintptr_t start, std::uintptr_t end, bool& succeeds) {
        refused = start;
        struct Seen {
            std::atomic<bool> started{false}, done{false};
        };
        const auto seen = std::make_shared<Seen>();  // it may go on when nobody waits any more
        other = std::thread([seen, start, end] {
            seen->started.store(true);
            (void)MapRegistry::instance().regions_in(start, end);
            seen->done.store(true);
        });
        // It may have to wait for who is here.
        const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
        while (!seen->done.load() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
        EXPECT_TRUE(seen->started.load());
        succeeds = false;
    };
    auto second = file->map(0, 4 * page, PROT_READ, MAP_SHARED);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ENOMEM);
    other.join();
    EXPECT_EQ(MapRegistry::instance().find(refused), nullptr);
    EXPECT_EQ(fs->maps().region_count(), 1U);
    unmap(memory, 8);
    EXPECT_EQ(fs->maps().region_count(), 0U);
}

// The map becomes longer when the library has looked where it ends.
TEST_P(Meanwhile, GrowsWhileItIsEnded) {
    make();
    char* memory = map(*file, 8);
    NEED(memory);
    unmap(memory + 4 * page, 4);
    bool grown = false;
    at_keep_out = [&] { grown = ::mremap(memory, 4 * page, 8 * page, 0) != MAP_FAILED; };
    unmap(memory, 4);
    if (!grown) GTEST_SKIP() << "the place above was taken";
    let_go();
    char seen = 0;
    EXPECT_EQ(signal_of([&] { seen = load(memory + 5 * page); }), 0);
    EXPECT_EQ(seen, 'f');
    unmap(memory + 4 * page, 4);
}

// The file has no known map then, for a moment, and is looked at.
TEST_P(Meanwhile, GrowsWhileItIsEndedAndLooksUnused) {
    make();
    char* memory = map(*file, 8);
    NEED(memory);
    unmap(memory + 4 * page, 4);
    bool grown = false;
    at_keep_out = [&] { grown = ::mremap(memory, 4 * page, 8 * page, 0) != MAP_FAILED; };
    at_unwatch = [&] { let_go(); };
    unmap(memory, 4);
    if (!grown) GTEST_SKIP() << "the place above was taken";
    EXPECT_TRUE(at_unwatch.is_over());
    char seen = 0;
    EXPECT_EQ(signal_of([&] { seen = load(memory + 5 * page); }), 0);
    EXPECT_EQ(seen, 'f');
    unmap(memory + 4 * page, 4);
}

// Another map comes, longer than it was, to addresses that are just being left: what is asked of it then is asked of
// all of it.
TEST_P(Meanwhile, GrowsToWhereAnotherIsBeingEnded) {
    make();
    char* leaving = map(*file, 12);
    NEED(leaving);
    char* memory = map(*file, 2);
    ASSERT_NE(memory, nullptr);
    memory[page] = 'S';
    std::thread other;
    std::atomic<bool> synced{false}, is_asked{false};
    at_munmap = [&] {
        ASSERT_EQ(::mremap(memory, 2 * page, 12 * page, MREMAP_MAYMOVE | MREMAP_FIXED, leaving), leaving);
        other = std::thread([&] {
            is_asked.store(true);
            auto done = fs->sync_maps(leaving, 12 * page, true);
            EXPECT_TRUE(done) << done.error().what;
            synced.store(true);
            unmap(leaving, 12);
        });
        // Nobody can answer before this is over.
        while (!is_asked.load()) std::this_thread::yield();
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        EXPECT_FALSE(synced.load());
    };
    unmap(leaving, 12);
    ASSERT_TRUE(at_munmap.is_over());
    other.join();
    EXPECT_EQ(fs->maps().region_count(), 0U);
    EXPECT_FALSE(is_mapped(address(leaving) + 5 * page));
}

// The engine has to outlast whoever ends its last map.
TEST_P(Meanwhile, IsUnmountedWhileItIsEnded) {
    make();
    char* memory = map(*file, 4);
    NEED(memory);
    std::size_t left = 0;
    at_unwatch = [&] { left = fs->maps().region_count(); };
    unmap(memory, 4);
    EXPECT_NE(left, 0U);
    EXPECT_EQ(fs->maps().region_count(), 0U);
}

// What cannot be looked at is not known to be gone.
TEST_P(Meanwhile, CannotBeLookedAt) {
    make();
    char* memory = map(*file, 4);
    NEED(memory);
    char* longer = grow_and_cut(memory);
    ASSERT_NE(longer, nullptr);
    let_go();
    EXPECT_NE(fs->maps().region_count(), 0U);
    std::thread later([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        has_room.store(true);
    });
    char seen = 0;
    EXPECT_EQ(signal_of([&] { seen = load(longer + 5 * page); }), 0);
    EXPECT_EQ(seen, 'f');
    later.join();
    // One, or in parts where the fault was the first to look.
    EXPECT_NE(fs->maps().region_count(), 0U);
    unmap(longer + 4 * page, 4);
    EXPECT_EQ(fs->maps().region_count(), 0U);
}

// Whichever look is the first that tells something again.
TEST_P(Meanwhile, CanBeLookedAtAgain) {
    make();
    constexpr int looks_of_a_fault = 12;  // and more than one of them
    for (int looks = 1; looks <= looks_of_a_fault; ++looks) {
        char* memory = map(*file, 4);
        NEED(memory);
        char* longer = grow_and_cut(memory);
        ASSERT_NE(longer, nullptr);
        looks_without.store(looks);
        char seen = 0;
        EXPECT_EQ(signal_of([&] { seen = load(longer + 5 * page); }), 0) << looks;
        EXPECT_EQ(seen, 'f') << looks;
        EXPECT_TRUE(has_room.load());
        unmap(longer + 4 * page, 4);
    }
    EXPECT_EQ(fs->maps().region_count(), 0U);
}

// What the program has in the place of a map that it has ended is its own, also before the event of that is read.
TEST_P(Meanwhile, IsAnothersMemory) {
    make();
    char* memory = map(*file, 4);
    NEED(memory);
    std::jthread ending, later;
    HeldEvent held;  // goes first, so that the threads end
    ending = std::jthread([&] { ::munmap(memory, 4 * page); });
    while (is_mapped(address(memory))) std::this_thread::yield();
    ASSERT_TRUE(held.wait_until_met());
    void* own =
        ::mmap(memory, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    ASSERT_EQ(own, memory) << strerror(errno);
    memory[page] = 'x';
    later = std::jthread([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        held.go_on();
    });
    auto done = ClientMaps::unmap(memory, 4 * page);
    EXPECT_FALSE(done);
    EXPECT_EQ(signal_of([&] { EXPECT_EQ(load(memory + page), 'x'); }), 0);
    later.join();
    ending.join();
    EXPECT_EQ(::munmap(own, 4 * page), 0);
}

// A map of one file system is at an address and gone again, and a map of another one moved there, before the first
// one's reader is told of it.
TEST_P(Meanwhile, IsWhereAnothersWas) {
    make();
    char* memory = map(*file, 4);
    NEED(memory);
    const std::string path = path_ + "-second";
    ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} 16M >/dev/null 2>&1", path).c_str()), 0);
    auto other = FileSystem::mount(path, "", [](const std::string&) {});
    ASSERT_TRUE(other) << other.error().what;
    FileSystem& second = **other;
    {
        auto opened = second.open_path("/g", O_CREAT | O_RDWR, 0644, Credentials::root());
        ASSERT_TRUE(opened) << opened.error().what;
        const std::string letters(4 * page, 'g');
        auto written = (*opened)->write(0, std::as_bytes(std::span(letters)));
        ASSERT_TRUE(written) << written.error().what;
        const std::set<int> before = userfault_descriptors();
        char* others = map(**opened, 4);
        ASSERT_NE(others, nullptr);
        for (const int fd : userfault_descriptors())
            if (!before.contains(fd)) event_of.store(fd);
        ASSERT_NE(event_of.load(), -1);
        char* const place =
            static_cast<char*>(::mmap(nullptr, 4 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        ASSERT_NE(place, MAP_FAILED);
        memory[page] = 'S';
        std::jthread moving, ending;
        HeldEvent held;  // goes first, so that the threads end
        moving = std::jthread([&] { ::mremap(others, 4 * page, 4 * page, MREMAP_MAYMOVE | MREMAP_FIXED, place); });
        while (is_mapped(address(others))) std::this_thread::yield();
        ASSERT_TRUE(held.wait_until_met());
        ending = std::jthread([&] { ::munmap(place, 4 * page); });
        while (is_mapped(address(place))) std::this_thread::yield();
        ASSERT_EQ(::mremap(memory, 4 * page, 4 * page, MREMAP_MAYMOVE | MREMAP_FIXED, place), place);
        while (!is_known(place)) std::this_thread::yield();
        held.go_on();
        moving.join(), ending.join();
        // What is written back is protected, so that a store is met.
        auto synced = file->sync(true);
        ASSERT_TRUE(synced) << synced.error().what;
        EXPECT_EQ(signal_of([&] { place[page] = 'T'; }), 0);
        synced = file->sync(true);
        ASSERT_TRUE(synced) << synced.error().what;
        EXPECT_EQ(second.maps().region_count(), 0U);
        EXPECT_EQ(fs->maps().region_count(), 1U);
        unmap(place, 4);
    }
    auto done = second.unmount();
    EXPECT_TRUE(done) << done.error().what;
    ::unlink(path.c_str());
    file.reset();
    done = fs->unmount();
    ASSERT_TRUE(done) << done.error().what;
    fs.reset();
    mount();
    file = open(O_RDWR);
    EXPECT_EQ(in_file(page), 'T');
}

// Of a map that may not store a part is left that nothing leads to; another map of the file may, or might.
TEST_P(Meanwhile, IsLeftWithoutRights) {
    make();
    char* kept = map(*file, 1, MAP_PRIVATE);
    NEED(kept);
    for (const bool is_there : {false, true}) {
        SCOPED_TRACE(is_there);
        const auto reading = open(O_RDONLY);
        char* memory = map(*reading, 4, MAP_SHARED, PROT_READ);
        ASSERT_NE(memory, nullptr);
        forget(memory, 4);
        char* other = map(*file, 4);
        ASSERT_NE(other, nullptr);
        if (!is_there) unmap(other, 4);
        char seen = 0;
        EXPECT_EQ(signal_of([&] { seen = load(memory + page); }), 0);
        EXPECT_EQ(seen, 'b');
        // As it was found, whatever the kernel may be told later.
        ASSERT_EQ(::mprotect(memory, 4 * page, PROT_READ | PROT_WRITE), 0);
        EXPECT_NE(signal_of([&] { memory[2 * page] = 'S'; }), 0);
        EXPECT_EQ(in_file(2 * page), 'c');
        unmap(memory, 4);
        if (is_there) unmap(other, 4);
    }
    unmap(kept, 1);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Meanwhile, testing::Bool(),
                         [](const auto& asks) { return std::string(asks.param ? "this_one" : "older"); });

}  // namespace
}  // namespace uext4

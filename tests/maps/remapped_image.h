// For tests of maps that the program has changed by mremap(2): a file whose pages have letters, in each mode.
#pragma once

#include "mapped_image.h"

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <ostream>
#include <thread>
#include <utility>

namespace uext4::test {

inline constexpr std::size_t page = 4096;
inline constexpr std::size_t file_pages = 16;

// A call that never ends takes no signals: the process ends here instead.
class Watchdog {
public:
    explicit Watchdog(std::chrono::seconds patience)
        : thread_([this, patience] {
              std::unique_lock guard(lock_);
              if (done_.wait_for(guard, patience, [this] { return ended_; })) return;
              std::fputs("a call does not end\n", stderr);
              std::abort();
          }) {}
    ~Watchdog() {
        {
            const std::lock_guard guard(lock_);
            ended_ = true;
        }
        done_.notify_all();
        thread_.join();
    }
    Watchdog(const Watchdog&) = delete;

private:
    std::mutex lock_;
    std::condition_variable done_;
    bool ended_ = false;
    std::thread thread_;
};

// Each page of the file has a letter of its own.
inline std::string letters() {
    std::string out;
    for (std::size_t p = 0; p < file_pages; ++p) out.append(page, static_cast<char>('a' + p));
    return out;
}

inline char load(const char* memory) { return *static_cast<const volatile char*>(memory); }

struct Mode {
    const char* options;
    int flags;
    const char* name;
};
inline void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

class RemappedImage : public MappedImage, public testing::WithParamInterface<Mode> {
protected:
    bool is_shared() const { return GetParam().flags == MAP_SHARED; }
    void begin(const char* format = "-t ext4 -b 4096") {
        make(format, GetParam().options);
        if (HasFatalFailure()) return;
        file = open("/f");
        write(file, letters());
        ASSERT_EQ(uext4_fsync(file), 0);
    }
    // A map of the file's first `before` pages that the program has made as long as `after` pages, and not touched.
    char* grown(std::size_t before, std::size_t after, bool moves = true) {
        for (int attempts = 0;; ++attempts) {
            char* memory = map(file, after * page, 0, PROT_READ | PROT_WRITE, GetParam().flags);
            EXPECT_EQ(::munmap(memory + before * page, (after - before) * page), 0);
            void* place = nullptr;
            if (moves) place = ::mmap(nullptr, after * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            const int flags = moves ? MREMAP_MAYMOVE | MREMAP_FIXED : 0;
            void* longer = ::mremap(memory, before * page, after * page, flags, place);
            if (longer != MAP_FAILED) return static_cast<char*>(longer);
            // Somebody else has taken the place (a sanitizer does).
            EXPECT_TRUE(!moves && errno == ENOMEM && attempts < 20) << strerror(errno);
            if (moves || attempts == 20) return memory;
            EXPECT_EQ(uext4_unmap(memory, before * page), 0);
        }
    }
    // Loads and stores of the pages, which show the file's from `first` on.
    void expect_pages(char* memory, std::size_t count, std::size_t first) {
        for (std::size_t p = 0; p < count; ++p) {
            char seen = 0;
            EXPECT_FALSE(refused([&] { seen = load(memory + p * page); })) << "page " << first + p;
            EXPECT_EQ(seen, static_cast<char>('a' + first + p));
            EXPECT_FALSE(refused([&] { memory[p * page + 1] = 'S'; })) << "page " << first + p;
            const char stored = is_shared() ? 'S' : static_cast<char>('a' + first + p);
            EXPECT_EQ(read(file, 1, static_cast<off_t>((first + p) * page + 1)), std::string(1, stored));
        }
    }
    static bool is_mapped(const char* memory) {
        unsigned char there = 0;
        return ::mincore(const_cast<char*>(memory), page, &there) == 0;
    }
    void end() {
        EXPECT_EQ(uext4_close(std::exchange(file, nullptr)), 0);
        unmount();
    }
    void TearDown() override {
        if (file) uext4_close(file);
        MappedImage::TearDown();
    }

    uext4_file* file = nullptr;
};

inline auto all_modes() {
    return testing::Values(Mode{"", MAP_SHARED, "ordered_shared"}, Mode{"", MAP_PRIVATE, "ordered_private"},
                           Mode{"data=journal", MAP_SHARED, "journal_shared"},
                           Mode{"data=journal", MAP_PRIVATE, "journal_private"});
}
inline std::string name_of(const testing::TestParamInfo<Mode>& mode) { return mode.param.name; }

}  // namespace uext4::test

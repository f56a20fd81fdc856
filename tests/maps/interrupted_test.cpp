// Handlers of the program's signals that touch maps, and threads that are cancelled: whatever they interrupt goes on.
#include "mapped_image.h"

#include <uext4/uext4.hpp>

#include <linux/falloc.h>
#include <pthread.h>
#include <sys/time.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

namespace uext4::test::interrupted_test {
namespace {

constexpr std::size_t page = 4096, pages = 16;

class Interrupted : public MappedImage {};

// Of the handler.
volatile char* touched = nullptr;
volatile bool stores = false;
std::atomic<int> signals_taken{0};

void touch(int) {
    const int error = errno;
    const int taken = ++signals_taken;
    const std::size_t at = static_cast<std::size_t>(taken) * 7 % pages * page + 11;
    if (stores) touched[at] = static_cast<char>(taken);
    else (void)touched[at];
    errno = error;
}

// While it lives a timer interrupts this thread; a call that never ends ends the process, as nothing else can.
class Interruptions {
public:
    Interruptions() {
        // The timer's signals are for this thread alone.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        watch_ = std::thread([this] {
            for (int waited = 0; !done_.load(); ++waited) {
                std::this_thread::sleep_for(std::chrono::milliseconds(10));
                if (waited < 6000) continue;
                std::fputs("a call that was interrupted does not end\n", stderr);
                ::_exit(1);
            }
        });
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        struct sigaction action{};
        action.sa_handler = touch;
        action.sa_flags = SA_RESTART;
        sigaction(SIGALRM, &action, &before_);
        const itimerval often{{0, 300}, {0, 300}};
        setitimer(ITIMER_REAL, &often, nullptr);
    }
    ~Interruptions() {
        const itimerval never{};
        setitimer(ITIMER_REAL, &never, nullptr);
        done_.store(true);
        watch_.join();
        sigaction(SIGALRM, &before_, nullptr);
    }

private:
    std::atomic<bool> done_{false};
    std::thread watch_;
    struct sigaction before_{};
};

TEST_F(Interrupted, AHandlerMayTouchAMap) {
    for (const char* mode : {"data=ordered", "data=journal"}) {
        make("-t ext4 -b 4096", mode);
        NEED_MAPS();
        uext4_file* file = open("/f");
        const std::string bytes = pattern(pages * page, 1);
        write(file, bytes);
        touched = map(file, pages * page);
        std::string room(bytes.size(), 0);
        const auto size = static_cast<off_t>(bytes.size());
        const std::function<int()> calls[] = {
            [&] { return static_cast<int>(uext4_pwrite(file, bytes.data(), bytes.size(), 0) - size); },
            [&] { return static_cast<int>(uext4_pread(file, room.data(), room.size(), 0) - size); },
            [&] { return uext4_fsync(file); },
            [&] { return uext4_ftruncate(file, size - 100) + uext4_ftruncate(file, size); },
            [&] { return uext4_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page, 2 * page); },
            [&] { return uext4_fsetxattr(file, "user.a", "value", 5, 0) + uext4_syncfs(fs); },
        };
        for (const bool storing : {false, true}) {
            stores = storing;
            for (const auto& call : calls) {
                signals_taken = 0;
                const Interruptions timer;
                for (int i = 0; signals_taken < 100 && i < 100000; ++i) EXPECT_EQ(call(), 0) << uext4_strerror();
                EXPECT_GE(signals_taken, 100);
            }
        }
        EXPECT_EQ(uext4_unmap(const_cast<char*>(touched), pages * page), 0);
        uext4_close(file);
        unmount();
    }
}

// It ends between two calls.
TEST_F(Interrupted, ACancelledThreadLeavesNothingHalfDone) {
    make("-t ext4 -b 4096");
    uext4_file* file = open("/f");
    for (int i = 0; i < 50; ++i) {
        pthread_t writer{};
        const auto body = [](void* opened) -> void* {
            static const std::string bytes = pattern(64 << 10, 3);
            for (;;) {
                (void)uext4_pwrite(static_cast<uext4_file*>(opened), bytes.data(), bytes.size(), 0);
                (void)uext4_fsync(static_cast<uext4_file*>(opened));
            }
        };
        ASSERT_EQ(pthread_create(&writer, nullptr, body, file), 0);
        std::this_thread::sleep_for(std::chrono::microseconds(1000 + i * 37 % 3000));
        ASSERT_EQ(pthread_cancel(writer), 0);
        void* ended = nullptr;
        ASSERT_EQ(pthread_join(writer, &ended), 0);
        EXPECT_EQ(ended, PTHREAD_CANCELED);
    }
    write(file, "and on");
    EXPECT_EQ(uext4_fsync(file), 0);
    EXPECT_EQ(read(file, 6), "and on");
    uext4_close(file);
    unmount();
}

// What is given back in a destructor is no place to leave.
TEST_F(Interrupted, ACancelledThreadGivesBack) {
    make("-t ext4 -b 4096");
    unmount();
    {
        auto mounted = uext4::FileSystem::mount(path_.c_str());
        ASSERT_TRUE(mounted);
        static std::atomic<long> laps{0};
        for (int i = 0; i < 100; ++i) {
            pthread_t thread{};
            const auto body = [](void* given) -> void* {
                auto& fs = *static_cast<uext4::FileSystem*>(given);
                for (;; ++laps) {
                    auto file = fs.open("/f", O_RDWR | O_CREAT, 0644);
                    auto directory = fs.open_directory("/");
                    if (!file || !directory) return nullptr;
                }
            };
            ASSERT_EQ(pthread_create(&thread, nullptr, body, &*mounted), 0);
            std::this_thread::sleep_for(std::chrono::microseconds(1000 + i * 37 % 3000));
            ASSERT_EQ(pthread_cancel(thread), 0);
            void* ended = nullptr;
            ASSERT_EQ(pthread_join(thread, &ended), 0);
            EXPECT_EQ(ended, PTHREAD_CANCELED);
        }
        EXPECT_GT(laps.load(), 0);
        EXPECT_TRUE(mounted->unmount()) << "something is open";
    }
    judge(path_);
}

}  // namespace
}  // namespace uext4::test::interrupted_test

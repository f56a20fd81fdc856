// What is told of threads that wait for each other: who holds what, who wants it, and where their callers asked for it.
#include "api/file_system.h"
#include "pagecache/file_cache.h"
#include "sync/thread.h"
#include "tests/explore/picker.h"
#include "tests/explore/token_scheduler.h"
#include "tests/fixtures/log_fixture.h"
#include "volume/freeze_gate.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>

namespace uext4::explore {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// The plants run in a child: what is found ends it.
class DeadlockReport : public testing::Test {
protected:
    void SetUp() override {
        void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(memory, MAP_FAILED);
        shared_ = new (memory) Shared{};
    }
    void TearDown() override { ::munmap(shared_, sizeof(Shared)); }

    // Without a choice a thread goes on until it yields or has to wait; then the next by number has the turn.
    void run(const std::function<void(TokenScheduler&)>& plant) {
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            ::alarm(60);
            const auto picker = make_replay({});
            TokenScheduler scheduler(*picker, *shared_, true);
            plant(scheduler);
            ::_exit(0);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFEXITED(status)) << status;
    }

    std::string found() const { return failure_name(shared_->failure.load()); }
    std::string text() const { return shared_->text.data(); }
    // All lines that the steps name.
    std::string places() const {
        std::string all;
        for (std::uint32_t i = 0; i < shared_->name_count; ++i) all += fmt::format("{}\n", shared_->names[i].data());
        return all;
    }

    Shared* shared_ = nullptr;
};

// The line of this file that ends with the comment.
std::string at(const std::string& comment) {
    std::ifstream source(UEXT4_THIS_SOURCE);
    unsigned number = 1;
    for (std::string line; std::getline(source, line); ++number)
        if (line.ends_with("// " + comment)) return fmt::format("tests/explore/deadlock_report_test.cpp:{}", number);
    ADD_FAILURE() << "no line ends with: " << comment;
    return {};
}

// No line of what only hands a lock on.
auto names_no_wrapper() {
    return AllOf(Not(HasSubstr("src/sync/")), Not(HasSubstr("stl_construct.h")), Not(HasSubstr("optional")),
                 Not(HasSubstr("file_cache.")), Not(HasSubstr("freeze_gate.")), Not(HasSubstr("change_pass.")),
                 Not(HasSubstr("file_system.h")), Not(HasSubstr("journal.cpp")), Not(HasSubstr("journal_work.cpp")),
                 Not(HasSubstr("handle.cpp")));
}

struct Pages {
    PageCache cache{64 << 12, 4096, 4096};
    FileCache file{cache, 12};
};

TEST_F(DeadlockReport, OfTwoFolios) {
    run([](TokenScheduler&) {
        Pages pages;
        FileCache& file = pages.file;
        Thread a("t:a", [&] {
            const auto one = file.lock(3, true);  // folios: a has 3
            this_thread::yield();
            const auto two = file.lock(5, true);  // folios: a wants 5
        });
        Thread b("t:b", [&] {
            const auto two = file.lock_for_change(5, true);  // folios: b has 5
            this_thread::yield();
            const RankSuspension against_the_order;
            const auto one = file.lock_range_for_change(3, 1);  // folios: b wants 3
        });
    });
    EXPECT_EQ(found(), "deadlock") << text();
    EXPECT_THAT(text(), HasSubstr(fmt::format("thread 1 t:a wants \"folio\" 5 of inode 12 at {}, held by thread 2 t:b "
                                              "since {}\n",
                                              at("folios: a wants 5"), at("folios: b has 5"))));
    EXPECT_THAT(text(), HasSubstr(fmt::format("thread 2 t:b wants \"folio\" 3 of inode 12 at {}, held by thread 1 t:a "
                                              "since {}\n",
                                              at("folios: b wants 3"), at("folios: a has 3"))));
    EXPECT_THAT(text(),
                HasSubstr(fmt::format("holds Folio \"folio\" 3 of inode 12 since {}\n", at("folios: a has 3"))));
    EXPECT_THAT(text(), names_no_wrapper());
}

TEST_F(DeadlockReport, OfAFolioAndItsWriteback) {
    run([](TokenScheduler&) {
        Pages pages;
        FileCache& file = pages.file;
        Thread a("t:a", [&] {
            const auto one = file.lock(3, true);  // writeback: a has 3
            this_thread::yield();
            const auto two = file.lock_for_change(5, false);  // writeback: a wants 5
        });
        Thread b("t:b", [&] {
            auto two = file.lock(5, true);
            file.mark_dirty(*two, 1);
            file.begin_writeback(*two);  // writeback: b writes 5
            two->unlock();
            this_thread::yield();
            const auto one = file.lock(3, false);  // writeback: b wants 3
        });
        Thread c("t:c", [&] {
            file.wait_for_writeback(0, 100);  // writeback: c waits
        });
    });
    EXPECT_EQ(found(), "deadlock") << text();
    for (const auto& [who, where] :
         {std::pair("1 t:a", "writeback: a wants 5"), std::pair("3 t:c", "writeback: c waits")})
        EXPECT_THAT(text(), HasSubstr(fmt::format("thread {} wants \"writeback of folio\" 5 of inode 12 at {}, held by "
                                                  "thread 2 t:b since {}\n",
                                                  who, at(where), at("writeback: b writes 5"))));
    EXPECT_THAT(text(), HasSubstr(fmt::format("thread 2 t:b wants \"folio\" 3 of inode 12 at {}, held by thread 1 t:a "
                                              "since {}\n",
                                              at("writeback: b wants 3"), at("writeback: a has 3"))));
    EXPECT_THAT(text(), HasSubstr(fmt::format("holds \"writeback of folio\" 5 of inode 12 since {}\n",
                                              at("writeback: b writes 5"))));
    EXPECT_THAT(text(), names_no_wrapper());
}

TEST_F(DeadlockReport, OfAFolioAndATransaction) {
    run([](TokenScheduler&) {
        const test::LogShape shape;
        const auto device = test::make_log(shape);
        test::Mounted mounted(*device, shape);
        Journal& journal = *mounted.journal;
        Pages pages;
        FileCache& file = pages.file;
        Thread a("t:a", [&] {
            const Result<Handle> handle = journal.start(4);  // transaction: a has a handle
            this_thread::yield();
            const RankSuspension against_the_order;
            const auto folio = file.lock(3, true);  // transaction: a wants 3
        });
        Thread b("t:b", [&] {
            const auto folio = file.lock(3, true);  // transaction: b has 3
            this_thread::yield();
            const Result<Handle> handle = journal.start(4);  // transaction: b wants a handle
        });
        Thread c("t:c", [&] {
            (void)journal.commit(1);  // transaction: c commits
        });
    });
    EXPECT_EQ(found(), "deadlock") << text();
    EXPECT_THAT(text(),
                HasSubstr(fmt::format("t:a wants \"folio\" 3 of inode 12 at {}, held by thread 3 t:b since {}\n",
                                      at("transaction: a wants 3"), at("transaction: b has 3"))));
    EXPECT_THAT(text(), HasSubstr(fmt::format("t:b wants \"commit of transaction\" 1 at {}, held by thread 4 t:c since "
                                              "{}\n",
                                              at("transaction: b wants a handle"), at("transaction: c commits"))));
    EXPECT_THAT(text(),
                HasSubstr(fmt::format("t:c wants \"handles of transaction\" 1 at {}, held by thread 2 t:a since "
                                      "{}\n",
                                      at("transaction: c commits"), at("transaction: a has a handle"))));
    EXPECT_THAT(text(), HasSubstr(fmt::format("holds Transaction \"handle of transaction\" 1 since {}\n",
                                              at("transaction: a has a handle"))));
    // The circle stands before all threads, and the journal's is not in it.
    EXPECT_THAT(text().substr(0, text().find("all threads")),
                AllOf(HasSubstr("t:a"), HasSubstr("t:b"), HasSubstr("t:c"), Not(HasSubstr("uext4-commit")),
                      names_no_wrapper()));
}

TEST_F(DeadlockReport, OfTheFreezeGate) {
    run([](TokenScheduler&) {
        FreezeGate gate;
        SharedMutex rw(Rank::Inode, "Inode::rw", 12);
        Thread a("t:a", [&] {
            std::optional<FreezeGate::Entry> pass;
            pass.emplace(gate, SourceLocation::current());  // gate: a is inside
            this_thread::yield();
            const WriteLock lock(rw);  // gate: a wants rw
        });
        Thread f("t:f", [&] {
            const WriteLock lock(rw);  // gate: f has rw
            this_thread::yield();
            const RankSuspension against_the_order;
            gate.close();  // gate: f closes
        });
        Thread late("t:late", [&] {
            this_thread::yield();
            const FreezeGate::SyncEntry pass(gate);  // gate: late wants in
        });
    });
    EXPECT_EQ(found(), "deadlock") << text();
    EXPECT_THAT(text(), HasSubstr(fmt::format("t:a wants \"Inode::rw\" 12 at {}, held by thread 2 t:f since {}\n",
                                              at("gate: a wants rw"), at("gate: f has rw"))));
    EXPECT_THAT(text(), HasSubstr(fmt::format("t:f wants \"freeze gate\" at {}, held by thread 1 t:a since {}\n",
                                              at("gate: f closes"), at("gate: a is inside"))));
    EXPECT_THAT(text(), HasSubstr(fmt::format("t:late wants \"opening of the freeze gate\" at {}, held by thread 2 t:f "
                                              "since {}\n",
                                              at("gate: late wants in"), at("gate: f closes"))));
    EXPECT_THAT(text(), names_no_wrapper());
}

TEST_F(DeadlockReport, OfAThreadThatWaitsForItsOwnThaw) {
    run([](TokenScheduler&) {
        FreezeGate gate;
        Thread f("t:f", [&] {
            gate.close();  // thaw: f freezes
            gate.close_inner();
            gate.set_frozen();
            const FreezeGate::Entry pass(gate);  // thaw: f wants in
        });
    });
    EXPECT_EQ(found(), "deadlock") << text();
    EXPECT_THAT(text(),
                HasSubstr(fmt::format("t:f wants \"opening of the freeze gate\" at {}, held by itself since {}\n",
                                      at("thaw: f wants in"), at("thaw: f freezes"))));
}

TEST_F(DeadlockReport, OfAThreadThatIsJoinedWithItsLockHeld) {
    run([](TokenScheduler&) {
        Mutex mutex(Rank::Leaf, "mutex");
        Thread a("t:a", [&] { const MutexLock lock(mutex); });
        const MutexLock lock(mutex);
        a.join();  // join
    });
    EXPECT_EQ(found(), "deadlock") << text();
    EXPECT_THAT(text(), HasSubstr(fmt::format(
                            "thread 0 main wants \"end of the thread\" at {}, which is thread 1 t:a\n", at("join"))));
}

// Whoever holds what others want waits for a signal: who holds it is told, but threads do not wait for each other.
TEST_F(DeadlockReport, IsNotOneOfALostWakeUp) {
    run([](TokenScheduler&) {
        Pages pages;
        Mutex mutex(Rank::Device, "mutex");
        CondVar never("what nobody signals");
        Thread a("t:a", [&] {
            const auto folio = pages.file.lock(3, true);  // lost: a has 3
            MutexLock lock(mutex);
            never.wait(mutex);  // lost: a waits
        });
        Thread b("t:b", [&] {
            const auto folio = pages.file.lock(3, true);  // lost: b wants 3
        });
    });
    EXPECT_EQ(found(), "lost wake-up") << text();
    EXPECT_THAT(text(), HasSubstr(fmt::format("t:a wants \"what nobody signals\" at {}\n", at("lost: a waits"))));
    EXPECT_THAT(text(),
                HasSubstr(fmt::format("t:b wants \"folio\" 3 of inode 12 at {}, held by thread 1 t:a since {}\n",
                                      at("lost: b wants 3"), at("lost: a has 3"))));
}

TEST_F(DeadlockReport, IsNotOneOfWhatAThreadLeftLocked) {
    run([](TokenScheduler&) {
        Pages pages;
        Result<LockedFolio> left;  // outlives the thread, and what is found comes before its end
        Thread a("t:a", [&] {
            left = pages.file.lock(3, true);  // left: a has 3
        });
        a.join();
        Thread b("t:b", [&] { const auto folio = pages.file.lock(3, true); });
    });
    EXPECT_EQ(found(), "lost wake-up") << text();
    EXPECT_THAT(text(),
                HasSubstr(fmt::format("held by thread 1 t:a, which has ended, since {}\n", at("left: a has 3"))));
}

// Through all layers: a write that holds its file waits for a gate, whose closer wants the file.
class DeadlockReportOfAFileSystem : public DeadlockReport {
protected:
    void SetUp() override {
        DeadlockReport::SetUp();
        const std::string path = fmt::format("/dev/shm/uext4-deadlock-{}", ::getpid());
        const std::string command = fmt::format("mke2fs -q -F -t ext4 {} 8M >/dev/null", path);
        ASSERT_EQ(std::system(command.c_str()), 0);
        auto loaded = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(loaded) << loaded.error().what;
        device_ = std::move(*loaded);
    }
    std::shared_ptr<MemoryDevice> device_;
};

TEST_F(DeadlockReportOfAFileSystem, NamesTheCallers) {
    run([&](TokenScheduler& scheduler) {
        VolumeOptions options;
        options.background = false;
        const auto fs = std::move(*FileSystem::mount_device(device_, options));
        const auto file = std::move(*fs->open_path("/f", O_RDWR | O_CREAT, 0644, Credentials::root()));
        scheduler.set_quiet(false);
        Thread f("t:f", [&] {
            fs->volume().gate().close();  // layers: f closes
            this_thread::yield();
            const RankSuspension against_the_order;
            const WriteLock call(file->inode().call_lock);  // layers: f wants the file
        });
        Thread w("t:w", [&] {
            const std::string bytes(5000, 'x');
            (void)file->write(0, std::as_bytes(std::span(bytes)));
        });
    });
    EXPECT_EQ(found(), "deadlock") << text();
    EXPECT_THAT(text(),
                testing::ContainsRegex("t:w wants \"opening of the freeze gate\" at src/api/open_file.cpp:[0-9]+, "
                                       "held by thread [0-9]+ t:f since"));
    EXPECT_THAT(text(), testing::ContainsRegex(
                            "t:f wants \"Inode::call\" of inode [0-9]+ at tests/.*, held by thread [0-9]+ t:w "
                            "since src/api/open_file.cpp:[0-9]+\n"));
    EXPECT_THAT(text(), HasSubstr(at("layers: f closes")));
    EXPECT_THAT(text(), HasSubstr(at("layers: f wants the file")));
    EXPECT_THAT(text().substr(0, text().find("all threads")), names_no_wrapper());
}

// The end of a scope is told by the line that began it.
TEST_F(DeadlockReportOfAFileSystem, StepsAreTheCallersToo) {
    run([&](TokenScheduler& scheduler) {
        VolumeOptions options;
        options.background = false;
        const auto fs = std::move(*FileSystem::mount_device(device_, options));
        const auto file = std::move(*fs->open_path("/f", O_RDWR | O_CREAT, 0644, Credentials::root()));
        scheduler.set_quiet(false);
        Thread w("t:w", [&] {
            const std::string bytes(50000, 'x');
            (void)file->write(0, std::as_bytes(std::span(bytes)));
            (void)file->sync(false);
            (void)file->truncate(100);
        });
        w.join();
        scheduler.set_quiet(true);
    });
    EXPECT_EQ(found(), "nothing") << text();
    EXPECT_THAT(places(), AllOf(HasSubstr("src/file/write.cpp"), HasSubstr("src/api/open_file.cpp")));
    EXPECT_THAT(places(), AllOf(Not(HasSubstr("src/sync/")), Not(HasSubstr("stl_construct.h")),
                                Not(HasSubstr("freeze_gate.h")), Not(HasSubstr("file_system.h"))));
}

}  // namespace
}  // namespace uext4::explore

// Problem D: data=journal. A page is stored to through a map and written by pwrite, its transaction is committed while
// stores go on, and the power goes. What was acknowledged is there, by our recovery, e2fsck's and the kernel's.
#include "settled_image.h"

#include <sys/stat.h>

#include <atomic>
#include <cstring>
#include <thread>

namespace uext4::problems::d_commit_under_stores_test {
namespace {

constexpr std::size_t pages = 16;
// Of each page: what is stored through the map, what is written, and what other threads store all the time.
constexpr std::size_t stored_at = 0, written_at = 1032, noise_at = 2048;

class UnderStores : public SettledImage, public testing::WithParamInterface<const char*> {
protected:
    void SetUp() override { make(GetParam(), "data=journal"); }

    static std::uint64_t number_at(const std::string& bytes, std::size_t at) {
        std::uint64_t n = 0;
        std::memcpy(&n, bytes.data() + at, sizeof n);
        return n;
    }
    // Both numbers of every page are at least `acknowledged`, and nothing is what was never there.
    void check(const std::string& bytes, std::uint64_t acknowledged, const char* by) {
        ASSERT_EQ(bytes.size(), pages * page) << by;
        for (std::size_t p = 0; p < pages; ++p) {
            for (const std::size_t at : {stored_at, written_at}) {
                const std::uint64_t n = number_at(bytes, p * page + at);
                EXPECT_GE(n, acknowledged) << by << ": page " << p << " at " << at;
                EXPECT_LE(n, newest) << by << ": page " << p << " at " << at;
            }
            for (std::size_t i = 16; i < page; ++i) {
                if (i >= written_at && i < written_at + 8) continue;
                const char byte = bytes[p * page + i];
                ASSERT_TRUE(i >= noise_at ? byte == 0 || byte == 'n' : byte == 0) << by << ": page " << p << " " << i;
            }
        }
    }
    void check_image(const MemoryDevice& image, std::uint64_t acknowledged) {
        std::shared_ptr<MemoryDevice> ours = image.clone();
        {
            auto recovered = FileSystem::mount_device(ours, {});
            ASSERT_TRUE(recovered) << recovered.error().what;
            auto file = (*recovered)->open_path("/f", O_RDONLY, 0, root);
            ASSERT_TRUE(file);
            check(read(**file, pages * page), acknowledged, "ours");
            file->reset();
            ok((*recovered)->unmount());
        }
        ASSERT_TRUE(ours->save(scratch_));
        const Said checked = say("e2fsck -fn " + scratch_);
        EXPECT_EQ(checked.status, 0) << checked.text;
        const std::shared_ptr<MemoryDevice> theirs = replayed_by_e2fsck(image);
        if (!theirs) return;
        ASSERT_TRUE(theirs->save(scratch_));
        check(say("debugfs -R 'cat /f' " + scratch_ + " 2>/dev/null").text, acknowledged, "e2fsck");
        by_kernel(image, acknowledged);
        ::unlink(scratch_.c_str());
    }
    void by_kernel(const MemoryDevice& image, std::uint64_t acknowledged) {
        const std::string dir = scratch_ + ".dir";
        ASSERT_TRUE(image.save(scratch_));
        ::mkdir(dir.c_str(), 0700);
        const Said mounted = say("mount -t ext4 -o loop " + scratch_ + " " + dir);
        if (mounted.status != 0) {
            // Where there are no loop devices the kernel cannot look; what it refuses is a failure.
            no_kernel = say("losetup -f").status != 0 || ::geteuid() != 0 ? mounted.text : "";
            EXPECT_NE(no_kernel, "") << mounted.text;
        } else {
            ++kernel_looked;
            const std::string bytes = say("cat " + dir + "/f").text;
            EXPECT_EQ(say("umount " + dir).status, 0);
            check(bytes, acknowledged, "the kernel");
            const Said checked = say("e2fsck -fn " + scratch_);
            EXPECT_EQ(checked.status, 0) << checked.text;
        }
        ::rmdir(dir.c_str());
    }
    std::uint64_t newest = 0;
    int kernel_looked = 0;
    std::string no_kernel;  // why it did not
};

TEST_P(UnderStores, WhatWasAcknowledgedIsRecovered) {
    auto file = open("/f");
    write(*file, std::string(pages * page, 0));
    char* memory = map(*file, pages * page);
    NEED_MAP(memory);
    ok(file->sync(false));
    std::atomic<std::uint64_t> acknowledged{0};
    std::atomic<bool> stop{false};
    std::thread rounds([&] {
        for (std::uint64_t n = 1; !stop; ++n) {
            for (std::size_t p = 0; p < pages; ++p) {
                std::memcpy(memory + p * page + stored_at, &n, sizeof n);
                const std::string bytes(reinterpret_cast<const char*>(&n), sizeof n);
                write(*file, bytes, p * page + written_at);
            }
            if (n % 2) {
                ok(FileSystem::sync_maps(memory, pages * page, true));
            } else {
                ok(file->sync(false));
            }
            acknowledged = n;
        }
    });
    std::thread noise([&] {
        for (unsigned n = 0; !stop; ++n) memory[(n * 5 % pages) * page + noise_at + n % (page - noise_at)] = 'n';
    });
    std::thread commits([&] {
        while (!stop) ok(fs->volume().fs().journal.commit_all());
    });
    const int cuts = long_run() ? 40 : 4;
    for (int i = 0; i < cuts; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(30 + i * 7));
        const std::uint64_t before = acknowledged;
        const auto entries = recorder->log();
        newest = acknowledged + 2;
        check_image(*durable(entries), before);
        if (HasFailure()) break;
    }
    stop = true;
    rounds.join(), noise.join(), commits.join();
    newest = acknowledged;
    check(std::string(memory, pages * page), acknowledged, "the map");
    unmap(memory, pages * page);
    file.reset();
    RecordProperty("kernel", kernel_looked);
    EXPECT_TRUE(kernel_looked > 0 || !no_kernel.empty());
    settle();
}

INSTANTIATE_TEST_SUITE_P(Blocks, UnderStores,
                         testing::Values("-b 4096", "-b 1024", "-b 1024 -O ^metadata_csum,^64bit"));

}  // namespace
}  // namespace uext4::problems::d_commit_under_stores_test

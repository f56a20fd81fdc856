// What leaves memory is durable: read again, the inode would know nothing of what a crash takes.
#include "tests/crash/found.h"
#include "volume/flusher.h"

#include <map>
#include <random>

namespace uext4::crash {
namespace {

TEST_F(Found, WhatLeavesMemoryIsDurable) {
    constexpr int many = 60, rounds = 12;
    mount();
    const auto name = [](int i) { return fmt::format("/n{}", i); };
    std::vector<InodeNr> numbers;
    std::map<int, std::string> contents;
    for (int i = 0; i < many; ++i) numbers.push_back(open(name(i))->inode().number());
    ASSERT_TRUE(fs->sync());
    InodeTable& inodes = fs->volume().inodes();
    inodes.set_limit(0);
    std::mt19937 random(7);
    int evicted = 0, kept = 0;
    for (int round = 0; round < rounds; ++round) {
        for (int change = 0; change < 20; ++change) {
            const int i = static_cast<int>(random() % many);
            auto file = open(name(i), O_RDWR);
            std::string& bytes = contents[i];
            switch (random() % 4) {
                case 0:
                    bytes.resize(bytes.size() / 2);
                    ASSERT_TRUE(file->truncate(bytes.size()));
                    break;
                case 1:
                    if (bytes.size() < 8192) break;
                    bytes.erase(4096, 4096);
                    if (bytes.size() > 4096) ASSERT_TRUE(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, 4096, 4096));
                    else ASSERT_TRUE(file->truncate(4096));
                    break;
                default: {
                    const std::string more(1000 + random() % 9000, static_cast<char>('a' + round));
                    ASSERT_TRUE(file->write(bytes.size(), bytes_of(more)));
                    bytes += more;
                }
            }
        }
        // In turn: nothing is written; data and times are in the running transaction; some of that is durable.
        if (round % 3 != 0) ASSERT_TRUE(Flusher::flush_all(inodes));
        if (round % 3 == 2) ASSERT_TRUE(fs->volume().fs().journal.commit_all());
        for (int i = 0; i < 10; ++i) open(name(static_cast<int>(random() % many)), O_RDONLY);
        inodes.shrink_to_limit();
        std::vector<int> gone;
        for (int i = 0; i < many; ++i)
            if (!inodes.find(numbers[static_cast<std::size_t>(i)])) gone.push_back(i);
        evicted += static_cast<int>(gone.size());
        kept += many - static_cast<int>(gone.size());
        std::shared_ptr<MemoryDevice> cut = before->clone();
        ASSERT_TRUE(RecordingDevice::replay(device->log(), device->log_size(), *cut));
        auto recovered = FileSystem::mount_device(cut, mount_options("ordered"));
        ASSERT_TRUE(recovered) << recovered.error().what;
        for (const int i : gone) {
            auto file = (*recovered)->open_path(name(i), O_RDONLY, 0, root);
            ASSERT_TRUE(file) << name(i);
            std::string got(contents[i].size() + 4096, 0);
            auto n = (*file)->read(0, std::as_writable_bytes(std::span(got)));
            ASSERT_TRUE(n);
            got.resize(*n);
            EXPECT_TRUE(got == contents[i])
                << "round " << round << ", " << name(i) << ": " << got.size() << " bytes, not " << contents[i].size();
        }
    }
    EXPECT_GT(evicted, 0);
    EXPECT_GT(kept, 0);
}

}  // namespace
}  // namespace uext4::crash

// A log on a memory device, for tests: any variant of the format, in two pieces, small enough to wrap.
#pragma once

#include "device/memory_device.h"
#include "format/journal.h"
#include "journal/journal.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace uext4::test {

namespace j = format::journal;

enum class Sums { none, v1, v2, v3 };

struct LogShape {
    Sums sums = Sums::v3;
    bool wide = true;
    std::uint32_t block_size = 1024;
    std::uint32_t log_blocks = 1024;
    std::uint32_t sequence = 1;
    std::uint64_t blocks = 4096;  // of the device
};

inline std::string shape_name(const LogShape& s) {
    const char* sums[] = {"none", "v1", "v2", "v3"};
    return std::string(sums[static_cast<int>(s.sums)]) + (s.wide ? "wide" : "narrow");
}

inline std::vector<BlockRun> log_runs(const LogShape& s) {
    return {{BlockNr(2000), 100}, {BlockNr(2200), s.log_blocks - 100}};
}

inline BlockNr log_place(const LogShape& s, std::uint32_t index) {
    return index < 100 ? log_runs(s)[0].first + index : log_runs(s)[1].first + (index - 100);
}

inline std::shared_ptr<MemoryDevice> make_log(const LogShape& s) {
    auto device = std::make_shared<MemoryDevice>(s.blocks * s.block_size);
    std::vector<std::byte> bytes(s.block_size);
    auto& super = view_as<format::JournalSuper>(Bytes(bytes));
    super.header.magic = j::magic;
    super.header.blocktype = j::super_v2;
    super.blocksize = s.block_size;
    super.maxlen = s.log_blocks;
    super.first = 1u;
    super.sequence = s.sequence;
    super.nr_users = 1u;
    for (int i = 0; i < 16; ++i) super.uuid[i] = static_cast<std::uint8_t>(i * 7 + 1);
    std::uint32_t incompat = s.wide ? j::incompat_64bit : 0;
    if (s.sums == Sums::v1) super.feature_compat = j::compat_checksum;
    if (s.sums == Sums::v2) incompat |= j::incompat_csum_v2;
    if (s.sums == Sums::v3) incompat |= j::incompat_csum_v3;
    super.feature_incompat = incompat;
    if (super.checksum_v2or3()) {
        super.checksum_type = j::checksum_crc32c;
        super.checksum = format::journal_super_checksum(super);
    }
    EXPECT_TRUE(device->write(log_place(s, 0).value * s.block_size, bytes));
    return device;
}

inline JournalOptions quiet() {
    JournalOptions o;
    o.commit_interval = std::chrono::milliseconds(0);
    return o;
}

// An open journal; what it leaves on the device without close() is what a crash leaves.
struct Mounted {
    Mounted(BlockDevice& device, const LogShape& s, JournalOptions options = quiet())
        : shape(s), cache(device, s.block_size, s.blocks, 4u << 20) {
        auto opened = Journal::open(cache, log_runs(s), std::move(options));
        if (!opened) ADD_FAILURE() << opened.error().what;
        else journal = std::move(*opened);
    }
    Handle start(unsigned credits = 16) {
        auto handle = journal->start(credits);
        if (!handle) {
            ADD_FAILURE() << handle.error().what;
            return {};
        }
        return std::move(*handle);
    }
    void put(Handle& handle, std::uint64_t block, unsigned value) {
        auto buffer = cache.read(BlockNr(block), "test");
        ASSERT_TRUE(buffer) << buffer.error().what;
        ASSERT_TRUE(handle.get_write_access(*buffer));
        std::memset((*buffer)->data().data(), static_cast<int>(value), shape.block_size);
    }
    // One block in a transaction of its own, durable.
    void set(std::uint64_t block, unsigned value) {
        Handle handle = start();
        put(handle, block, value);
        const Tid tid = handle.tid();
        handle.stop();
        const auto done = journal->commit(tid);
        ASSERT_TRUE(done) << done.error().what;
    }

    LogShape shape;
    BufferCache cache;
    std::unique_ptr<Journal> journal;
};

inline unsigned byte_of(BlockDevice& device, const LogShape& s, std::uint64_t block, std::size_t at = 17) {
    std::vector<std::byte> bytes(s.block_size);
    EXPECT_TRUE(device.read(block * s.block_size, bytes));
    return std::to_integer<unsigned>(bytes[at]);
}

inline RecoveryReport recovered(BlockDevice& device, const LogShape& s) {
    auto report = recover(device, s.block_size, s.blocks, log_runs(s));
    if (!report) {
        ADD_FAILURE() << report.error().what;
        return {};
    }
    const auto more = needs_recovery(device, s.block_size, log_runs(s));
    EXPECT_TRUE(more && !*more);
    return *report;
}

inline format::JournalSuper super_of(BlockDevice& device, const LogShape& s) {
    format::JournalSuper super;
    EXPECT_TRUE(device.read(log_place(s, 0).value * s.block_size, std::as_writable_bytes(std::span(&super, 1))));
    return super;
}

}  // namespace uext4::test

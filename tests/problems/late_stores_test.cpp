// Stores through maps that come late: after what was written back on their account, before the range is taken away, or
// into what is left of a folio that a range or an end was cut out of. None of them is lost, and none leaves anything.
#include "device/forwarding_device.h"
#include "settled_image.h"
#include "tests/doubles/simulated_maps.h"

#include <functional>
#include <utility>

namespace uext4::problems {
namespace {

// Does something in the middle of the next write to it.
class MetDevice final : public ForwardingDevice {
public:
    explicit MetDevice(std::shared_ptr<BlockDevice> base) : ForwardingDevice(std::move(base)) {}
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        meet();
        return ForwardingDevice::write(offset, in);
    }
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override {
        meet();
        return ForwardingDevice::writev(offset, parts);
    }
    std::function<void()> at_next_write;

private:
    // By a thread of its own: whoever writes holds locks.
    void meet() {
        if (auto met = std::exchange(at_next_write, nullptr)) std::thread(met).join();
    }
};

class LateStores : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    static constexpr std::size_t pages = 8;
    void SetUp() override {
        make(std::get<0>(GetParam()));
        ok(fs->unmount());
        device = std::make_shared<MetDevice>(recorder);
        auto parsed = parse_all_options(std::get<1>(GetParam()));
        ASSERT_TRUE(parsed);
        parsed->background = false;
        auto mounted = FileSystem::mount_device(device, *parsed);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
        server = std::make_unique<FileMaps>(fs->volume());
        maps = std::make_unique<SimulatedMaps>(*server);
        file = open("/f");
        auto made = maps->map({.inode = file->inode_ref(),
                               .length = pages * page,
                               .protection = PROT_READ | PROT_WRITE,
                               .may_write = true});
        ASSERT_TRUE(made) << made.error().what;
        map_of_file = *made;
    }
    // While what is dirty is written. Journaled contents are not: at once.
    void at_writeback(const std::function<void()>& met) {
        if (journaled()) met();
        else device->at_next_write = met;
    }
    bool journaled() const { return std::string_view(std::get<1>(GetParam())) == "data=journal"; }
    void store(std::uint64_t at, const std::string& text) {
        ok(maps->store(*map_of_file, at, bytes_of(text), SimulatedMaps::Source::program));
    }
    void end_maps() {
        if (map_of_file) ok(maps->unmap(map_of_file));
        map_of_file.reset();
        maps.reset();
    }
    // What a power cut now leaves of the file.
    std::string durable_bytes() { return recovered_bytes(durable(), pages * page); }
    std::uint64_t promised() {
        Allocator& space = fs->volume().fs().allocator;
        return space.allocated_clusters() + space.reserved_clusters();
    }
    void end() {
        end_maps();
        server.reset();
        file.reset();
        settle();
    }
    void TearDown() override {
        end_maps();
        server.reset();
        file.reset();
        SettledImage::TearDown();
    }

    std::shared_ptr<MetDevice> device;
    std::unique_ptr<FileMaps> server;
    std::unique_ptr<SimulatedMaps> maps;
    std::unique_ptr<OpenFile> file;
    SimulatedMaps::MapRef map_of_file;
};

constexpr int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

// A range that takes some blocks of a folio, and zeroes them, while the folio can be stored to: the next store to them
// is met, or nobody knew of it.
TEST_P(LateStores, IntoBlocksThatARangeTookFromAFolio) {
    for (const int mode : {punch, static_cast<int>(FALLOC_FL_ZERO_RANGE)}) {
        write(*file, std::string(pages * page, 'a'));
        ok(file->sync(false));
        if (!journaled()) write(*file, "b", 5 * page);
        at_writeback([&] { store(0, "early"); });
        ok(file->fallocate(mode, 1024, 2048));
        EXPECT_FALSE(device->at_next_write);
        EXPECT_EQ(read(*file, 6, 0), "earlya");
        store(1500, "late");
        EXPECT_EQ(read(*file, 6, 1499), std::string("\0late\0", 6));
        ok(file->sync(false));
        EXPECT_EQ(durable_bytes().substr(1499, 6), std::string("\0late\0", 6)) << "mode " << mode;
    }
    end();
}

// The last block has a copy on the device when the file is cut, and is clean.
TEST_P(LateStores, IntoTheLastBlockOfAFileThatWasCut) {
    write(*file, std::string(2 * page, 'a'));
    ok(file->sync(false));
    store(10, "early");
    ok(file->truncate(1000));
    store(20, "late");
    ok(file->sync(false));
    EXPECT_EQ(durable_bytes().substr(9, 16), "aearlyaaaaalatea");
    end();
}

// Behind the end no block is promised for a store; one that comes after the file has grown is met.
TEST_P(LateStores, BehindTheOldEndOfAFileThatHasGrown) {
    for (const std::string how : {"truncate", "fallocate", "write"}) {
        ok(file->truncate(0));
        write(*file, std::string(500, 'a'));
        store(0, "early");
        if (how == "truncate") ok(file->truncate(2 * page));
        if (how == "fallocate") ok(file->fallocate(0, page, page));
        if (how == "write") write(*file, "w", 2 * page - 1);
        store(3000, "late");
        ok(file->sync(false));
        EXPECT_EQ(durable_bytes().substr(2999, 6), std::string("\0late\0", 6)) << how;
    }
    end();
}

// What was stored since the punch wrote the file back goes with the range, and so does the promise of its blocks.
TEST_P(LateStores, IntoAHoleThatIsPunched) {
    const std::string wanted = std::string(5 * page, '\0') + std::string(page, 'a');
    write(*file, wanted.substr(5 * page), 5 * page);
    at_writeback([&] { store(page, "late"); });
    ok(file->fallocate(punch, page, 2 * page));
    EXPECT_FALSE(device->at_next_write);
    EXPECT_EQ(promised(), 0u);
    EXPECT_EQ(read(*file, pages * page), wanted);
    // By itself, as every few seconds: nothing of the file is left to write back.
    ok(fs->volume().fs().journal.commit_all());
    EXPECT_TRUE(durable_bytes() == wanted) << durable_bytes().size() << " bytes after a commit";
    ok(file->sync(false));
    EXPECT_TRUE(durable_bytes() == wanted) << durable_bytes().size() << " bytes after a sync";
    end();
}

INSTANTIATE_TEST_SUITE_P(Formats, LateStores,
                         testing::Combine(testing::Values("-b 4096", "-b 1024"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems

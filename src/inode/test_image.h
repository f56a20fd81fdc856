// An image made by mke2fs, in memory, with the layers up to inodes and the list of orphans: what the test file systems
// of inodes and of names have in common. Whoever derives from it opens it in the constructor and closes it in the
// destructor.
#pragma once

#include "device/memory_device.h"
#include "inode/inode_table.h"
#include "inode/orphan_list.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <mutex>

namespace uext4 {

template <class T>
T value_of(Result<T> result) {
    if (!result) {
        ADD_FAILURE() << result.error().what;
        std::abort();
    }
    return std::move(*result);
}
inline void expect_ok(const Result<void>& result) {
    if (!result) ADD_FAILURE() << result.error().what;
}

class TestImage {
public:
    TestImage(const TestImage&) = delete;
    TestImage& operator=(const TestImage&) = delete;
    virtual ~TestImage() { ::unlink(path_.c_str()); }
    FsContext& fs() { return *live_->fs; }
    InodeTable& table() { return *live_->inodes; }
    OrphanList& orphans() { return *live_->orphans; }
    Journal& journal() { return *live_->journal; }
    Allocator& allocator() { return *live_->allocator; }
    InodeRef get(InodeNr number) { return value_of(table().get(number)); }

protected:
    TestImage() {
        static std::atomic<int> serial{0};
        path_ = fmt::format("/dev/shm/uext4_image_{}_{}", ::getpid(), serial++);
    }

    const std::string& path() const { return path_; }
    // What `arguments` make of it, of that size.
    std::string mke2fs(const std::string& arguments, const char* size) const {
        return fmt::format("mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 {} {} {} 2>&1", arguments,
                           path_, size);
    }

    // What stands above: made when this is there, and gone before it goes.
    virtual void connect_upper() {}
    virtual void disconnect_upper() {}

    // `with_log` false: as if it had none.
    void load(bool with_log = true) {
        live_ = std::make_unique<Live>();
        Live& live = *live_;
        live.device = value_of(MemoryDevice::load(path_));
        live.geometry = value_of(format::Geometry::parse(super(), live.device->size()));
        live.buffers = std::make_unique<BufferCache>(*live.device, live.geometry.block_size, live.geometry.blocks_count,
                                                     64u << 20);
        live.pages = std::make_unique<PageCache>(1u << 20, 65536, live.geometry.block_size);
        live.journal = Journal::create_without_log(*live.buffers, {});
        connect();
        if (!with_log || !live.geometry.journal_inode) return;
        // The log's place is known only now: everything once more, over the real journal.
        std::vector<BlockRun> runs;
        {
            InodeRef journal = get(InodeNr(live.geometry.journal_inode));
            MutexLock map(journal->map_lock);
            expect_ok(journal->map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
                runs.push_back({run.physical, run.count});
                return true;
            }));
        }
        disconnect();
        live.journal = value_of(Journal::open(*live.buffers, runs, {}));
        connect();
    }
    void save() {
        expect_ok(live_->journal->commit_all());
        expect_ok(live_->journal->checkpoint_all());
        format::SuperBlock s = super();
        const SpaceCounts counts = live_->allocator->counts();
        s.set_free_blocks(counts.free_blocks);
        s.free_inodes_count = static_cast<std::uint32_t>(counts.free_inodes);
        format::set_super_checksum(s);
        expect_ok(live_->device->write(format::super_offset, bytes_of(s)));
        expect_ok(live_->device->save(path_));
    }
    // What is queued for deletion is dropped.
    void close() {
        if (!live_) return;
        live_->inodes->set_delete_callback({});
        live_->queue.clear();
        save();
        disconnect();
        expect_ok(live_->device->save(path_));
        live_.reset();
    }

    std::size_t queue_size() {
        std::lock_guard lock(live_->queue_lock);
        return live_->queue.size();
    }
    std::vector<InodeRef> take_queue() {
        std::lock_guard lock(live_->queue_lock);
        return std::exchange(live_->queue, {});
    }

private:
    struct Live {
        std::unique_ptr<MemoryDevice> device;
        format::Geometry geometry;
        std::unique_ptr<BufferCache> buffers;
        std::unique_ptr<Journal> journal;
        std::unique_ptr<Allocator> allocator;
        std::unique_ptr<PageCache> pages;
        std::unique_ptr<FsContext> fs;
        std::unique_ptr<InodeTable> inodes;
        std::unique_ptr<OrphanList> orphans;
        std::mutex queue_lock;
        std::vector<InodeRef> queue;
    };

    format::SuperBlock super() {
        format::SuperBlock super;
        expect_ok(live_->device->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
        return super;
    }
    void connect() {
        Live& live = *live_;
        const format::SuperBlock s = super();
        live.allocator = value_of(
            Allocator::open(live.geometry, *live.buffers, *live.journal, s.free_blocks(), s.free_inodes_count, false));
        live.fs.reset(new FsContext{live.geometry,
                                    *live.device,
                                    *live.buffers,
                                    *live.journal,
                                    *live.allocator,
                                    *live.pages,
                                    {},
                                    [](const std::string&) {},
                                    {}});
        live.inodes = std::make_unique<InodeTable>(*live.fs);
        live.inodes->set_delete_callback([this](InodeRef inode) {
            std::lock_guard lock(live_->queue_lock);
            live_->queue.push_back(std::move(inode));
        });
        live.orphans = std::make_unique<OrphanList>(*live.fs, *live.inodes);
        connect_upper();
    }
    void disconnect() {
        disconnect_upper();
        live_->orphans.reset();
        live_->inodes->evict_all();
        live_->inodes.reset();
        live_->fs.reset();
        live_->allocator.reset();
        expect_ok(live_->journal->close());
        live_->journal.reset();
    }

    std::string path_;
    std::unique_ptr<Live> live_;
};

}  // namespace uext4

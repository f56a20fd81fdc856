// A file system for tests: an image made by mke2fs, in memory, with the layers up to names and a simple deleter.
#pragma once

#include "device/memory_device.h"
#include "format/inode.h"
#include "inode/attributes.h"
#include "inode/xattr.h"
#include "namespace/operations.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <mutex>

namespace uext4 {

class TestFs {
public:
    explicit TestFs(const std::string& options, bool with_log = true) : with_log_(with_log) {
        static std::atomic<int> serial{0};
        path_ = fmt::format("/dev/shm/uext4_names_{}_{}", ::getpid(), serial++);
        run(fmt::format("mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 {} -N 60000 {} 600M", options,
                        path_),
            0);
        load();
    }
    ~TestFs() {
        close();
        ::unlink(path_.c_str());
    }

    Namespace& names() { return *live_->names; }
    FsContext& context() { return *live_->fs; }
    const Credentials& who() const { return who_; }
    InodeRef root() { return value(live_->inodes->get(InodeNr(2))); }
    InodeRef find(std::string_view name) { return value(names().lookup(*root(), name, nullptr)); }

    Result<InodeRef> make(Inode& directory, std::string_view name, mode_t mode, std::string_view target = {}) {
        return names().create(directory, CreateRequest{name, mode, 0, target, who_}, true);
    }
    Result<InodeRef> make_file(Inode& directory, std::string_view name) {
        return make(directory, name, S_IFREG | 0644);
    }
    Result<InodeRef> make_directory_in(Inode& directory, std::string_view name) {
        return make(directory, name, S_IFDIR | 0755);
    }
    InodeRef make_directory(const InodeRef& directory, std::string_view name) {
        return value(make_directory_in(*directory, name));
    }
    Result<InodeRef> make_symlink(Inode& directory, std::string_view name, std::string_view target) {
        return make(directory, name, S_IFLNK | 0777, target);
    }
    Result<InodeRef> make_unnamed(Inode& directory) {
        return names().create_unnamed(directory, CreateRequest{"", S_IFREG | 0600, 0, "", who_}, true);
    }

    // Deletes what was queued, as the volume's thread would.
    void delete_orphans() {
        std::vector<InodeRef> doomed;
        {
            std::lock_guard lock(live_->queue_lock);
            doomed.swap(live_->queue);
        }
        for (InodeRef& inode : doomed) destroy(*inode);
    }

    // The image as it is now is clean.
    void check() {
        save();
        run(fmt::format("e2fsck -fn {} > {}.log 2>&1 || {{ cat {}.log; exit 1; }}", path_, path_, path_), 0);
        ::unlink((path_ + ".log").c_str());
    }
    void reopen() {
        close();
        load();
    }
    // Written out, its directories rebuilt by e2fsck, read in again.
    void optimise() {
        close();
        run(fmt::format("e2fsck -fyD {} > /dev/null 2>&1", path_), 1);
        load();
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
        std::unique_ptr<Orphans> orphans;
        std::unique_ptr<Namespace> names;
        std::mutex queue_lock;
        std::vector<InodeRef> queue;
    };

    template <class T>
    static T value(Result<T> result) {
        if (!result) {
            ADD_FAILURE() << result.error().what;
            std::abort();
        }
        return std::move(*result);
    }
    static void value(Result<void> result) {
        if (!result) ADD_FAILURE() << result.error().what;
    }
    static void run(const std::string& command, int most) {
        const int status = std::system(command.c_str());
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) <= most) << command;
    }

    format::SuperBlock read_super() {
        format::SuperBlock super;
        value(live_->device->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
        return super;
    }

    // Where the log lies, by the journal inode's map.
    std::vector<BlockRun> log_runs() {
        std::vector<BlockRun> runs;
        if (!live_->geometry.journal_inode) return runs;
        InodeRef journal = value(live_->inodes->get(InodeNr(live_->geometry.journal_inode)));
        MutexLock map(journal->map_lock);
        value(journal->map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
            runs.push_back({run.physical, run.count});
            return true;
        }));
        return runs;
    }

    void connect() {
        Live& live = *live_;
        const format::SuperBlock super = read_super();
        live.allocator = value(Allocator::open(live.geometry, *live.buffers, *live.journal, super.free_blocks(),
                                               super.free_inodes_count, false));
        live.fs.reset(new FsContext{
            live.geometry, *live.device, *live.buffers, *live.journal, *live.allocator, *live.pages, {}, {}, {}});
        live.fs->corruption = [](const Error& error) { ADD_FAILURE() << error.what; };
        live.inodes = std::make_unique<InodeTable>(*live.fs);
        live.inodes->set_deleter([this](InodeRef inode) {
            std::lock_guard lock(live_->queue_lock);
            live_->queue.push_back(std::move(inode));
        });
        live.orphans = std::make_unique<Orphans>(*live.fs, *live.inodes);
        live.names = std::make_unique<Namespace>(*live.fs, *live.inodes, *live.orphans);
    }

    void load() {
        live_ = std::make_unique<Live>();
        Live& live = *live_;
        live.device = value(MemoryDevice::load(path_));
        live.geometry = value(format::Geometry::parse(read_super(), live.device->size()));
        live.buffers = std::make_unique<BufferCache>(*live.device, live.geometry.block_size, live.geometry.blocks_count,
                                                     64u << 20);
        live.pages = std::make_unique<PageCache>(1u << 20, 65536, live.geometry.block_size);
        live.journal = Journal::create_none(*live.buffers, {});
        connect();
        if (!with_log_) return;
        // The log's place is known only now: everything once more, over the real journal.
        const std::vector<BlockRun> runs = log_runs();
        live.names.reset();
        live.orphans.reset();
        live.inodes->evict_all();
        live.inodes.reset();
        live.fs.reset();
        live.allocator.reset();
        value(live.journal->close());
        live.journal = value(Journal::open(*live.buffers, runs, {}));
        connect();
    }

    static bool has_blocks(const Inode& inode) {
        if (inode.is_inline()) return false;
        return inode.is_directory() || inode.is_regular() || (inode.is_symlink() && inode.size_hint() >= 60);
    }

    void destroy(Inode& inode) {
        constexpr unsigned credits = 64;
        WriteLock lock(inode.rw);
        Handle handle = value(live_->journal->start(credits));
        while (has_blocks(inode)) {
            LogicalBlock left;
            {
                MutexLock map(inode.map_lock);
                left = value(inode.map().remove(handle, LogicalBlock(0), inode.map().limit(),
                                                [](LogicalBlock) { return false; }));
            }
            if (left.value == 0) break;
            value(handle.restart(credits));
        }
        value(free_all_xattrs(handle, inode));
        value(live_->orphans->remove(handle, inode));
        value(live_->inodes->release(handle, inode));
    }

    void save() {
        value(live_->journal->commit_all());
        value(live_->journal->checkpoint_all());
        format::SuperBlock super = read_super();
        const SpaceCounts counts = live_->allocator->counts();
        super.set_free_blocks(counts.free_blocks);
        super.free_inodes_count = static_cast<std::uint32_t>(counts.free_inodes);
        format::set_super_checksum(super);
        value(live_->device->write(format::super_offset, bytes_of(super)));
        value(live_->device->save(path_));
    }
    void close() {
        if (!live_) return;
        delete_orphans();
        save();
        live_->names.reset();
        live_->orphans.reset();
        live_->inodes->evict_all();
        live_->inodes.reset();
        value(live_->journal->close());
        value(live_->device->save(path_));
        live_.reset();
    }

    std::string path_;
    bool with_log_;
    Credentials who_ = Credentials::root();
    std::unique_ptr<Live> live_;
};

}  // namespace uext4

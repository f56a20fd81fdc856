// A file system for tests of inodes: an image made by mke2fs, in memory, with the layers up to inodes. Files have no
// names here; check() gives them some by debugfs before e2fsck judges the image.
#pragma once

#include "device/memory_device.h"
#include "inode/inode_table.h"
#include "inode/orphans.h"
#include "inode/xattr.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
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
template <class T>
int code_of(const Result<T>& result) {
    return result ? 0 : result.error().code;
}

class TestVolume {
public:
    explicit TestVolume(const std::string& options) {
        static std::atomic<int> serial{0};
        path_ = fmt::format("/dev/shm/uext4_inodes_{}_{}", ::getpid(), serial++);
        output(fmt::format("mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 {} {} 96M 2>&1", options,
                           path_));
        load();
    }
    ~TestVolume() {
        close();
        ::unlink(path_.c_str());
    }

    FsContext& fs() { return *live_->fs; }
    InodeTable& table() { return *live_->inodes; }
    Orphans& orphans() { return *live_->orphans; }
    Journal& journal() { return *live_->journal; }
    InodeRef get(InodeNr number) { return value_of(table().get(number)); }
    Handle start(unsigned credits = 64) { return value_of(journal().start(credits)); }

    // A file with one link.
    InodeRef make(std::uint16_t mode = S_IFREG | 0644, std::uint32_t uid = 0, std::uint32_t gid = 0) {
        Handle handle = start();
        InodeRef inode = value_of(table().create(handle, NewInode{InodeNr(2), mode, uid, gid, 0, 0}));
        MutexLock map(inode->map_lock);
        inode->set_links(1);
        expect_ok(inode->store(handle));
        named_.push_back(inode->number());
        return inode;
    }
    // Its attributes and number go; what it maps must be gone already.
    void destroy(InodeRef inode) {
        WriteLock lock(inode->rw);
        Handle handle = start(xattr_credits(*inode) + 32);
        {
            MutexLock map(inode->map_lock);
            inode->set_links(0);
            expect_ok(inode->store(handle));
        }
        expect_ok(free_all_xattrs(handle, *inode));
        expect_ok(table().release(handle, *inode));
        std::erase(named_, inode->number());
    }
    Result<void> set(Inode& inode, std::string_view name, ConstBytes value, XattrMode mode = XattrMode::either) {
        WriteLock lock(inode.rw);
        Handle handle = start(xattr_credits(inode) + 2);
        return set_xattr(handle, inode, name, value, mode);
    }
    Result<void> remove(Inode& inode, std::string_view name) {
        WriteLock lock(inode.rw);
        Handle handle = start(xattr_credits(inode) + 2);
        return remove_xattr(handle, inode, name);
    }

    std::uint64_t free_blocks() {
        expect_ok(journal().commit_all());
        return live_->allocator->counts().free_blocks;
    }
    std::uint64_t free_inodes() {
        expect_ok(journal().commit_all());
        return live_->allocator->counts().free_inodes;
    }
    std::size_t queued() {
        std::lock_guard lock(live_->queue_lock);
        return live_->queue.size();
    }
    // No InodeRef may be held.
    void reopen() {
        close();
        load();
    }
    // The same, with a command of debugfs in between.
    void reopen_after(const std::string& command) {
        close();
        output(fmt::format("debugfs -w -R '{}' {} 2>/dev/null", command, path_));
        load();
    }
    // The image, its files named, is clean. Returns debugfs' list of the attributes of each file.
    std::map<std::uint64_t, std::string> check() {
        save();
        std::map<std::uint64_t, std::string> lists;
        const std::string copy = path_ + ".copy";
        output(fmt::format("cp --sparse=always {} {}", path_, copy));
        std::string commands;
        for (std::size_t n = 30; n < named_.size(); n += 30) commands += "expand_dir /\n";  // ln does not
        for (InodeNr n : named_) commands += fmt::format("ln <{}> /file{}\n", n, n);
        {
            std::FILE* file = std::fopen((copy + ".cmd").c_str(), "w");
            std::fputs(commands.c_str(), file);
            std::fclose(file);
        }
        output(fmt::format("debugfs -w -f {0}.cmd {0} 2>/dev/null", copy));
        for (InodeNr n : named_) lists[n.value] = output(fmt::format("debugfs -R 'ea_list <{}>' {} 2>&1", n, copy));
        output(fmt::format("e2fsck -fn {} 2>&1", copy));
        ::unlink(copy.c_str());
        ::unlink((copy + ".cmd").c_str());
        return lists;
    }
    // What the command prints; it must succeed.
    static std::string output(const std::string& command) {
        std::string out;
        std::FILE* pipe = ::popen(command.c_str(), "r");
        char buffer[4096];
        for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
        const int status = ::pclose(pipe);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << command << "\n" << out;
        return out;
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
        live.inodes->set_deleter([this](InodeRef inode) {
            std::lock_guard lock(live_->queue_lock);
            live_->queue.push_back(std::move(inode));
        });
        live.orphans = std::make_unique<Orphans>(*live.fs, *live.inodes);
    }
    void disconnect() {
        live_->orphans.reset();
        live_->inodes->evict_all();
        live_->inodes.reset();
        live_->fs.reset();
        live_->allocator.reset();
        expect_ok(live_->journal->close());
        live_->journal.reset();
    }
    void load() {
        live_ = std::make_unique<Live>();
        Live& live = *live_;
        live.device = value_of(MemoryDevice::load(path_));
        live.geometry = value_of(format::Geometry::parse(super(), live.device->size()));
        live.buffers = std::make_unique<BufferCache>(*live.device, live.geometry.block_size, live.geometry.blocks_count,
                                                     64u << 20);
        live.pages = std::make_unique<PageCache>(1u << 20, 65536, live.geometry.block_size);
        live.journal = Journal::create_none(*live.buffers, {});
        connect();
        if (!live.geometry.journal_inode) return;
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
    void close() {
        if (!live_) return;
        live_->inodes->set_deleter({});
        live_->queue.clear();
        save();
        disconnect();
        expect_ok(live_->device->save(path_));
        live_.reset();
    }

    std::string path_;
    std::vector<InodeNr> named_;
    std::unique_ptr<Live> live_;
};

}  // namespace uext4

// A file system for tests: an image made by mke2fs, in memory, with the layers up to names and a simple deleter.
#pragma once

#include "device/memory_device.h"
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
        run(fmt::format("mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 {} -N 60000 {} 300M", options,
                        path_), 0);
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
    Result<InodeRef> make_file(Inode& directory, std::string_view name) { return make(directory, name, S_IFREG | 0644); }
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
        for (InodeRef& inode : doomed) (void)inode;
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

    void load();
    void destroy(Inode& inode);

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
        live_->inodes->evict_all();
        live_->inodes.reset();
        live_->orphans.reset();
        value(live_->journal->close());
        value(live_->device->save(path_));
        live_.reset();
    }

    std::string path_;
    bool with_log_;
    Credentials who_;
    std::unique_ptr<Live> live_;
};

}  // namespace uext4

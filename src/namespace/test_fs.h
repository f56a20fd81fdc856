// A file system for tests: an image made by mke2fs, in memory, with the layers up to names and a simple deleter.
#pragma once

#include "format/inode.h"
#include "inode/attributes.h"
#include "inode/test_image.h"
#include "inode/xattr.h"
#include "namespace/operations.h"

#include <sys/wait.h>

namespace uext4 {

class TestFs : public TestImage {
public:
    explicit TestFs(const std::string& options, bool with_log = true) : with_log_(with_log) {
        run(mke2fs("-N 60000 " + options, "600M"), 0);
        load(with_log_);
    }
    ~TestFs() override { finish(); }

    Namespace& names() { return *names_; }
    FsContext& context() { return fs(); }
    const Credentials& who() const { return who_; }
    InodeRef root() { return get(InodeNr(2)); }
    InodeRef find(std::string_view name) { return value_of(names().lookup(*root(), name, nullptr)); }

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
        return value_of(make_directory_in(*directory, name));
    }
    Result<InodeRef> make_symlink(Inode& directory, std::string_view name, std::string_view target) {
        return make(directory, name, S_IFLNK | 0777, target);
    }
    Result<InodeRef> make_unnamed(Inode& directory) {
        return names().create_tmpfile(directory, CreateRequest{"", S_IFREG | 0600, 0, "", who_}, true);
    }

    // Deletes what was queued, as the volume's thread would.
    void delete_orphans() {
        std::vector<InodeRef> doomed = take_queue();
        for (InodeRef& inode : doomed) destroy(*inode);
    }

    // The image as it is now is clean.
    void check() {
        save();
        run(fmt::format("e2fsck -fn {} > {}.log 2>&1 || {{ cat {}.log; exit 1; }}", path(), path(), path()), 0);
        ::unlink((path() + ".log").c_str());
    }
    void reopen() {
        finish();
        load(with_log_);
    }
    // Written out, its directories rebuilt by e2fsck, read in again.
    void optimise() {
        finish();
        run(fmt::format("e2fsck -fyD {} > /dev/null 2>&1", path()), 1);
        load(with_log_);
    }

private:
    void connect_upper() override {
        fs().corruption_callback = [](const Error& error) { ADD_FAILURE() << error.what; };
        names_ = std::make_unique<Namespace>(fs(), table(), orphans());
    }
    void disconnect_upper() override { names_.reset(); }
    void finish() {
        delete_orphans();
        close();
    }
    static void run(const std::string& command, int most) {
        const int status = std::system(command.c_str());
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) <= most) << command;
    }

    static bool has_blocks(const Inode& inode) {
        if (inode.is_inline()) return false;
        return inode.is_directory() || inode.is_regular() || (inode.is_symlink() && inode.size_hint() >= 60);
    }

    void destroy(Inode& inode) {
        constexpr unsigned credits = 64;
        WriteLock lock(inode.rw);
        Handle handle = value_of(journal().start(credits));
        while (has_blocks(inode)) {
            LogicalBlock left;
            {
                MutexLock map(inode.map_lock);
                left = value_of(inode.map().remove(handle, LogicalBlock(0), inode.map().max_block(),
                                                   [](LogicalBlock) { return false; }));
            }
            if (left.value == 0) break;
            expect_ok(handle.restart(credits));
        }
        expect_ok(free_all_xattrs(handle, inode));
        expect_ok(orphans().remove(handle, inode));
        expect_ok(table().free_inode(handle, inode));
    }

    bool with_log_;
    Credentials who_ = Credentials::root();
    std::unique_ptr<Namespace> names_;
};

}  // namespace uext4

// A file system for tests of inodes: an image made by mke2fs, in memory, with the layers up to inodes. Files have no
// names here; check() gives them some by debugfs before e2fsck judges the image.
#pragma once

#include "inode/test_image.h"
#include "inode/xattr.h"

#include <sys/wait.h>

#include <cstdio>
#include <map>

namespace uext4 {

template <class T>
int code_of(const Result<T>& result) {
    return result ? 0 : result.error().code;
}

class TestVolume : public TestImage {
public:
    explicit TestVolume(const std::string& options) {
        output(mke2fs(options, "96M"));
        load();
    }
    ~TestVolume() override { close(); }

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
        expect_ok(table().free_inode(handle, *inode));
        std::erase(named_, inode->number());
    }
    Result<void> set(Inode& inode, std::string_view name, ConstBytes value, XattrMode mode = XattrMode::either) {
        WriteLock lock(inode.rw);
        Handle handle = start(xattr_credits(inode) + 2);
        return set_xattr(handle, inode, name, value, mode, true);
    }
    Result<void> remove(Inode& inode, std::string_view name) {
        WriteLock lock(inode.rw);
        Handle handle = start(xattr_credits(inode) + 2);
        return remove_xattr(handle, inode, name, true);
    }

    std::uint64_t free_blocks() {
        expect_ok(journal().commit_all());
        return allocator().counts().free_blocks;
    }
    std::uint64_t free_inodes() {
        expect_ok(journal().commit_all());
        return allocator().counts().free_inodes;
    }
    std::size_t queued() { return queue_size(); }
    // No InodeRef may be held.
    void reopen() {
        close();
        load();
    }
    // The same, with a command of debugfs in between.
    void reopen_after(const std::string& command) {
        close();
        output(fmt::format("debugfs -w -R '{}' {} 2>/dev/null", command, path()));
        load();
    }
    // The image, its files named, is clean. Returns debugfs' list of the attributes of each file.
    std::map<std::uint64_t, std::string> check() {
        save();
        std::map<std::uint64_t, std::string> lists;
        const std::string copy = path() + ".copy";
        output(fmt::format("cp --sparse=always {} {}", path(), copy));
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
    std::vector<InodeNr> named_;
};

}  // namespace uext4

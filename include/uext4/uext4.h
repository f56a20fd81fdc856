/* uext4: ext4 file systems in user space. The C interface.
 *
 * Every function returns 0 (or a value) on success and a negative errno on failure; uext4_strerror() gives the calling
 * thread's last sentence. All functions are thread-safe. Paths start at the file system's root; "<12>" names inode 12,
 * "<12>/name" an entry of it; -EINVAL where a name is made or taken away, -EPERM where the journal ("<8>") or another
 * inode of the file system's own would be changed.
 *
 * Offsets and sizes are bytes. Lengths are treated as by the system calls: -EINVAL where their sum or the end of the
 * range overflows, otherwise cut to 2 GiB less a page; buffers have to be as long as said. No exception leaves a call:
 * memory missing for what a request moves is -ENOMEM, and if that is met in the middle of a change, the file system
 * becomes read-only and the image stays as it was before. (A program without memory for small things, or for writeback,
 * may end.)
 *
 * Buffers may be maps of this library's files, of any file system. If the program serves the faults of other memory of
 * its own (userfaultfd, a handler of SIGSEGV), it must not call into the file system for what it passes as a buffer
 * there, nor jump out of a call. A thread that is cancelled (pthread_cancel) ends at the beginning of its next
 * call, never in the middle of one, and not at one that gives something back (close, closedir, unmap, umount, thaw, and
 * a thread's identity): these are for destructors and cleanup handlers.
 *
 * Identity: calls act as root (uid 0, all capabilities, umask 022) unless uext4_set_identity() or
 * uext4_set_credentials() (for the whole mount), or uext4_set_thread_identity() or uext4_set_thread_credentials() (for
 * the calling thread, until it is set again: around a call for that call alone) says otherwise.
 */
#ifndef UEXT4_H
#define UEXT4_H

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UEXT4_API __attribute__((visibility("default")))

struct timespec; /* strict C99 has it from POSIX only */

typedef struct uext4_fs uext4_fs;
typedef struct uext4_file uext4_file;
typedef struct uext4_dir uext4_dir;

/* A device of the caller's. Callbacks return 0 or a negative errno and may come from several threads at once; `write`,
 * `flush` and `discard` may be NULL (read-only, nothing to flush, cannot discard). */
struct uext4_device {
    void* context;
    int (*read)(void* context, void* buffer, size_t length, uint64_t offset);
    int (*write)(void* context, const void* buffer, size_t length, uint64_t offset);
    int (*flush)(void* context);
    int (*discard)(void* context, uint64_t offset, uint64_t length);
    uint64_t size; /* bytes */
};

/* The calling thread's last error, as a sentence; never NULL, valid until the thread's next failing call. */
UEXT4_API const char* uext4_strerror(void);
/* Lines for the operator: recovery, damage, aborts. NULL: none. Before a mount; may be called from any thread later, in
 * the middle of an operation: it must not call the library for the same file system, nor touch its maps. */
UEXT4_API void uext4_set_log(void (*log)(void* context, const char* line), void* context);

/* A child of fork(2) has no threads of the file system and may use none of the parent's handles: it goes on with exec
 * or _exit. Its inherited descriptor keeps nobody from the image once the parent has unmounted.
 *
 * image: a path, IMAGE@N (partition N), /dev/fd/N or a block device. options: as `uext4 mount -o`, or NULL; those that
 * say where the file system lies (offset=, sb=) are for devices of the caller's as well. */
UEXT4_API int uext4_mount(const char* image, const char* options, uext4_fs** fs);
UEXT4_API int uext4_mount_device(const struct uext4_device* device, const char* options, uext4_fs** fs);
/* Everything durable, the image clean. The handle is gone afterwards, also on error; but for -EBUSY, while files,
 * directories or maps are open: then it is still mounted. */
UEXT4_API int uext4_umount(uext4_fs* fs);

struct uext4_identity {
    uid_t uid;
    gid_t gid;
    const gid_t* groups; /* supplementary */
    size_t group_count;
    mode_t umask;
    int privileged; /* nonzero: all capabilities, whatever the uid; uid 0 has them in any case */
};
UEXT4_API int uext4_set_identity(uext4_fs* fs, const struct uext4_identity* identity); /* NULL: root again */
UEXT4_API int uext4_set_thread_identity(const struct uext4_identity* identity);        /* NULL: the mount's again */

/* The same with each capability by itself: none comes with a uid, not even 0. -EINVAL for a `size` that is less than
 * the first version's, for bits that are none of those below, and for more than NGROUPS_MAX groups; -E2BIG for a larger
 * `size` than this library knows, where what is behind is not zero. */
#define UEXT4_CAP_CHOWN (UINT64_C(1) << 0)           /* chown, chgrp of any file */
#define UEXT4_CAP_DAC_OVERRIDE (UINT64_C(1) << 1)    /* what modes and ACLs forbid */
#define UEXT4_CAP_DAC_READ_SEARCH (UINT64_C(1) << 2) /* reading and searching in spite of them */
#define UEXT4_CAP_FOWNER (UINT64_C(1) << 3)          /* what only a file's owner may */
#define UEXT4_CAP_FSETID (UINT64_C(1) << 4)          /* set-id bits stay */
#define UEXT4_CAP_LINUX_IMMUTABLE (UINT64_C(1) << 9) /* the flags i and a */
#define UEXT4_CAP_SYS_ADMIN (UINT64_C(1) << 21)      /* attributes trusted.* */
#define UEXT4_CAP_SYS_RESOURCE (UINT64_C(1) << 24)   /* reserved blocks, the flag j */
#define UEXT4_CAP_MKNOD (UINT64_C(1) << 27)          /* device nodes */
#define UEXT4_CAP_SETFCAP (UINT64_C(1) << 31)        /* the attribute security.capability */
#define UEXT4_CAP_ALL                                                                                             \
    (UEXT4_CAP_CHOWN | UEXT4_CAP_DAC_OVERRIDE | UEXT4_CAP_DAC_READ_SEARCH | UEXT4_CAP_FOWNER | UEXT4_CAP_FSETID | \
     UEXT4_CAP_LINUX_IMMUTABLE | UEXT4_CAP_SYS_ADMIN | UEXT4_CAP_SYS_RESOURCE | UEXT4_CAP_MKNOD | UEXT4_CAP_SETFCAP)
struct uext4_credentials {
    size_t size; /* sizeof(struct uext4_credentials): what the caller was compiled with */
    uid_t uid;
    gid_t gid;
    const gid_t* groups; /* supplementary; copied */
    size_t group_count;
    mode_t umask;
    uint64_t capabilities; /* UEXT4_CAP_*, numbered as in capabilities(7) */
};
UEXT4_API int uext4_set_credentials(uext4_fs* fs, const struct uext4_credentials* who); /* NULL: root again */
UEXT4_API int uext4_set_thread_credentials(const struct uext4_credentials* who);        /* NULL: the mount's again */

UEXT4_API int uext4_open(uext4_fs* fs, const char* path, int flags, mode_t mode, uext4_file** file);
UEXT4_API int uext4_close(uext4_file* file);
UEXT4_API ssize_t uext4_pread(uext4_file* file, void* buffer, size_t length, off_t offset);
UEXT4_API ssize_t uext4_pwrite(uext4_file* file, const void* buffer, size_t length, off_t offset);
UEXT4_API ssize_t uext4_preadv(uext4_file* file, const struct iovec* parts, int count, off_t offset);
UEXT4_API ssize_t uext4_pwritev(uext4_file* file, const struct iovec* parts, int count, off_t offset);
UEXT4_API int uext4_fsync(uext4_file* file);
UEXT4_API int uext4_fdatasync(uext4_file* file);
UEXT4_API int uext4_ftruncate(uext4_file* file, off_t size);
UEXT4_API int uext4_fallocate(uext4_file* file, int mode, off_t offset, off_t length);
/* SEEK_SET, SEEK_END, SEEK_DATA, SEEK_HOLE: the offset they mean. A file has no position of its own. -EINVAL before the
 * start and past the largest size that the file can have. */
UEXT4_API off_t uext4_lseek(uext4_file* file, off_t offset, int whence);
UEXT4_API int uext4_fstat(uext4_file* file, struct stat* out);
UEXT4_API int uext4_fchmod(uext4_file* file, mode_t mode);
UEXT4_API int uext4_fchown(uext4_file* file, uid_t uid, gid_t gid);
UEXT4_API int uext4_futimens(uext4_file* file, const struct timespec* times);
UEXT4_API ssize_t uext4_fgetxattr(uext4_file* file, const char* name, void* value, size_t size);
UEXT4_API int uext4_fsetxattr(uext4_file* file, const char* name, const void* value, size_t size, int flags);
UEXT4_API ssize_t uext4_flistxattr(uext4_file* file, char* list, size_t size);
UEXT4_API int uext4_fremovexattr(uext4_file* file, const char* name);
UEXT4_API ssize_t uext4_copy_file_range(uext4_file* from, off_t from_offset, uext4_file* to, off_t to_offset,
                                        size_t length);
/* Gives a file made with O_TMPFILE a name. */
UEXT4_API int uext4_flink(uext4_file* file, const char* path);

/* Where the bytes of a file lie: calls `visit` for each run in order, holes left out, until it returns nonzero, which
 * is then the result. Of runs that reach out of `offset` to `offset + length`, the blocks within are shown. `visit` may
 * use the file system; while somebody changes the file, what it is shown is of several moments. */
#define UEXT4_EXTENT_UNPLACED 1u  /* dirty in memory: no block is chosen yet, `physical` is 0 */
#define UEXT4_EXTENT_UNNAMED 2u   /* in blocks that no structure on the device names yet as written */
#define UEXT4_EXTENT_INLINE 4u    /* in the inode itself, `physical` is 0 */
#define UEXT4_EXTENT_UNWRITTEN 8u /* allocated, reads as zeros but where the cache has data (sync first) */
typedef struct uext4_extent {
    uint64_t offset, length; /* bytes of the file */
    uint64_t physical;       /* byte of the image */
    unsigned flags;
} uext4_extent;
UEXT4_API int uext4_extents(uext4_file* file, off_t offset, off_t length,
                            int (*visit)(void* context, const uext4_extent* extent), void* context);

/* Memory maps of files, coherent with reads and writes. Offset in whole pages; prot: PROT_*; flags: MAP_SHARED,
 * MAP_SHARED_VALIDATE (flags that Linux did not know before it are -EOPNOTSUPP) or MAP_PRIVATE, with MAP_POPULATE and
 * MAP_NORESERVE (of no effect); others are -EINVAL, MAP_LOCKED as well, since pages leave memory with the cache's
 * folios. mlockall(MCL_FUTURE) does not lock them either. A map that the program itself locks (mlock,
 * mlockall(MCL_CURRENT)) must not be made longer by mremap: the kernel fills what is new before it tells where the map
 * has gone, and waits for ever. An append-only file that is open for writing cannot be mapped shared, for loads neither
 * (-EACCES).
 *
 * A map lives on when its file is closed, and does not pass to a child of fork(2); it must be ended by uext4_unmap
 * (whole pages, also part of a map or several; -EINVAL where no map is, or is any more) before uext4_umount. An access
 * past the end of the file, without space, or after the file became immutable or the file system read-only is SIGBUS
 * for that access. (Within some milliseconds after a system call was refused on the same page with EFAULT, a store
 * there that is refused as well can be SIGSEGV: a program that handles the one handles both.) uext4_msync with MS_SYNC
 * makes stores and their times durable, as uext4_fsync does; -ENOMEM where parts of the range are no map, after the
 * others were synced.
 *
 * The program may divide, move, double, lengthen and leave its maps (mprotect, mremap, munmap). By what a map has
 * become longer the library finds in /proc/self/maps: without /proc a map keeps its length, and an access behind it is
 * refused.
 *
 * A handler of a signal may touch a map: while the process has one, asynchronous signals wait until the thread's call
 * into this library has ended (a call that is under way while the first map of the process is made takes them still).
 *
 * madvise(MADV_REMOVE) of a map punches no hole in the file (uext4_fallocate does): it throws away the memory that the
 * library's cache is in. What is on the device is read again; what the file's pages there had that was not yet written
 * back, by whichever way it was stored, is zeros from then on.
 *
 * Addresses of a map are buffers of every call here, and of system calls, whose access is one store or load like the
 * program's own. But requests for which the kernel pins the memory and stores to it later are seen once, when they
 * begin: read(2) with O_DIRECT of another file, buffers registered with io_uring, process_vm_writev, /proc/PID/mem,
 * ptrace. What they store after a writeback has begun may be lost although a later uext4_fsync returns 0: read such
 * data to other memory first, or let no writeback (uext4_fsync, uext4_msync, the flusher) meet the request.
 *
 * The memory behind the maps is a file to the kernel: beyond RLIMIT_FSIZE a file cannot be mapped (-EFBIG), nor one
 * that is mapped be read or written through the cache; an access of a map that the file has grown past it is SIGBUS. No
 * call raises SIGXFSZ for that; writing to the image does where the limit has become less than the image's size since
 * it was opened, as to any file.
 *
 * The memory file takes a descriptor per file that is mapped, also when that is closed, until its last map is gone:
 * -EMFILE or -ENFILE where there are no more (RLIMIT_NOFILE).
 *
 * -EOPNOTSUPP or -EPERM where the kernel has no userfaultfd for shared memory (Linux 5.19) or does not allow it, with a
 * sentence that says what to do. Without root and without access to /dev/userfaultfd, system calls of the program
 * cannot touch the memory (EFAULT). -EROFS where the journal was aborted and the file, which has no map yet, holds
 * contents that cannot be written any more: read them. */
UEXT4_API int uext4_map(uext4_file* file, off_t offset, size_t length, int prot, int flags, void** address);
UEXT4_API int uext4_unmap(void* address, size_t length);
UEXT4_API int uext4_msync(void* address, size_t length, int flags);

UEXT4_API int uext4_stat(uext4_fs* fs, const char* path, struct stat* out);
UEXT4_API int uext4_lstat(uext4_fs* fs, const char* path, struct stat* out);
/* -EOPNOTSUPP where an inode has no room for it (those of 128 bytes). */
UEXT4_API int uext4_birthtime(uext4_fs* fs, const char* path, struct timespec* out);
UEXT4_API int uext4_syncfs(uext4_fs* fs);
UEXT4_API int uext4_statfs(uext4_fs* fs, struct statvfs* out);
/* Frozen, the image is clean: a copy of it needs no replay. Everything that changes something waits, stores through
 * maps and the first map of a file as well; reads go on, and what makes durable answers at once. Not for a file system
 * that is mounted read-only (-EROFS). Freezes do not nest: -EBUSY for what is frozen, -EINVAL for the thaw of what is
 * not. uext4_umount thaws. */
UEXT4_API int uext4_freeze(uext4_fs* fs);
UEXT4_API int uext4_thaw(uext4_fs* fs);

UEXT4_API int uext4_mkdir(uext4_fs* fs, const char* path, mode_t mode);
UEXT4_API int uext4_rmdir(uext4_fs* fs, const char* path);
UEXT4_API int uext4_unlink(uext4_fs* fs, const char* path);
UEXT4_API int uext4_rename(uext4_fs* fs, const char* from, const char* to, unsigned int flags); /* RENAME_* */
UEXT4_API int uext4_link(uext4_fs* fs, const char* target, const char* path);
UEXT4_API int uext4_symlink(uext4_fs* fs, const char* target, const char* path);
UEXT4_API ssize_t uext4_readlink(uext4_fs* fs, const char* path, char* buffer, size_t size);
UEXT4_API int uext4_mknod(uext4_fs* fs, const char* path, mode_t mode, dev_t device);
UEXT4_API int uext4_chmod(uext4_fs* fs, const char* path, mode_t mode);
UEXT4_API int uext4_chown(uext4_fs* fs, const char* path, uid_t uid, gid_t gid);
UEXT4_API int uext4_lchown(uext4_fs* fs, const char* path, uid_t uid, gid_t gid);
UEXT4_API int uext4_utimensat(uext4_fs* fs, const char* path, const struct timespec* times,
                              int flags); /* AT_SYMLINK_NOFOLLOW */
UEXT4_API int uext4_truncate(uext4_fs* fs, const char* path, off_t size);
UEXT4_API int uext4_access(uext4_fs* fs, const char* path, int mask);
UEXT4_API ssize_t uext4_getxattr(uext4_fs* fs, const char* path, const char* name, void* value, size_t size);
UEXT4_API int uext4_setxattr(uext4_fs* fs, const char* path, const char* name, const void* value, size_t size,
                             int flags);
UEXT4_API ssize_t uext4_listxattr(uext4_fs* fs, const char* path, char* list, size_t size);
UEXT4_API int uext4_removexattr(uext4_fs* fs, const char* path, const char* name);
UEXT4_API ssize_t uext4_lgetxattr(uext4_fs* fs, const char* path, const char* name, void* value, size_t size);
UEXT4_API int uext4_lsetxattr(uext4_fs* fs, const char* path, const char* name, const void* value, size_t size,
                              int flags);
UEXT4_API ssize_t uext4_llistxattr(uext4_fs* fs, const char* path, char* list, size_t size);
UEXT4_API int uext4_lremovexattr(uext4_fs* fs, const char* path, const char* name);
/* The flags of FS_IOC_GETFLAGS. */
UEXT4_API int uext4_getflags(uext4_fs* fs, const char* path, unsigned int* flags);
UEXT4_API int uext4_setflags(uext4_fs* fs, const char* path, unsigned int flags);
UEXT4_API int uext4_fgetflags(uext4_file* file, unsigned int* flags);
UEXT4_API int uext4_fsetflags(uext4_file* file, unsigned int flags);

UEXT4_API int uext4_opendir(uext4_fs* fs, const char* path, uext4_dir** dir);
/* The next entry, valid until the next call on this directory; NULL at the end (errno untouched) or on error (errno).
 * What is damaged in the directory is passed over: its error comes once, behind the last entry. */
UEXT4_API struct dirent* uext4_readdir(uext4_dir* dir);
UEXT4_API long uext4_telldir(uext4_dir* dir);
UEXT4_API void uext4_seekdir(uext4_dir* dir, long position);
UEXT4_API int uext4_closedir(uext4_dir* dir);

#ifdef __cplusplus
}
#endif

#endif

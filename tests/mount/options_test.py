#!/usr/bin/env python3
"""Every option of the kernel's ext4 and of mount(8) is honoured, or refused by name with a status that is not zero.

Usage: options_test.py PROGRAM
"""

import os
import shutil
import signal
import subprocess
import time

import mounting
from mounting import check, run

# Those of ext4(5), of the kernel's documentation and of mount(8). A mount with one of them works, or does not come up.
HONOURED = """rw ro noload,ro norecovery,ro data=ordered data=journal data=writeback commit=7 commit=0 barrier barrier=0 barrier=1
nobarrier errors=continue errors=remount-ro errors=panic discard nodiscard noatime atime relatime strictatime nodiratime
diratime user_xattr nouser_xattr acl noacl auto_da_alloc auto_da_alloc=0 noauto_da_alloc grpid bsdgroups nogrpid sysvgroups
resuid=1 resgid=1 delalloc data=ordered,delalloc block_validity dioread_nolock bsddf nodev dev nosuid suid noexec exec
sync dirsync async sync,async lazytime nomand defaults nofail user users owner group user,exec exec,user dev,user
user,suid,dev,exec owner,noexec default_permissions allow_other max_read=65536 fsname=other subtype=kind
auto_unmount""".split()
REFUSED = """remount usrquota grpquota prjquota quota usrjquota=a grpjquota=a jqfmt=vfsv1 journal_dev=8 journal_path=/x
dax dax=always inlinecrypt test_dummy_encryption stripe=4 journal_async_commit abort nodelalloc dioread_lock init_itable=5
debug minixdf oldalloc orlov journal_ioprio=3 mb_optimize_scan=1 max_dir_size_kb=5 data_err=abort inode_readahead_blks=8
journal_checksum nonsense nonsense=5 data=nonsense errors=nonsense commit=x commit=-1 resuid=x barrier=x sb=x offset=x
blkdev uid=5 gid=5 umask=022 allow_root discard=x max_read=7 ro=1 nouid32 noblock_validity min_batch_time=5
max_batch_time=5 mand nolazytime delalloc,data=journal delalloc=1 sync=1""".split()
# Where kernels and versions of mount differ, one of both is right; silence is not.
EITHER = """nojournal_checksum bh nobh check=none nocheck i_version noi_version iversion nombcache no_mbcache noquota init_itable
noinit_itable silent loud prefetch_block_bitmaps no_prefetch_block_bitmaps warn_on_error nowarn_on_error nodioread_nolock
fc_debug_force data_err=ignore _netdev loop context=x symfollow nosymfollow""".split()
# Who may mount, and what comes with it unless a later option says otherwise.
MOUNTERS = {"user": ("nosuid", "nodev", "noexec"), "users": ("nosuid", "nodev", "noexec"), "owner": ("nosuid", "nodev"),
            "group": ("nosuid", "nodev")}
OPPOSITES = {f"{no}{word}": f"{'' if no else 'no'}{word}" for word in ("dev", "suid", "exec") for no in ("no", "")}


def attempt(scratch, image, options):
    """(mounted, output). Whatever is mounted is used and unmounted again."""
    directory = scratch.path("mnt")
    directory.mkdir(exist_ok=True)
    result = run(scratch.program, "mount", "-o", options, image, directory, accept=range(256))
    mounted = mounting.is_mounted(directory)
    check(mounted == (result.returncode == 0), f"{options}: status {result.returncode}, mounted: {mounted}")
    if mounted:
        scratch.servers[directory] = scratch.server_of(directory)
        effects(directory, options)
        scratch.umount(directory)
    else:
        check(result.returncode == 2, f"{options}: status {result.returncode}: {result.stdout}")
    return mounted, result.stdout


def line_of(directory):
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as table:
        return next(line.split(" ") for line in table if line.split(" ")[1] == str(directory))


def writable(directory):
    try:
        with open(directory / "probe", "wb"):
            return True
    except OSError:
        return False


def effects(directory, options):
    """What can be seen of an option."""
    words = options.split(",")
    check(writable(directory) == ("ro" not in words), f"{options}: writable is {writable(directory)}")
    source, _, kind, flags = line_of(directory)[:4]
    flags = flags.split(",")
    wanted = {"nosuid", "nodev"}
    for word in words:
        for flag in MOUNTERS.get(word, (word,) if word in OPPOSITES else ()):
            wanted.add(flag)
            wanted.discard(OPPOSITES[flag])
    wanted -= {"dev", "suid", "exec"}
    if "sync" in words and "async" not in words:
        wanted.add("sync")
    if "dirsync" in words:
        wanted.add("dirsync")
    told = {"nosuid", "nodev", "noexec", "sync", "dirsync"} & set(flags)
    check(told == wanted, f"{options}: the mount table says {flags}")
    for word in words:
        if word in ("ro", "rw"):
            check(word in flags, f"{word}: the mount table says {flags}")
        if word == "fsname=other":
            check(source == "other", f"the source is {source}")
        if word == "subtype=kind":
            check(kind == "fuse.kind", f"the type is {kind}")
        if word == "nouser_xattr":
            check(fails(os.setxattr, directory / "probe", "user.a", b"b"), "nouser_xattr: attributes are set")
        if word == "noacl":
            check(fails(os.setxattr, directory / "probe", "system.posix_acl_access", b"\2\0\0\0"), "noacl: a list is set")
        if word in ("grpid", "bsdgroups"):
            os.makedirs(directory / "group", exist_ok=True)
            os.chown(directory / "group", 0, 77)
            (directory / "group" / "file").write_bytes(b"")
            check(os.stat(directory / "group" / "file").st_gid == 77, f"{word}: the directory's group is not taken")
            os.unlink(directory / "group" / "file")
    access_time(directory, words)


def in_log(scratch, image, block):
    copy, log = scratch.path("copy"), scratch.path("log")
    shutil.copy(image, copy)
    run("debugfs", "-R", f"dump <8> {log}", copy)
    found = block in log.read_bytes()
    copy.unlink()
    return found


def of_the_superblock(scratch):
    """What tune2fs has stored is asked for, unless the options of the mount say something else."""
    image = scratch.image("defaults", "64M", "-t", "ext4", "-b", "4096")
    run("tune2fs", "-o", "bsdgroups,journal_data,discard", "-u", "1234", "-E", "mount_opts=noatime", image)
    for options, group, journaled, noatime in (("", 77, True, True), ("nogrpid,data=ordered,relatime", 0, False, False)):
        directory = scratch.mount(image, options=options)
        folder = directory / "folder"
        folder.mkdir(exist_ok=True)
        os.chown(folder, 0, 77)
        data = os.urandom(1 << 20)
        with open(folder / "file", "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
            check(os.fstat(file.fileno()).st_gid == group, f"{options}: not the group {group}")
            with open(image, "rb") as raw:
                raw.seek(0)
                stored = raw.read()
            check((data[4096:8192] in stored) and in_log(scratch, image, data[4096:8192]) == journaled,
                  f"{options}: the data is in the log, or not in it")
        os.utime(folder / "file", ns=(10**18, 10**18))
        (folder / "file").read_bytes()
        check((os.stat(folder / "file").st_atime_ns == 10**18) == noatime, f"{options}: the access time")
        os.unlink(folder / "file")
        scratch.umount(directory)
        mounting.clean(image)
    print("what the superblock asks for: done", flush=True)


# By the kernel, too, which is asked where there are loop devices.
TAKEN_WITHOUT_JOURNAL = ("commit=5", "commit=0", "barrier=1", "nobarrier", "delalloc", "ro,noload")


def without_journal(scratch):
    """What asks for a journal is refused where there is none, by whom it asks and by the kernel; but for what the
    superblock asks for."""
    image = scratch.image("no journal", "64M", "-t", "ext4", "-b", "4096", "-O", "^has_journal")
    directory = scratch.path("mnt")
    for options in ("data=journal", "data=ordered", "data=writeback", "commit=7", "ro,data=ordered", "ro,commit=7", "commit=5",
                    "commit=0", "barrier=1", "nobarrier", "delalloc", "ro,noload"):
        kernel = options in TAKEN_WITHOUT_JOURNAL
        if os.path.exists("/dev/loop-control"):
            taken = run("mount", "-t", "ext4", "-o", f"loop,{options}", image, directory, accept=(0, 32)).returncode == 0
            if taken:
                run("umount", directory)
            check(taken == kernel, f"{options} without a journal: by the kernel {taken}, expected was {kernel}")
        mounted, output = attempt(scratch, image, options)
        check(mounted == kernel, f"{options} without a journal: mounted is {mounted}, by the kernel {kernel}: {output}")
        word = options.replace("ro,", "")
        check(mounted or (word in output and "no journal" in output), f"{options}: {output}")
        listed = run(scratch.program, "ls", "-o", options, image, accept=range(256))
        check(listed.returncode == (0 if kernel else 2), f"ls -o {options}: {listed.returncode}: {listed.stdout}")
    run("tune2fs", "-o", "journal_data", image)
    check(attempt(scratch, image, "rw")[0], "a superblock that asks for journaled data")
    print("without a journal: done", flush=True)


def synced(scratch):
    """What is written is on the image when the call returns: a server that is killed then takes nothing with it."""
    image = scratch.image("synced", "64M", "-t", "ext4", "-b", "4096")
    for options, kept, named in (("sync", True, True), ("dirsync", False, True), ("sync,async", False, False),
                                 ("commit=3600", False, False)):
        directory = scratch.mount(image, options=options)
        name = options.replace("=", "")
        folder = directory / f"folder {name}"
        folder.mkdir()
        fd = os.open(folder / "file", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"in the file" * 1000)
        scratch.kill(directory)
        fails(os.close, fd)
        directory = scratch.mount(image)
        folder = directory / f"folder {name}"
        check((folder / "file").exists() == named, f"{options}: the names are there, or not")
        if named:
            check(((folder / "file").read_bytes() == b"in the file" * 1000) == kept, f"{options}: the bytes are there, or not")
        scratch.umount(directory)
        mounting.clean(image)
    print("sync and dirsync: done", flush=True)


def access_time(directory, words):
    """Reads of a file whose access time is old, and of one whose access time is new."""
    if "ro" in words:
        return
    path = directory / "read"
    path.write_bytes(b"read")
    os.utime(path, ns=(10**18, 10**18))
    # What the kernel still has in its cache it reads without a request.
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    time.sleep(0.05)  # an access in the same tick of the clock as the change is not later than it
    path.read_bytes()
    moved = os.stat(path).st_atime_ns != 10**18
    check(moved == ("noatime" not in words), f"{words}: the access time moved: {moved}")
    if "noatime" not in words:
        before = os.stat(path).st_atime_ns
        time.sleep(0.05)
        path.read_bytes()
        moved = os.stat(path).st_atime_ns != before
        check(moved == ("strictatime" in words), f"{words}: a new access time moved: {moved}")


def fails(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        return True
    return False


def failures(scratch, image):
    """A mount that does not come up says so before the program returns, with its status; nothing stays mounted."""
    directory = scratch.path("mnt")
    text = scratch.path("text")
    text.write_text("no file system\n" * 1000, encoding="ascii")
    for arguments in ((image, scratch.path("absent")), (scratch.path("absent"), directory), (image, text), (text, directory),
                      (directory, directory), ("/dev/null", directory), ("/dev/fd/99", directory), (f"{image}@1", directory),
                      ("-o", "offset=4096", image, directory), ("-o", "sb=1", image, directory), (image,), ()):
        for flags in ((), ("-f",)):
            result = subprocess.run([scratch.program, "mount", *flags, *map(str, arguments)], stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, timeout=30, check=False)
            check(result.returncode == 2, f"{arguments}: status {result.returncode}: {result.stdout}")
            check(result.stdout.strip(), f"{arguments}: no word about it")
            check(not mounting.is_mounted(directory), f"{arguments}: something is mounted")
    # nofail is for an image that is not there, and for nothing else.
    for arguments, code in (((scratch.path("absent"), directory), 0), ((f"{scratch.path('absent')}@2", directory), 0),
                            ((scratch.path("absent"), scratch.path("nowhere")), 2), ((text, directory), 2),
                            ((f"{image}@1", directory), 2), (("/dev/fd/99", directory), 2)):
        result = run(scratch.program, "mount", "-o", "nofail", *arguments, accept=range(256))
        check(result.returncode == code, f"nofail, {arguments}: status {result.returncode}: {result.stdout}")
        check(len(result.stdout.splitlines()) == 1, f"nofail, {arguments}: {result.stdout}")
        check(("nofail" in result.stdout) == (code == 0), f"nofail, {arguments}: {result.stdout}")
        check(not mounting.is_mounted(directory), f"nofail, {arguments}: something is mounted")
    # A mount whose server has died says what takes it away.
    dead = scratch.mount(image, "dead")
    os.kill(scratch.servers[dead], signal.SIGKILL)
    limit = time.monotonic() + 20
    while not fails(os.listdir, dead) and time.monotonic() < limit:
        time.sleep(0.01)
    for place in (dead, dead / "below"):
        result = run(scratch.program, "mount", image, place, accept=(2,))
        check(f"uext4 umount {dead}`" in result.stdout, f"over a dead mount: {result.stdout}")
    run(scratch.program, "umount", dead)
    del scratch.servers[dead]
    # A mount point that nobody can mount at says so from the background as well.
    damaged = scratch.image("damaged", "64M", "-t", "ext4", "-O", "^metadata_csum")
    with open(damaged, "r+b") as file:
        file.seek(1024 + 0x60)
        file.write(b"\xff\xff\xff\xff")  # incompatible features that nobody knows
    result = run(scratch.program, "mount", damaged, directory, accept=(2,))
    check("feature" in result.stdout, f"unknown features: {result.stdout}")


def test(scratch):
    mounting.need("tune2fs", "debugfs")
    of_the_superblock(scratch)
    without_journal(scratch)
    synced(scratch)
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    for option in HONOURED:
        mounted, output = attempt(scratch, image, option)
        check(mounted, f"{option} is refused: {output}")
    for option in REFUSED:
        mounted, output = attempt(scratch, image, option)
        check(not mounted, f"{option} is taken")
        check(option.split("=")[0].split(",")[0] in output, f"{option} is not named: {output}")
    for option in EITHER:
        mounted, output = attempt(scratch, image, option)
        check(mounted or option.split("=")[0] in output, f"{option} is not named: {output}")
    print(f"{len(HONOURED)} options honoured, {len(REFUSED)} refused by name, {len(EITHER)} either", flush=True)
    failures(scratch, image)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)

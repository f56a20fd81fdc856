"""A sequence run on one side, in a process of its own, and what was observed after every operation.

A sequence is a list of operations, each (user, name, arguments). After each one, the paths and slots that it names and
the directories that hold them are looked at as root. Times that were set are compared as they are; those that the
file system set are `now` (by this operation) or `before`.
"""

import errno
import multiprocessing
import time
import traceback

import users

COARSE = 5  # CLOCK_REALTIME_COARSE, by which the kernel stamps
START_OF_NOW = 1_700_000_000_000_000_000
WHITEOUT = 4  # of renameat2(2)
END_OF_NOW = 2_100_000_000_000_000_000
# Which arguments of an operation are paths.
PATHS = {"rename": (0, 1), "link": (0, 1), "symlink": (1,), "open": (1,), "flink": (1,), "copy_file_range": ()}
SLOTS = ("close", "pread", "pwrite", "ftruncate", "fallocate", "lseek", "fsync", "fstat", "fchmod", "fchown", "futimens",
         "fgetxattr", "fsetxattr", "flistxattr", "fremovexattr")


def paths_of(operation):
    _, name, arguments = operation
    positions = PATHS.get(name, () if name in SLOTS else (0,))
    return [arguments[position] for position in positions]


def directory_of(path):
    return path.rstrip("/").rpartition("/")[0] or "."


def next_tick():
    """Waits until every stamp that comes is later than all that were; the earliest stamp that can come."""
    before = time.time_ns()
    while (now := time.clock_gettime_ns(COARSE)) <= before:
        time.sleep(0.001)
    return now


def named(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def told(status, start):
    """A look with its times told: of now or from before."""
    told_look = dict(status)
    for which in ("atime", "mtime", "ctime"):
        value = status[which]
        if START_OF_NOW < value < END_OF_NOW:
            if value % 1_000_000_000 == 0:
                told_look[which] = "in whole seconds, which are too long to tell"
            else:
                told_look[which] = "now" if value >= start else "before"
    return told_look


class Runner:
    """Runs sequences on one side. `calls` is a KernelCalls or a LibraryCalls."""

    def __init__(self, calls):
        self.calls = calls

    def run(self, folder, sequence, fit_for_mounts):
        self.calls.begin(folder)
        seen = [self.step(operation, fit_for_mounts) for operation in sequence]
        seen.append(self.everything())
        self.calls.end()
        return seen

    def attempt(self, function, *arguments):
        try:
            return function(*arguments)
        except OSError as error:
            return named(error)

    def status_of(self, operation):
        """What the operation's path leads to, or its slot holds; None for nothing."""
        _, name, arguments = operation
        status = self.attempt(self.calls.fstat if name in SLOTS else self.calls.stat, arguments[0])
        return status if isinstance(status, dict) else None

    def cuts_to_the_same_size(self, operation):
        """The kernel's part of a mount keeps the times of a file that is cut to the size that it has."""
        if operation[1] not in ("truncate", "ftruncate"):
            return False
        status = self.status_of(operation)
        return status is not None and status["size"] == operation[2][1]

    def writes_what_became_immutable(self, operation):
        """The kernel's part of a mount takes what is written by a descriptor that was open before."""
        name, arguments = operation[1:]
        slot = {"pwrite": 0, "copy_file_range": 2}.get(name)
        return slot is not None and self.attempt(self.calls.is_immutable, arguments[slot]) is True

    def sets_an_acl_of_another_group(self, operation):
        """The kernel's part of a mount does not say whether the caller is in the file's group, and so may keep set-gid."""
        user, name, arguments = operation
        who = users.USERS[user]
        if name not in ("setxattr", "fsetxattr") or arguments[1] != "system.posix_acl_access" or who == users.ROOT:
            return False
        status = self.status_of(operation)
        return (status is not None and int(status["mode"], 8) & 0o2000 != 0 and
                status["gid"] not in (who.gid, *who.groups))

    def whites_out_over_a_full_directory(self, operation):
        """ext4 of the kernel refuses that, and stamps the directory all the same."""
        _, name, arguments = operation
        if name != "rename" or not arguments[2] & WHITEOUT:
            return False
        listing = self.attempt(self.calls.readdir, arguments[1])
        return isinstance(listing, list) and bool(listing)

    def step(self, operation, fit_for_mounts):
        user, name, arguments = operation
        unshown = (self.cuts_to_the_same_size, self.writes_what_became_immutable, self.sets_an_acl_of_another_group)
        if self.whites_out_over_a_full_directory(operation) or (
                fit_for_mounts and any(case(operation) for case in unshown)):
            return {"result": "not asked", "looks": []}
        start = next_tick()
        self.calls.become(users.USERS[user])
        result = self.attempt(getattr(self.calls, name), *arguments)
        if isinstance(result, dict):
            result = told(result, start)
        self.calls.become(users.ROOT)
        looks = []
        for path in paths_of(operation):
            for place in (path, directory_of(path)):
                looks.append((place, self.look(place, start)))
        if name in SLOTS and name != "close":
            looks.append((f"slot {arguments[0]}", self.look_slot(arguments[0], start)))
        return {"result": result, "looks": looks}

    def look(self, path, start):
        status = self.attempt(self.calls.lstat, path)
        if not isinstance(status, dict):
            return status
        if ".." in path.split("/"):
            status["links"] = None  # it may lead out of the sequence's folder, where others are
        return told(status, start)

    def look_slot(self, slot, start):
        status = self.attempt(self.calls.fstat, slot)
        return told(status, start) if isinstance(status, dict) else status

    def everything(self):
        """The whole tree below the sequence's folder."""
        found = {}
        pending = ["."]
        while pending:
            path = pending.pop()
            look = self.look(path, 0)
            found[path] = (look, self.attempt(self.calls.xattrs, path), self.attempt(self.calls.getflags, path)
                           if isinstance(look, dict) else None)
            if isinstance(look, dict) and int(look["mode"], 8) & 0o170000 == 0o040000:
                listing = self.attempt(self.calls.readdir, path)
                found[path] += (listing,)
                if isinstance(listing, list):
                    pending += [f"{path}/{entry[0]}" for entry in listing]
        return {"result": found, "looks": []}


def _serve(make_calls, pipe):
    try:
        calls = make_calls()
        runner = Runner(calls)
        pipe.send("ready")
        while (request := pipe.recv()) is not None:
            pipe.send(runner.run(*request))
        if hasattr(calls, "unmount"):
            calls.unmount()
        pipe.send("done")
    except EOFError:
        pass
    except BaseException:  # told to whoever waits for an answer
        pipe.send(f"broken: {traceback.format_exc()}")


class Side:
    """A process that runs sequences; use `start` and then `result`."""

    def __init__(self, name, make_calls):
        self.name = name
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_serve, args=(make_calls, other), daemon=True)
        self.process.start()
        other.close()
        self._answer("ready")

    def _answer(self, expected=None, seconds=600):
        if not self.pipe.poll(seconds):
            raise RuntimeError(f"{self.name}: no answer within {seconds} s")
        try:
            answer = self.pipe.recv()
        except EOFError:
            self.process.join(5)
            raise RuntimeError(f"{self.name}: the process ended with {self.process.exitcode}") from None
        if isinstance(answer, str) and answer != expected:
            raise RuntimeError(f"{self.name}: {answer}")
        return answer

    def start(self, folder, sequence, fit_for_mounts):
        self.pipe.send((folder, sequence, fit_for_mounts))

    def result(self):
        return self._answer()

    def stop(self):
        self.pipe.send(None)
        self._answer("done")
        self.process.join(30)

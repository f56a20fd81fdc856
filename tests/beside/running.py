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

ERRORS = set(errno.errorcode.values())
COARSE = 5  # CLOCK_REALTIME_COARSE, by which the kernel stamps
START_OF_NOW = 1_700_000_000_000_000_000
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

    def run(self, folder, sequence):
        self.calls.begin(folder)
        seen = [self.step(operation) for operation in sequence]
        seen.append(self.everything())
        self.calls.end()
        return seen

    def attempt(self, function, *arguments):
        try:
            return function(*arguments)
        except OSError as error:
            return named(error)

    def step(self, operation):
        user, name, arguments = operation
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

    def start(self, folder, sequence):
        self.pipe.send((folder, sequence))

    def result(self):
        return self._answer()

    def stop(self):
        self.pipe.send(None)
        self._answer("done")
        self.process.join(30)


def without_atime(step, operation):
    """An observation without the times of access that a mount does not see: what the kernel has cached is read there
    without a request."""
    # The kernel's part of a mount keeps the times of a file that is cut to the size that it has.
    unseen = {"atime": None}
    # And the time of change of a file whose flags changed, or that is to lose an ACL that it does not have.
    if operation and operation[1] in ("setflags", "removexattr", "fremovexattr"):
        unseen = {"atime": None, "ctime": None}
    if operation and operation[1] in ("truncate", "ftruncate"):
        unseen = {"atime": None, "mtime": None, "ctime": None}

    def rid(look):
        return {**look, **unseen} if isinstance(look, dict) and "atime" in look else look

    result = rid(step["result"])
    if operation is None:
        result = {path: (rid(seen[0]),) + seen[1:] for path, seen in step["result"].items()}
    return {"result": result, "looks": [(place, rid(look)) for place, look in step["looks"]]}


def without(look, keys):
    return {**look, **{key: None for key in keys}} if isinstance(look, dict) and "mode" in look else look


def without_stamps(step, operation, keys):
    """An observation without what a refused fallocate has changed: the kernel stamps the file, and takes set-id bits,
    before it looks at the range."""
    result = step["result"]
    if operation is None:
        result = {path: (without(seen[0], keys),) + seen[1:] for path, seen in result.items()}
    return {"result": without(result, keys), "looks": [(place, without(look, keys)) for place, look in step["looks"]]}


def first_difference(expected, got, sequence, with_atime):
    """(index of the first step at which two runs of a sequence differ, both observations), or None. `with_atime`: no
    mount, where it is the kernel's part that says which of several reasons an error has."""
    refused = False
    for index, (one, other) in enumerate(zip(expected, got)):
        operation = sequence[index] if index < len(sequence) else None
        refused = refused or (operation and operation[1] == "fallocate" and isinstance(one["result"], str))
        if refused:
            one, other = (without_stamps(step, operation, ("mtime", "ctime", "mode")) for step in (one, other))
        if not with_atime:
            one, other = without_atime(one, operation), without_atime(other, operation)
            if isinstance(one["result"], str) and isinstance(other["result"], str) and operation \
                    and {one["result"], other["result"]} <= ERRORS:
                one = {**one, "result": other["result"]}
        if one != other:
            return index, one, other
    return None


def described(value):
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + f"... ({len(text)} characters)"


def difference_of(one, other):
    """Lines that say in what two observations differ."""
    lines = []
    if one["result"] != other["result"]:
        first, second = one["result"], other["result"]
        if isinstance(first, dict) and isinstance(second, dict):
            keys = sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))
            lines += [f"    {key}: {described(first.get(key))}\n    {' ' * len(str(key))}  {described(second.get(key))}"
                      for key in keys]
        else:
            lines.append(f"    result: {described(first)}\n            {described(second)}")
    for (place, first), (_, second) in zip(one["looks"], other["looks"]):
        if first == second:
            continue
        if isinstance(first, dict) and isinstance(second, dict):
            lines += [f"    {place!r}: {key} {first[key]} and {second[key]}" for key in first if first[key] != second[key]]
        else:
            lines.append(f"    {place!r}: {described(first)} and {described(second)}")
    return lines

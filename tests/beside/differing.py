"""Whether two runs of a sequence are equal. What a mount may show otherwise is listed here, case by case; in the library
nothing may be."""

import collections

# (operations, the kernel's answer, the mount's): the kernel's part of a mount asks before, or after, ext4 would.
ANSWERS_ON_A_MOUNT = (
    # What the flags of a directory or a file forbid is asked after the rights.
    (("rmdir", "unlink", "rename", "link", "mkdir", "mknod", "symlink", "open", "chmod", "chown", "lchown", "truncate",
      "utimensat", "setxattr", "removexattr", "access"), "EPERM", "EACCES"),
    # And after what kind of file it is.
    (("unlink",), "EPERM", "EISDIR"),
    (("rmdir",), "EPERM", "ENOTDIR"),
)
# How often each was met.
met = collections.Counter()


def _same_look(one, other, operation):
    """Whether a look at the kernel's file equals that at the mount's. `operation`: what was done, if it was."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one == other
    return all(one[key] == other[key] or _unseen(key, one[key], other[key], operation) for key in one)


def _unseen(key, value, shown, operation):
    if key == "atime":
        # What the kernel has cached is read there without a request, and a write of part of a page may read the page. A
        # time that this operation set is there.
        return not operation or operation[1] not in ("utimensat", "futimens") or value in ("now", "before")
    # The kernel's part keeps the time of change of a file whose flags changed, and moves that of one which loses an ACL
    # that it does not have, or gets the value that an attribute has.
    name = operation[1] if operation else ""
    moved = ("removexattr", "fremovexattr", "setxattr", "fsetxattr")
    return key == "ctime" and ((name == "setflags" and (value, shown) == ("now", "before")) or
                               (name in moved and (value, shown) == ("before", "now")))


def _same_on_a_mount(one, other, operation):
    if operation is None:
        found, shown = one["result"], other["result"]
        return found.keys() == shown.keys() and all(
            _same_look(found[path][0], shown[path][0], None) and found[path][1:] == shown[path][1:] for path in found)
    same = _same_look(one["result"], other["result"], operation)
    for names, answer, shown in ANSWERS_ON_A_MOUNT:
        if not same and operation[1] in names and (one["result"], other["result"]) == (answer, shown):
            met[operation[1], answer, shown] += 1
            same = True
    done = operation if not isinstance(one["result"], str) else None
    return same and all(_same_look(look, shown, done) for (_, look), (_, shown) in zip(one["looks"], other["looks"]))


def first_difference(expected, got, sequence, mounted):
    """(index of the first step at which two runs of a sequence differ, both observations), or None."""
    for index, (one, other) in enumerate(zip(expected, got)):
        operation = sequence[index] if index < len(sequence) else None
        if one != other and not (mounted and _same_on_a_mount(one, other, operation)):
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

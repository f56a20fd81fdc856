"""The three sides of a comparison on fresh images of one format: the kernel's ext4, a mount, the C interface."""

import contextlib
import functools

import mounting
from kernel_calls import KernelCalls
from library_calls import LibraryCalls
from differing import difference_of, first_difference
from running import Side

OPTIONS = "data=ordered"


class Sides:
    """Used by `with`: afterwards all three images are clean for e2fsck, and the kernel reads what was written."""

    def __init__(self, scratch, library, name, options, mount_options=""):
        self.scratch, self.library, self.name = scratch, library, name
        self.options, self.mount_options = options, mount_options
        self.count = 0
        self.sides = {}

    def __enter__(self):
        size = "192M"
        for name in ("kernel", "mount", "library"):
            self.scratch.image(f"{name}.img", size, *self.options)
        extra = "," + self.mount_options if self.mount_options else ""
        self.kernel = self.scratch.kernel_mount(self.scratch.path("kernel.img"), "kernel", "nodev,nosuid" + extra)
        self.mount = self.scratch.mount(self.scratch.path("mount.img"), "mount", self.mount_options)
        self.sides = {
            "kernel": Side("kernel", functools.partial(KernelCalls, self.kernel)),
            "mount": Side("mount", functools.partial(KernelCalls, self.mount)),
            "library": Side("library", functools.partial(LibraryCalls, self.library,
                                                         str(self.scratch.path("library.img")), self.mount_options)),
        }
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.finish()
        for side in self.sides.values():
            with contextlib.suppress(Exception):
                side.process.kill()
                side.process.join(10)
        with contextlib.suppress(mounting.Failure, KeyError, ValueError):
            if self.kernel in self.scratch.kernel:
                self.scratch.kernel_umount(self.kernel)
            if self.mount in self.scratch.servers:
                self.scratch.umount(self.mount)

    def compare(self, sequence, names):
        """Runs the sequence; None, or (index of the step that differs, lines that say how, the side's name)."""
        self.count += 1
        folder = f"run{self.count}"
        for name in names:
            self.sides[name].start(folder, sequence, "mount" in names)
        seen = {name: self.sides[name].result() for name in names}
        for name in names[1:]:
            found = first_difference(seen[names[0]], seen[name], sequence, name == "mount")
            if found:
                index, one, other = found
                return index, difference_of(one, other), name
        return None

    def finish(self):
        for side in self.sides.values():
            side.stop()
        self.scratch.kernel_umount(self.kernel)
        self.scratch.umount(self.mount)
        for name in ("kernel", "mount", "library"):
            mounting.clean(self.scratch.path(f"{name}.img"))


def shrunk(sides, sequence, found, names, budget=300):
    """The shortest sequence at hand that still differs, and its difference."""
    index, lines, name = found
    names = [names[0], name]
    sequence = sequence[:index + 1]
    found = sides.compare(sequence, names) or found
    piece = max(1, len(sequence) // 2)
    while piece >= 1 and budget > 0:
        position = 0
        while position < len(sequence) and budget > 0:
            shorter = sequence[:position] + sequence[position + piece:]
            budget -= 1
            other = sides.compare(shorter, names)
            if other:
                sequence, found = shorter[:other[0] + 1], other
            else:
                position += piece
        piece //= 2
    return sequence, found


def printed(sequence, found):
    index, lines, name = found
    text = [f"kernel and {name} differ:"]
    text += [f"  {number}: {operation!r}" for number, operation in enumerate(sequence)]
    text.append("  at the end, the whole tree:" if index >= len(sequence) else f"  at {index}:")
    return "\n".join(text + lines)

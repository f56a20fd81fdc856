"""What a table of damages is made of."""

import typing


class Damage(typing.NamedTuple):
    image: str
    what: str
    expected: str  # regular expression for a line of `uext4 check`; <PATH> stands for the inode's number
    change: typing.Any  # a function of the image, or commands of debugfs
    unminded: str = ""  # why e2fsck does not mind; then `expected` may be empty, and only a crash counts


def field(what, **fields):
    """Sets fields of an inode, its checksum right again. A function is given the old value."""
    def change(image):
        inode = image.inode(what)
        for name, value in fields.items():
            inode[name] = value(inode[name]) if callable(value) else value
    return change


def group(number, **fields):
    def change(image):
        descriptor = image.group(number)
        for name, value in fields.items():
            descriptor[name] = value(descriptor[name]) if callable(value) else value
    return change


def superblock(**fields):
    def change(image):
        for name, value in fields.items():
            image.super[name] = value(image.super[name]) if callable(value) else value
    return change


def flip(place, mask=1):
    """Inverts bits of the byte at `place(image)`; no checksum is made right."""
    return lambda image: image.flip(place(image), mask)

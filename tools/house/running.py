"""./dev run: an image, mounted, and how to stop it again."""

import argparse
import os
import pathlib
import shlex
import subprocess
import tempfile

from . import build, host, packages
from .host import GiveUp, say

IMAGE_BYTES = 1 << 30


def fuse_usable():
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
        return True
    except OSError:
        return False


def make_image(folder):
    """A fresh ext4 in a sparse file."""
    image = folder / "image.ext4"
    with open(image, "xb") as file:
        file.truncate(IMAGE_BYTES)
    # Belongs to whoever runs this, or a mount by a plain user could not be written to.
    host.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"root_owner={os.getuid()}:{os.getgid()}", image],
             env=os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})
    return image


def run(arguments):
    parser = argparse.ArgumentParser(prog="./dev run", description="Builds uext4 and mounts an image with it; without "
                                     "/dev/fuse it opens the image in uext4's own shell.")
    parser.add_argument("image", nargs="?", type=pathlib.Path, help="default: a new 1 GiB image in a temporary folder")
    parser.add_argument("dir", nargs="?", type=pathlib.Path, help="where to mount; default: a temporary folder")
    options = parser.parse_args(arguments)
    if options.image and not options.image.exists():
        raise GiveUp(f"there is no image {options.image}")
    if options.dir and not options.dir.is_dir():
        raise GiveUp(f"{options.dir} is no directory to mount at")

    packages.ensure("products")
    program = build.build_products()

    folder = None
    if not (options.image and options.dir):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="uext4-"))
    image = options.image.resolve() if options.image else make_image(folder)
    if not fuse_usable():
        say(f"/dev/fuse cannot be opened here, so {image} opens in the shell of uext4. `help` lists its commands.")
        return subprocess.run([str(program), "shell", str(image)], check=False).returncode
    if options.dir:
        place = options.dir.resolve()
    else:
        place = folder / "mnt"
        place.mkdir()
    if subprocess.run([str(program), "mount", str(image), str(place)], check=False).returncode != 0:
        raise GiveUp(f"{image} could not be mounted at {place}", 1)

    program_name, image_name, place_name = (shlex.quote(str(name)) for name in (program, image, place))
    say(f"""
{image} is mounted at {place} and stays so in the background.

  use it     cd {place_name}
  stop it    {program_name} umount {place_name}
  check it   {program_name} check {image_name}      (after stopping)""")
    if folder:
        say(f"  forget it  rm -r {shlex.quote(str(folder))}      (after stopping)")
    return 0

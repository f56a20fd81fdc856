#!/usr/bin/env python3
"""Single damages, each found by `e2fsck -fn` and then by `uext4 check`, which names the structure; sound images of the
same formats, also after the kernel and the program wrote to them, are called clean.

Usage: damage_test.py PROGRAM [WORD...]     (only damages whose image or text has one of the words)
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import sys
import tempfile

import damage_attributes
import damage_files
import damage_groups
import damage_inodes
import damage_maps
import damage_names
import specimens
from ext4_image import Image
from specimens import run

TABLES = (damage_groups, damage_inodes, damage_maps, damage_names, damage_attributes, damage_files)
LEAST = 110  # damages that count


def numbered(expected, image):
    return re.sub("<(/[^>]*)>", lambda m: str(image.inode(m[1]).number), expected)


def judge(program, path, sound, damage):
    """What is wrong with the answer of `uext4 check`, or nothing."""
    try:
        return judged(program, path, sound, damage)
    except Exception as error:  # a damage that does not fit its image
        return f"cannot be made: {error!r}"
    finally:
        path.unlink(missing_ok=True)


def judged(program, path, sound, damage):
    image = Image(sound.data)
    expected = numbered(damage.expected, image)
    if callable(damage.change):
        damage.change(image)
        path.write_bytes(image.data)
    else:
        path.write_bytes(image.data)
        said = run("debugfs", "-w", "-R", damage.change, path)
        if path.read_bytes() == bytes(sound.data):
            return f"debugfs changed nothing: {said.stderr}"
    oracle = run("e2fsck", "-fn", path)
    answer = run(program, "check", path)
    shown = f"{answer.stdout[-500:]}{answer.stderr[-300:]}"
    if damage.unminded:
        if oracle.returncode != 0:
            return f"e2fsck does mind: {oracle.stdout[-400:]}"
        # What it does not mind and we do, is found all the same.
        if answer.returncode not in (0, 1) or (expected and not re.search(expected, answer.stdout, re.MULTILINE)):
            return f"'{expected}' expected, check ends with {answer.returncode}: {shown}"
        return ""
    if oracle.returncode == 0:
        return f"e2fsck does not mind; check ends with {answer.returncode}: {shown}"
    if answer.returncode != 1:
        return f"check ends with {answer.returncode}: {shown}\n    e2fsck: {problems_of(oracle.stdout)}"
    if not re.search(expected, answer.stdout, re.MULTILINE):
        return f"'{expected}' expected: {shown}\n    e2fsck: {problems_of(oracle.stdout)}"
    return ""


def problems_of(text):
    return " | ".join(line for line in text.splitlines() if line and not line.startswith(("Pass", "e2fsck")))[:400]


def used_by_the_program(program, image, tree):
    steps = (("cp", "-a", tree / "dir", f"{image}:/copy"), ("rm", "-r", f"{image}:/dir"),
             ("mkdir", f"{image}:/new"), ("rm", f"{image}:/sparse"))
    if "quota" in image.name:
        return []
    for step in steps:
        done = run(program, *step)
        if done.returncode != 0:
            return [f"{step}: {done.stderr}"]
    return []


def used_by_the_kernel(image, folder):
    """True where it could be."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        return False
    place = folder / "kernel"
    place.mkdir(exist_ok=True)
    if run("mount", "-t", "ext4", "-o", "loop", image, place).returncode != 0:
        return False
    try:
        for i in range(150):
            (place / "hashed" / f"more-{i}").write_bytes(b"y" * i * 9)
        for i in range(0, 130, 3):
            (place / "hashed" / specimens.NAME.format(i)).unlink()
        (place / "of-the-kernel").mkdir()
        (place / "of-the-kernel" / "link").symlink_to("k" * 90)
        os.setxattr(place / "of-the-kernel", "user.k", b"k" * 200)
        (place / "big").unlink()
    finally:
        run("umount", place)
    return True


def soundness(program, folder, images, tree):
    failures, by_kernel = [], 0
    for name, image in images.items():
        steps = [("as made", lambda: [])]
        steps.append(("after the program", lambda image=image: used_by_the_program(program, image, tree)))
        for label, step in steps:
            failures += [f"{name} {label}: {text}" for text in step()]
            answer, oracle = run(program, "check", image), run("e2fsck", "-fn", image)
            if answer.returncode != 0 or oracle.returncode != 0:
                failures.append(f"{name} {label}: {answer.stdout[-600:]}{answer.stderr[-300:]}{problems_of(oracle.stdout)}")
        # (The kernel of some machines cannot be trusted with inline data in a small journal.)
        if name in ("inline", "casefold") or not used_by_the_kernel(image, folder):
            continue
        by_kernel += 1
        answer, oracle = run(program, "check", image), run("e2fsck", "-fn", image)
        if answer.returncode != 0 or oracle.returncode != 0:
            failures.append(f"{name} after the kernel: {answer.stdout[-600:]}{answer.stderr[-300:]}{problems_of(oracle.stdout)}")
    return failures, by_kernel


def main():
    program, words = sys.argv[1], sys.argv[2:]
    damages = [d for table in TABLES for d in table.DAMAGES
               if not words or any(w in f"{d.image}: {d.what}" for w in words)]
    failures, images, sound = [], {}, {}
    with tempfile.TemporaryDirectory(prefix="uext4-damage-", dir="/dev/shm") as name:
        folder = pathlib.Path(name)
        for deep in (False, True):
            (folder / f"tree{deep:d}").mkdir()
            specimens.populate(folder / f"tree{deep:d}", deep)
        for label in specimens.FORMATS:
            if words and label not in {d.image for d in damages}:
                continue
            image, why = specimens.make(folder, label, folder / f"tree{label == 'large_dir':d}")
            if why:
                failures.append(f"{label}: {why}")
                continue
            images[label], sound[label] = image, Image(image.read_bytes())
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            jobs = [(d, pool.submit(judge, program, folder / f"damaged{n}.img", sound[d.image], d))
                    for n, d in enumerate(damages) if d.image in sound]
            failures += [f"{d.image}: {d.what}: {job.result()}" for d, job in jobs if job.result()]
        by_kernel = 0
        if not words:
            more, by_kernel = soundness(program, folder, images, folder / "tree0")
            failures += more
        shutil.rmtree(folder / "kernel", ignore_errors=True)
    for failure in failures:
        print(failure)
    counted = sum(not d.unminded for d in damages)
    if not words and counted < LEAST:
        failures.append("too few damages")
    print(f"{counted} damages of {len(sound)} formats ({len(damages) - counted} that e2fsck does not mind), "
          f"{by_kernel} formats used by the kernel as well, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

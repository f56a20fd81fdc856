#!/usr/bin/env python3
"""Damaged images: every verb that reads one ends by itself, with an answer or an error, never by a signal.

Bytes of metadata are set to 0, to their largest value, to one more or one less, or to random values, in images with and
without checksums (without them the damage gets past the first look). Usage: bad_images_test.py PROGRAM
"""

import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile

LIMIT_SECONDS = 60
LIMIT_MEMORY = 1 << 30  # of address space; an ordinary run takes less than half of it
ROUNDS = int(os.environ.get("UEXT4_ROUNDS", "40"))

FORMATS = {
    "plain": ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"],
    "ext3": ["-t", "ext3", "-b", "1024"],
    "inline": ["-t", "ext4", "-b", "4096", "-O", "inline_data,^metadata_csum"],
    "checksums": ["-t", "ext4", "-b", "4096"],
    "bigalloc": ["-t", "ext4", "-b", "4096", "-O", "bigalloc,^metadata_csum", "-C", "16384"],
}


def make_tree(folder):
    (folder / "dir" / "deep").mkdir(parents=True)
    for i in range(300):
        (folder / "dir" / f"a-name-of-some-length-{i:04}").write_text("x" * i)
    (folder / "big").write_bytes(os.urandom(300000))
    with open(folder / "sparse", "wb") as sparse:
        for i in range(40):
            sparse.seek(i * 20000)
            sparse.write(b"data")
    (folder / "link").symlink_to("big")
    (folder / "long").symlink_to("t" * 200)
    os.link(folder / "big", folder / "hard")
    os.setxattr(folder / "big", "user.x", b"value" * 50)


def metadata_blocks(image, block_size):
    """Where the structures lie, as debugfs and dumpe2fs know them."""
    text = subprocess.run(["dumpe2fs", image], capture_output=True, text=True, check=False).stdout
    blocks = {0, 1}
    for word in text.replace("(", " ").replace(")", " ").replace(",", " ").split():
        first = word.split("-")[0]
        if first.isdigit() and int(first) < 64 << 20 // block_size:
            blocks.add(int(first))
    for inode in range(2, 30):
        listing = subprocess.run(["debugfs", "-R", f"blocks <{inode}>", image], capture_output=True, text=True, check=False)
        blocks.update(int(b) for b in listing.stdout.split()[:8] if b.isdigit())
    return sorted(b for b in blocks if b < 24 * 1024 * 1024 // block_size)


def damage(data, blocks, block_size, chance):
    for _ in range(chance.randint(1, 6)):
        at = chance.choice(blocks) * block_size + chance.randrange(block_size)
        width = chance.choice([1, 2, 4])
        at -= at % width
        old = int.from_bytes(data[at:at + width], "little")
        largest = (1 << 8 * width) - 1
        new = chance.choice([0, largest, (old + 1) & largest, (old - 1) & largest, chance.randint(0, largest)])
        data[at:at + width] = new.to_bytes(width, "little")


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_MEMORY, LIMIT_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main():
    program = sys.argv[1]
    failures = []
    runs = 0
    with tempfile.TemporaryDirectory(prefix="uext4-bad-", dir="/dev/shm") as name:
        folder = pathlib.Path(name)
        (folder / "tree").mkdir()
        make_tree(folder / "tree")
        image = folder / "bad.img"
        for label, options in FORMATS.items():
            good = folder / f"{label}.img"
            subprocess.run(["mke2fs", "-q", "-F", *options, "-d", folder / "tree", good, "24M"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            block_size = 1024 if "1024" in options else 4096
            blocks = metadata_blocks(good, block_size)
            original = good.read_bytes()
            for round_number in range(ROUNDS):
                chance = random.Random(f"{label} {round_number}")
                data = bytearray(original)
                damage(data, blocks, block_size, chance)
                image.write_bytes(data)
                for verb in (["tree", image], ["find", image, "-ls"], ["ls", "-l", f"{image}:/dir"], ["cat", f"{image}:/sparse"],
                             ["getfattr", f"{image}:/big"], ["cp", "-a", f"{image}:/", folder / "out"],
                             ["rm", "-r", f"{image}:/dir"], ["mkdir", f"{image}:/new"]):
                    runs += 1
                    subprocess.run(["rm", "-rf", folder / "out"], check=False)
                    if verb[0] == "cp":
                        (folder / "out").mkdir()
                    try:
                        ended = subprocess.run([program, *map(str, verb)], stdout=subprocess.DEVNULL,
                                               stderr=subprocess.PIPE, timeout=LIMIT_SECONDS, preexec_fn=limits, check=False)
                    except subprocess.TimeoutExpired:
                        failures.append(f"{label} {round_number} {verb[0]}: did not end within {LIMIT_SECONDS} s")
                        continue
                    if ended.returncode not in (0, 1, 2):
                        failures.append(f"{label} {round_number} {verb[0]}: status {ended.returncode}: "
                                        f"{ended.stderr.decode(errors='replace')[-300:]}")
                    elif ended.returncode != 0 and not ended.stderr.strip():
                        failures.append(f"{label} {round_number} {verb[0]}: failed without a word")
    for failure in failures[:20]:
        print(failure)
    print(f"{runs} runs on damaged images, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

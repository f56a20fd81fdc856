#!/usr/bin/env python3
"""Installs a build into an empty folder and builds programs against it, the way others would.

One program through find_package with the shared library, one with the static archive, one through pkg-config with each.
They include every public header, and the static ones take the whole archive, so that a library which the package
description forgot is an error of the linker. The same for programs in C, in a project that knows no C++.

Usage: install_test.py BUILD   (a built folder; exit status 77 if it has no library)
"""

import os
import pathlib
import subprocess
import sys
import tempfile

CONSUMER = """cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C CXX)
find_package(uext4 REQUIRED)
add_executable(shared main.cpp)
target_link_options(shared PRIVATE -Wl,--no-as-needed)
target_link_libraries(shared PRIVATE uext4::uext4)
add_executable(static main.cpp)
target_link_libraries(static PRIVATE -Wl,--whole-archive uext4::static -Wl,--no-whole-archive)
"""

C_CONSUMER = """cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(uext4 REQUIRED)
add_executable(shared main.c)
target_link_libraries(shared PRIVATE uext4::uext4)
add_executable(static main.c)
target_link_libraries(static PRIVATE uext4::static)
"""


def run(*command, **options):
    """Runs a command; ends the test with its output if it fails. Returns what it printed."""
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            check=False, **options)
    if result.returncode != 0:
        print(result.stdout)
        sys.exit(f"{' '.join(map(str, command))} ended with status {result.returncode}")
    return result.stdout


def in_old_dialects(flags):
    """What is too old for the C++ interface is told so, once; the C interface does without."""
    result = subprocess.run(["c++", "-std=c++17", "-fsyntax-only", *flags, "-include", "uext4/uext4.hpp", "-x", "c++", "/dev/null"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode == 0 or result.stdout.count("error:") != 1 or "needs C++23" not in result.stdout:
        sys.exit(f"<uext4/uext4.hpp> as C++17: {result.stdout}")
    run("c++", "-std=c++17", "-fsyntax-only", *flags, "-include", "uext4/uext4.h", "-x", "c++", "/dev/null")


def in_c(folder, prefix, image, paths):
    """A project in C alone, by CMake and by pkg-config, with both libraries."""
    folder.mkdir()
    source = folder / "main.c"
    source.write_text((pathlib.Path(__file__).parent / "consumer.c").read_text(encoding="utf-8"))
    (folder / "CMakeLists.txt").write_text(C_CONSUMER)
    run("cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("ninja", "-C", folder / "build")
    flags = run("pkg-config", "--static", "--cflags", "--libs", "uext4", env=paths).split()
    flags[flags.index("-luext4")] = "-l:libuext4.a"
    run("cc", source, *flags, "-o", folder / "by_pkg_config")
    for program in ("build/shared", "build/static", "by_pkg_config"):
        run(folder / program, image)


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    if not (build / "lib" / "libuext4.so").exists():
        print(f"{build.name} has no libuext4.so to install")
        return 77
    with tempfile.TemporaryDirectory(prefix="uext4-install-") as name:
        folder = pathlib.Path(name)
        prefix = folder / "prefix"
        run("cmake", "--install", build, "--prefix", prefix)
        headers = sorted(path.relative_to(prefix / "include") for path in (prefix / "include").rglob("*.h*"))
        if not headers:
            sys.exit("no public header was installed")
        source = folder / "main.cpp"
        example = (pathlib.Path(__file__).parent / "consumer.cpp").read_text(encoding="utf-8")
        source.write_text("".join(f"#include <{header}>\n" for header in headers) + example)
        image = folder / "image"
        run("mke2fs", "-q", "-F", "-t", "ext4", image, "32M")
        (folder / "CMakeLists.txt").write_text(CONSUMER)

        run("cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
        run("ninja", "-C", folder / "build")
        library_path = os.environ | {"LD_LIBRARY_PATH": str(next(prefix.rglob("libuext4.so")).parent)}
        run(folder / "build" / "shared", image)
        run(folder / "build" / "static", image)

        paths = os.environ | {"PKG_CONFIG_PATH": str(next(prefix.rglob("uext4.pc")).parent)}
        flags = run("pkg-config", "--cflags", "--libs", "uext4", env=paths).split()
        run("c++", "-std=c++23", source, "-Wl,--no-as-needed", *flags, "-o", folder / "by_pkg_config")
        run(folder / "by_pkg_config", image, env=library_path)
        flags = run("pkg-config", "--static", "--cflags", "--libs", "uext4", env=paths).split()
        place = flags.index("-luext4")
        flags[place:place + 1] = ["-Wl,--whole-archive", "-l:libuext4.a", "-Wl,--no-whole-archive"]
        run("c++", "-std=c++23", source, *flags, "-o", folder / "by_pkg_config_static")
        run(folder / "by_pkg_config_static", image)
        in_old_dialects(run("pkg-config", "--cflags", "uext4", env=paths).split())
        in_c(folder / "c", prefix, image, paths)
        run("e2fsck", "-fn", image)

        soname = run("readelf", "-d", next(prefix.rglob("libuext4.so")))
        if "[libuext4.so.0]" not in soname:
            sys.exit("libuext4.so does not call itself libuext4.so.0")
        if (program := prefix / "bin" / "uext4").exists():
            run(program, "--help")
            for helper in ("mount.fuse.uext4", "umount.fuse.uext4"):
                link = prefix / "sbin" / helper
                if not link.is_symlink() or os.path.isabs(os.readlink(link)) or link.resolve() != program:
                    sys.exit(f"{link} is no relative link to the program")
                run(link, "--help")
        print(f"{len(headers)} headers and both libraries serve a consumer")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What ./dev starts: the verb that its words name."""

import os
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])  # the package is found by its name

from house import verbs  # noqa: E402  (the path has to be set first)

if __name__ == "__main__":
    try:
        sys.exit(verbs.main(sys.argv[1:]))
    except BrokenPipeError:  # the reader has closed the pipe: nothing more to say, also at the interpreter's end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

"""The options of the tools that ./dev builds first: each lists them in a file that the tool itself is built from."""

import re

from .host import GiveUp

OPTION = re.compile(r"^  (--[a-z0-9-]+)(?: (\S+))?  ", re.MULTILINE)


def text_of(path):
    """What --help tells; the file is a raw string of C++."""
    return path.read_text(encoding="utf-8").strip().removeprefix('R"(').removesuffix(')"')


def options_of(path):
    """{option: what its value is called, or an empty string}."""
    return dict(OPTION.findall(text_of(path)))


def judge(path, arguments):
    """Gives up, naming it, at the first word that the tool would refuse."""
    known = options_of(path)
    words = iter(arguments)
    for option in words:
        if option not in known:
            raise GiveUp(f"{option}: no such option (--help lists them)")
        if not known[option]:
            continue
        value = next(words, None)
        if value is None:
            raise GiveUp(f"{option}: needs a value")
        if known[option] in ("N", "S") and not re.fullmatch("[0-9]+", value):
            raise GiveUp(f"{option}: '{value}' is no number")
        choices = known[option].split("|")
        if len(choices) > 1 and value not in choices:
            raise GiveUp(f"{option}: '{value}' is none of {', '.join(choices)}")

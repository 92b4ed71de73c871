"""Command-line flags from a dataclass, one-line errors, and atomic file writes."""

import argparse
import dataclasses
import inspect
import math
import os
import re
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def fail(message):
    """For mistakes of the user: one line and exit status 1 instead of a traceback."""
    sys.exit(f"error: {message}")


def check(condition, message):
    if not condition:
        fail(message)


@dataclass(frozen=True)
class Flags:
    """Flags that every script has."""
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # random seed
    device: str = "auto"           # cpu, cuda, mps, or auto: cuda if available
    precision: str = "auto"        # of the blocks: float32, bfloat16, auto: the native one


@dataclass(frozen=True)
class TrainingFlags(Flags):
    resume: bool = False           # continue an interrupted run


def make_parser(description):
    """Mistakes, an interruption and what the system refuses end in one line."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit("\ninterrupted"))
    sys.excepthook = report_system_errors
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: fail(f"{message}; see --help")
    return parser


def report_system_errors(kind, error, traceback):
    """No space, no permission, a folder in place of a file: the rest are bugs and show a traceback.
    """
    if issubclass(kind, OSError):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def read_flags(description, Config):
    """One flag per field of the dataclass. The comment behind a field is its help text, so that a
    reader of the script and a reader of --help see the same."""
    parser = make_parser(description)
    help_texts = {}
    for cls in Config.__mro__[:-1]:
        help_texts.update(re.findall(r"^    (\w+): .*?#\s*(.*)$", inspect.getsource(cls), re.M))
    for field in dataclasses.fields(Config):
        flag = "--" + field.name.replace("_", "-")
        help_text = f"{help_texts[field.name]} [{field.default}]".replace("%", "%%")
        if field.type is bool:
            parser.add_argument(flag, action="store_true", help=help_text)
        else:
            parse = number_or_file if field.type == int | str else field.type
            parser.add_argument(flag, type=parse, default=field.default, help=help_text)
    config = Config(**vars(parser.parse_args()))
    check_signs(config)
    return config


def check_signs(config):
    """Whole numbers that are positive by default must stay so; fractions and weights must not be
    negative."""
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), "--" + field.name.replace("_", "-")
        if type(value) is int:
            check(abs(value) < 2 ** 63, f"{flag} {value} has more than 64 bits")
        if type(value) is int and field.default > 0:
            lowest = 0 if field.name == "questions" else 1
            check(value >= lowest, f"{flag} {value} must be at least {lowest}")
        if type(value) is float and field.default >= 0:
            check(0 <= value < math.inf, f"{flag} {value} must be finite and not negative")


def number_or_file(text):
    """The type `int | str` of data flags: a number of generated examples, or a file's path."""
    return int(text) if text.isdecimal() else text


@contextmanager
def atomic_write(path, mode="w"):
    """Writes to a temporary file and renames it, so `path` is never half written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(f"{path}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

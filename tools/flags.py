"""Flags from a frozen dataclass, errors in one line, files that are written whole or not at all."""

import argparse
import dataclasses
import inspect
import math
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:                # Windows: two runs in one folder are the user's to avoid
    fcntl = None

# --- errors ---------------------------------------------------------------------------------------


def fail(message):
    """What the user can mend: one line, exit status 1, no traceback."""
    sys.exit(f"error: {message}")


def check(condition, message):
    if not condition:
        fail(message)


def check_ranges(config, at_least_0="", above_0="", share=""):
    """Flags by name: those that are not negative, those above 0, those from 0 to 1."""
    for name in at_least_0.split():
        check(getattr(config, name) >= 0, f"{flag(name)} {getattr(config, name)}: 0 or more")
    for name in above_0.split():
        check(getattr(config, name) > 0, f"{flag(name)} {getattr(config, name)} must be above 0")
    for name in share.split():
        check(0 <= getattr(config, name) <= 1, f"{flag(name)} {getattr(config, name)}: 0 to 1")


def run(main):
    """Calls a script's main. An interrupt exits with 130; files are only replaced whole."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):         # a console that is not UTF-8
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted; what was saved before is whole" + (
            ", the same command with --resume goes on" if "resume" in known else ""),
              file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:                                    # ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as e:
        fail(f"{e.filename or 'writing'}: {e.strerror or e}; "
             "check the path and the room on the disk")
    except RuntimeError as e:
        if type(e).__name__ != "OutOfMemoryError":
            raise
        fail("the GPU's memory is full; a lower --batch or --minibatch needs less")


# --- flags ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """Flags that every training script has."""
    out: str = "out"               # folder of checkpoints and metrics
    seed: int = 0                  # of everything random
    device: str = "auto"           # cpu, cuda, mps or auto: cuda where there is one
    precision: str = "auto"        # of the blocks: float32, bfloat16, or auto: bfloat16 on cuda
    resume: bool = False           # go on where a run with the same flags was stopped


known = set()                      # names of the flags that this program has


def flag(name):
    return "--" + name.replace("_", "-")


def read_flags(description, *Configs):
    """Flags from frozen dataclasses; a field's trailing comment is its help. -> a Config

    Of several the one is meant whose `stage` is the value of --stage, the first if it is not given.
    """
    argv = join_negative(sys.argv[1:])
    if len(Configs) == 1:
        return parse(Configs[0], description, argv)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.error = lambda message: fail(f"{message}; see --help")
    early.add_argument("--stage", default=Configs[0].stage)
    stage = early.parse_known_args(argv)[0].stage
    stages = {Config.stage: Config for Config in Configs}
    check(stage in stages, f"--stage is {' or '.join(stages)}, not {stage}")
    return parse(stages[stage], description, argv)


def parse(Config, description, argv):
    parser = argparse.ArgumentParser(description=description.strip(), allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: fail(f"{message}; see --help")
    shared = {field.name for field in dataclasses.fields(Training)}
    groups = [parser.add_argument_group(title)
              for title in ("of this script", "of every training script")]
    source = "".join(inspect.getsource(c) for c in Config.__mro__[:-1])
    comments = dict(re.findall(r"^    (\w+): .*?#\s*(.*)$", source, re.M))
    known.update(field.name for field in dataclasses.fields(Config))
    for field in dataclasses.fields(Config):
        help = comments.get(field.name, "").replace("%", "%%")
        more = (dict(action=argparse.BooleanOptionalAction, help=help) if field.type is bool else
                dict(type=field.type, help=f"{help} [{field.default}]"))
        groups[field.name in shared].add_argument(flag(field.name), default=field.default, **more)
    config = Config(**vars(parser.parse_args(argv)))
    for field in dataclasses.fields(Config):   # counts and learning rates; scripts check the rest
        value = getattr(config, field.name)
        if type(value) is int and field.default > 0 or field.name.endswith("lr"):
            check(value > 0, f"{flag(field.name)} {value} must be above 0")
        if field.type is float:
            check(math.isfinite(value), f"{flag(field.name)} {value} is not a finite number")
    return config


def join_negative(argv):
    """--missing-end -1e3 -> --missing-end=-1e3, which argparse takes for a flag otherwise."""
    joined = []
    for word in argv:
        if joined and joined[-1].startswith("--") and re.fullmatch(r"-[\d.][\d.e+-]*", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


# --- files ----------------------------------------------------------------------------------------


@contextmanager
def write_whole(path, mode="w", errors=OSError):
    """A file written beside its place and renamed: the old one is whole until the new one is.
    Text is UTF-8 with \\n; `errors` are what may go wrong in writing."""
    draft = Path(f"{path}.tmp")
    how = {} if "b" in mode else dict(encoding="utf-8", newline="\n")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, mode, **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except errors as e:
        draft.unlink(missing_ok=True)
        fail(f"{path}: could not be written ({e}); make room and run this again")


locks = []                         # open as long as the program runs


def lock(out, name):
    """Ends the program if another one that writes out/<name> runs; the lock dies with it."""
    path = Path(out) / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    locks.append(open(path, "w"))
    try:
        if fcntl:
            fcntl.flock(locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail(f"another run writes {name} in {out}; wait for it, or give one of them another --out")
    except OSError:
        pass                       # a file system without locks

"""Limits of a process in which students' code runs, and how it is started and ended."""

import os
import signal
import subprocess
import sys

BYTES, MEMORY = 2 ** 24, 2 ** 31


TOO_LONG = [-getattr(signal, name, 99) for name in ("SIGXCPU", "SIGKILL")]


def set_limits(seconds):
    """Of processor time, of a file's size, of memory: whatever the process starts inherits them."""
    try:
        import resource
    except ImportError:            # Windows knows no such limits
        return
    for which, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, BYTES),
                        (resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(which, (most, most))


def run_limited(code, folder, limit, user="", given=""):
    """Runs a line of Python in a folder: nothing of the grader's environment, nowhere to print.
    -> the exit status, None if it took more than `limit` seconds of processor time, or three times
    as long by the clock: the machine may be busy"""
    kept = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH")
            if key in os.environ}
    more = dict(user=user, extra_groups=[]) if user else {}
    code = f"from course.limits import set_limits; set_limits({limit}); {code}"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=kept | dict(OMP_NUM_THREADS="1", HOME=str(folder), PYTHONDONTWRITEBYTECODE="1"),
        start_new_session=True, **more)
    try:
        process.communicate(given.encode(), timeout=3 * limit)
        return None if process.returncode in TOO_LONG else process.returncode
    except subprocess.TimeoutExpired:
        return None
    finally:
        stop(process)


def stop(process):
    """It, and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError, AttributeError):
        process.kill()
    process.wait()

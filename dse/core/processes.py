"""Processes that stop cleanly: signals as an exception, and workers that end with the process that started them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 5.0
"""How long after a signal a process may take to close what it has open."""

POLL_SECONDS = 0.2
"""How often a worker looks whether the process that started it still lives."""

LOGGER = "enos"
"""Parent of the loggers of the project whose lines `enos --verbose` shows."""


class StoppedError(BaseException):
    """A signal asks this process to end. No `Exception`: only the command line handles it.

    Args:
        number: the signal, SIGINT or SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__("terminated" if number == signal.SIGTERM else "interrupted")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


@contextmanager
def stopping_on_signals(say: Callable[[StoppedError], object]) -> Iterator[None]:
    """SIGINT and SIGTERM raise `StoppedError` in the main thread, so that files, bars and workers are closed.

    Whatever else is raised after a signal is raised as `StoppedError`, for compiled code may turn it into another.
    Only the first signal counts: what it starts has to be finished. A signal that is ignored already, as in a
    background job of a shell script, stays ignored.

    Args:
        say: is called before the process is ended from another thread, which happens if the context is not left
            within `GRACE_SECONDS`: compiled code does not look at signals.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for installed in before:
            signal.signal(installed, signal.SIG_IGN)
        came.append(number)
        threading.excepthook = _say_nothing  # joblib's threads may find their work gone, which is what is wanted
        _raise_outside_of_numba(StoppedError(number), frame)

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN}
    with _watched(before, say):
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        except BaseException:
            if came:
                raise StoppedError(came[0]) from None
            raise
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is stop:  # else the process ends, and that must not be interrupted
                    signal.signal(number, handler)


def _say_nothing(arguments: threading.ExceptHookArgs) -> None:
    """Hides what a thread raises while the process is ending."""


def _raise_outside_of_numba(error: StoppedError, frame: FrameType | None) -> None:
    """Raises now, or at the next line of the code that called numba: inside, an exception can crash the process."""
    caller = None
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("numba."):
            caller = frame.f_back
        frame = frame.f_back
    if caller is None:
        raise error

    def trace(frame: FrameType, event: str, argument: object) -> None:
        sys.settrace(None)
        raise error

    caller.f_trace = trace
    sys.settrace(lambda frame, event, argument: None)  # without one, frames are not traced


@contextmanager
def _watched(numbers: Container[int], say: Callable[[StoppedError], object]) -> Iterator[None]:
    """Ends the process some time after one of these signals unless the context is left before."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    left = threading.Event()

    def watch() -> None:
        while (number := os.read(reading, 1)[0]) and number not in numbers:
            pass
        if number and not left.wait(GRACE_SECONDS):
            stopped = StoppedError(number)
            say(stopped)
            os._exit(stopped.exit_code)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # written to at once, whatever Python does
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.write(writing, b"\0")
        thread.join()
        os.close(reading)
        os.close(writing)


@contextmanager
def starting_workers() -> Iterator[None]:
    """Worker processes are started inside: neither a terminal's Ctrl-C nor modules in the working directory reach them.

    Signals to this process wait until the context is left, or workers that have just begun could not be ended. Python's
    process that removes what killed workers leave (the resource tracker) does so without a warning.
    """
    quiet = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"]))
    changed = {"PYTHONWARNINGS": quiet, "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    from multiprocessing import resource_tracker  # imported here, for most commands start no workers

    resource_tracker.ensure_running()  # its start would end the blocking
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # those that are started inherit it
    try:
        with _held(signal.SIGINT), _held(signal.SIGTERM):  # other threads block none
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _held(number: signal.Signals) -> Iterator[None]:
    """A signal that comes inside is sent again when the context is left."""
    if threading.current_thread() is not threading.main_thread():  # only that one may change handlers
        yield
        return
    came: list[int] = []
    handler = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(number, handler)
        if came:
            os.kill(os.getpid(), number)


def start_worker(parent: int, level: int = logging.NOTSET) -> None:
    """What a worker process calls first: from now on it ends when `parent` does, however that ends.

    Args:
        parent: id of the process that started this one.
        level: what the worker logs to standard error (see `log_to_stderr`); NOTSET for nothing.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if level:
        log_to_stderr(level)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def log_to_stderr(level: int) -> None:
    """Lets the loggers under `LOGGER` write to standard error, one line for each message of this level or above."""
    logger = logging.getLogger(LOGGER)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(level)


def log_level() -> int:
    """The level that `log_to_stderr` was given, for workers; NOTSET where it was not called."""
    return logging.getLogger(LOGGER).level

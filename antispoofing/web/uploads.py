"""Uploaded files: removed when they are old, or when there are too many of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def sweep(folder: Path, seconds: float, most_bytes: float) -> None:
    """Remove the files below a folder that are older; of the others the oldest, until what is left fits."""
    files = []
    for path in folder.rglob("*"):
        try:
            stat = path.lstat()
        except FileNotFoundError:  # moved meanwhile
            continue
        if not path.is_dir():
            files.append((stat.st_mtime, stat.st_size, path))
    kept, oldest = 0, time.time() - seconds
    for modified, size, path in sorted(files, reverse=True):
        kept += size
        if modified < oldest or kept > most_bytes:
            path.unlink(missing_ok=True)
    for path in sorted(folder.rglob("*/"), reverse=True):
        with suppress(OSError):  # not empty, or gone
            if path.lstat().st_mtime < oldest:
                path.rmdir()


@contextmanager
def swept(folder: Path, seconds: float, most_bytes: float, every: float = 10) -> Iterator[None]:
    """Sweep every so many seconds, until the end of the block."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(every):
            sweep(folder, seconds, most_bytes)

    thread = threading.Thread(target=work, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

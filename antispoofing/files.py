"""Files: checksums, what is there in place of them, and writing completely or not at all."""

from __future__ import annotations

import codecs
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from antispoofing.progress import bar
from antispoofing.text import printable

_BLOCK = 2**20  # how many bytes are read at once


def file_sha256(path: str | Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        with bar(what=f"reading {printable(Path(path).name)}", unit="B", total=size) as progress:
            while block := file.read(_BLOCK):
                digest.update(block)
                progress.update(len(block))
    return digest.hexdigest()


def in_its_place(path: str | Path) -> str:
    """Return in words what is there in place of a file that was not downloaded; "" if nothing is."""
    with open(path, "rb") as file:
        start = file.read(256).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the file: fetch it with git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page in place of the file, perhaps one before a download: download the file itself"
    return ""


def check_writable(folder: Path) -> None:
    """Make a folder, if need be, and check that files can be written there.

    Raises:
        OSError: If they cannot; it may name a file that does not matter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove the files of an earlier run, which must not stay beside new ones."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file that appears as `path` only when the `with` block ends.

    Neither an interrupt nor a full disk nor a power cut leaves half a file there. The file is written in a
    folder of its own, since safetensors writes under temporary names that cannot be predicted; whatever a
    killed process left there is removed.

    Yields:
        The path to write to.

    Raises:
        OSError: If it cannot be written; a file that was there before is unchanged.
    """
    folder = Path(f"{path}.part")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        temporary = folder / Path(path).name
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors leaves files that only their owner can read
        _to_disk(temporary, os.O_RDWR)
        temporary.replace(path)
        if os.name == "posix":  # elsewhere folders cannot be opened
            _to_disk(folder.parent, os.O_RDONLY)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _to_disk(path: Path, flags: int) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    finally:
        os.close(file)

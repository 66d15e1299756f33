"""Data sets as they are downloaded, zip or tar: unpacked once, beside the archive, and only what is safe.

An archive is a stranger's: nothing of it is written outside its own folder, no link or device is made, and
one that grows without end is given up. Only recordings and lists of labels are unpacked.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import logging
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO
from uuid import uuid4

from tqdm import tqdm

from antispoofing.errors import DataError
from data_utils import AUDIO_SUFFIXES

logger = logging.getLogger(__name__)

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
UNPACKED = AUDIO_SUFFIXES | {".csv", ".tsv", ".txt"}  # what of an archive is unpacked

# Speech hardly shrinks. What unpacks to this many times the archive's size is no data set, but a bomb;
# up to the free size anything goes, since silence and lists of labels do shrink.
MOST_GROWTH = 100
FREE_BYTES = 2**30
MOST_FILES = 5_000_000  # ASVspoof 5, the largest set, has one million
MOST_FOLDERS = 50  # that one file may lie in

_MARK = ".unpacked.json"  # in the folder: what it was unpacked from; hidden, so it is no recording
_BLOCK = 2**16  # bytes at once; no tar header is longer
_DECOMPRESSORS = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".tbz2": bz2.open,
    ".xz": lzma.open,
    ".txz": lzma.open,
    ".tar": open,
}
# What the libraries raise on archives that are damaged on purpose.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    ValueError,
)


def is_archive(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def extract(archive: Path, most_bytes: int | None = None, most_files: int | None = None) -> Path:
    """Unpack a zip or tar archive into `<its name>.extracted` beside it, unless that was done before.

    The folder appears when all is in it, or not at all.

    Args:
        most_bytes: that it may unpack to; None for MOST_GROWTH times its size, but at least FREE_BYTES.
        most_files: that it may hold; None for MOST_FILES.

    Returns:
        The folder.

    Raises:
        DataError: the archive is damaged, encrypted, names a place outside the folder, holds a link or a
            device, or unpacks to far more than a data set does; or the folder holds anything else.
        OSError: the folder cannot be written, or the disk is full.
    """
    folder = archive.with_name(f"{archive.name}.extracted")
    stat = archive.stat()
    origin = json.dumps({"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns})
    if folder.exists():
        if not (folder / _MARK).is_file():
            raise DataError(f"{folder} is in the way: {archive} would be unpacked there")
        if (folder / _MARK).read_text(encoding="utf-8") == origin:
            logger.info("%s was unpacked before, to %s", archive, folder)
            return folder
    part = archive.with_name(f"{folder.name}.part-{uuid4().hex[:8]}")  # another process may unpack it, too
    try:
        part.mkdir()
        limit = max(FREE_BYTES, MOST_GROWTH * stat.st_size) if most_bytes is None else most_bytes
        files = MOST_FILES if most_files is None else most_files
        count, left_out = _extract_into(part, archive, limit, files)
        if count == 0:
            raise DataError(f"{archive} holds no recordings")
        (part / _MARK).write_text(origin, encoding="utf-8")
        if folder.exists() and (folder / _MARK).read_text(encoding="utf-8") != origin:
            shutil.rmtree(folder)  # of an archive that has changed since
        if not folder.exists():
            part.rename(folder)
    except DataError:  # a ValueError, too
        raise
    except (*_DAMAGED, OSError) as error:
        # The libraries' own OSErrors have no number; EINVAL is a place before the beginning.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DataError(f"{archive} is damaged, or packed in an unknown way ({error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    others = f"; left out: {left_out}, neither recordings nor lists of labels" if left_out else ""
    logger.info("%s: %d files were unpacked to %s%s", archive, count, folder, others)
    return folder


def _extract_into(folder: Path, archive: Path, limit: int, most_files: int) -> tuple[int, int]:
    """Write the archive's files below a folder; how many, and how many were left out."""
    count = left_out = written = 0
    members = _zip_members(archive) if archive.suffix.lower() == ".zip" else _tar_members(archive)
    for name, file in tqdm(members, desc="unpacking", unit="file", disable=None):
        target = folder / _safe(name, archive)
        if count + left_out == most_files:
            raise DataError(f"{archive} holds more than {most_files} files: not a data set")
        if target.suffix.lower() not in UNPACKED or target.name.startswith("."):
            left_out += 1
            continue
        count += 1
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(target, "xb") as copy:
                while block := file.read(_BLOCK):
                    written += len(block)
                    if written > limit:
                        raise DataError(f"{archive} unpacks to more than {limit} bytes: not a data set")
                    copy.write(block)
        except FileExistsError:
            raise DataError(f"{archive} holds {name} twice") from None
    return count, left_out


def _safe(name: str, archive: Path) -> PurePosixPath:
    """A member's path below the folder; DataError for one that leads out of it."""
    path, windows = PurePosixPath(name.replace("\\", "/")), PureWindowsPath(name)
    if path.is_absolute() or windows.drive or ".." in path.parts or not path.parts or "\0" in name:
        raise DataError(f"{archive} is refused: {name!r} in it leads outside the folder")
    if len(path.parts) > MOST_FOLDERS:
        raise DataError(f"{archive} is refused: {name[:60]!r}... in it lies in too many folders")
    return path


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.is_dir():
                continue
            kind = info.external_attr >> 16 & 0o170000  # Unix file type, where a Unix wrote it
            if kind not in (0, 0o100000):
                raise DataError(f"{archive} is refused: {info.filename!r} in it is a link or a device")
            if info.flag_bits & 1:
                raise DataError(f"{archive} is encrypted: unpack it yourself, and name its folder")
            with opened.open(info) as file:
                yield info.filename, file


class _InBlocks:
    """A file that gives no more than a block at once: tarfile would read a header of any length whole."""

    def __init__(self, file: IO[bytes]):
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        if size > _BLOCK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._read(size)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with (
        _DECOMPRESSORS[archive.suffix.lower()](archive, "rb") as file,
        tarfile.open(fileobj=_InBlocks(file), mode="r:") as opened,
    ):
        reached = -1
        while member := opened.next():
            opened.members, opened.pax_headers = [], {}  # which would grow with every file
            if opened.offset <= reached:  # a negative size: it would never end
                raise tarfile.ReadError("it leads backwards")
            reached = opened.offset
            if member.isdir():
                continue
            if not member.isreg():
                raise DataError(f"{archive} is refused: {member.name!r} in it is a link or a device")
            with opened.extractfile(member) as content:
                yield member.name, content
        file.seek(opened.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile just stops there
            raise tarfile.ReadError("it ends too early")
        while block := file.read(_BLOCK):  # to the very end, where gzip and xz have their checksums
            if any(block):
                raise tarfile.ReadError("more follows its end")

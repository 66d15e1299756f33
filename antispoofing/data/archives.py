"""Archives of data sets, zip or tar: each is unpacked once, beside the archive, and only if that is safe.

Archives are not trusted: nothing is written outside an archive's own folder, links and devices are not
created, and an archive that unpacks to too much is refused. Only recordings and lists of labels are unpacked.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import logging
import lzma
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, cast
from uuid import uuid4

from antispoofing.errors import DataError
from antispoofing.files import in_its_place
from antispoofing.progress import bar
from antispoofing.text import counted
from data_utils import AUDIO_SUFFIXES

logger = logging.getLogger(__name__)

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
UNREAD = (
    ".rar",
    ".7z",
    ".z01",
    ".zipx",
    ".tzst",
    ".gz",
    ".bz2",
    ".xz",
    ".zst",
    ".lz4",
    ".iso",
)  # of other archives
# The files of an archive that are unpacked, by suffix and by name.
UNPACKED = AUDIO_SUFFIXES | {".csv", ".tsv", ".txt", ".jsonl"}
UNPACKED_NAMES = ("utt2lab", "utt2label", "wav.scp")

# Speech hardly compresses: an archive that unpacks to this many times its size is not a data set, but a bomb.
# Up to FREE_BYTES anything is allowed, since silence and lists of labels do compress.
MOST_GROWTH = 100
FREE_BYTES = 2**30
MOST_FILES = 5_000_000  # ASVspoof 5, the largest data set, has one million
MOST_FOLDERS = 50  # how deep a file may be nested

# A file in the folder, hidden from searches, that records which archive it came from.
_MARK = ".unpacked.json"
_BLOCK = 2**16  # how many bytes are read at once; no tar header is longer
# The exceptions that the libraries raise for archives that are damaged, by accident or on purpose.
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
    """Return whether a path is an archive, judging by its name."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def archives_in(archive: Path) -> list[str]:
    """Return the names of the archives in an archive that `extract` has unpacked."""
    return other_archives(name for name, _ in _members(archive))


def other_archives(names: Iterable[str]) -> list[str]:
    """Return which of the names of files are those of archives, whether these can be read or not."""
    return [
        name
        for name in names
        if (name.lower().endswith(SUFFIXES + UNREAD) or re.search(r"\.(zip|7z)\.\d+$", name.lower()))
        and "__MACOSX" not in name
    ]


def described(inner: Sequence[str]) -> str:
    """Return archives as text: their number, and the first few."""
    return f"{counted(len(inner), 'archive')} ({', '.join(inner[:3])}{', ...' if len(inner) > 3 else ''})"


def extract(archive: Path, most_bytes: int | None = None, most_files: int | None = None) -> Path:
    """Unpack a zip or tar archive into `<its name>.extracted` beside it, unless that was done before.

    The folder appears when it is complete, or not at all.

    Args:
        archive: The archive.
        most_bytes: How much it may unpack to; None for MOST_GROWTH times its size, but at least FREE_BYTES.
        most_files: How many files it may contain; None for MOST_FILES.

    Returns:
        The folder.

    Raises:
        DataError: If the archive is damaged or encrypted, names a place outside the folder, contains a link
            or a device, or is too large; or if the folder exists and did not come from an archive.
        OSError: If the folder cannot be written, or the disk is full.
    """
    folder = archive.with_name(f"{archive.name}.extracted")
    stat = archive.stat()
    origin = json.dumps({"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns})
    if folder.exists():
        if not (folder / _MARK).is_file():
            raise DataError(f"{folder} is in the way, since {archive} is to be unpacked there: move it away")
        if (folder / _MARK).read_text(encoding="utf-8") == origin:
            logger.info("%s was already unpacked into %s", archive, folder)
            return folder
    part = archive.with_name(f"{folder.name}.part-{uuid4().hex[:8]}")  # another process may unpack it as well
    try:
        part.mkdir()
        limit = max(FREE_BYTES, MOST_GROWTH * stat.st_size) if most_bytes is None else most_bytes
        files = MOST_FILES if most_files is None else most_files
        count, skipped = _extract_into(part, archive, limit, files)
        inner = other_archives(skipped)
        if count == 0 and inner:
            raise DataError(f"{archive} contains no recordings, but {described(inner)}, to be unpacked first")
        if count == 0:
            raise DataError(f"{archive} contains no recordings")
        (part / _MARK).write_text(origin, encoding="utf-8")
        if folder.exists() and (folder / _MARK).read_text(encoding="utf-8") != origin:
            shutil.rmtree(folder)  # the archive has changed since
        if not folder.exists():
            part.rename(folder)
    except DataError:  # it is a ValueError, and so would count as damage below
        raise
    except (*_DAMAGED, OSError) as error:
        # The libraries' own OSErrors have no number; EINVAL comes from seeking to before the beginning.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = in_its_place(archive) or f"damaged, or packed in an unsupported way ({error})"
        raise DataError(f"{archive} is {reason}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    others = f"; skipped {counted(len(skipped), 'file')} that cannot be used" if skipped else ""
    if inner:
        others += f", among them {described(inner)}"
    logger.info("unpacked %s of %s into %s%s", counted(count, "file"), archive, folder, others)
    return folder


def _extract_into(folder: Path, archive: Path, limit: int, most_files: int) -> tuple[int, list[str]]:
    """Write an archive's files below a folder; return how many were written, and the names of the others."""
    count = written = 0
    skipped: list[str] = []
    for name, file in bar(_members(archive), what="unpacking", unit="file"):
        target = folder / _safe(name, archive)
        if count + len(skipped) == most_files:
            raise DataError(f"{archive} contains more than {counted(most_files, 'file')}, which is too many")
        is_used = target.suffix.lower() in UNPACKED or target.name in UNPACKED_NAMES
        if not is_used or target.name.startswith("."):
            skipped.append(name)
            continue
        count += 1
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(target, "xb") as copy:
                while block := file.read(_BLOCK):
                    written += len(block)
                    if written > limit:
                        raise DataError(f"{archive} unpacks to more than {limit:,} bytes, which is too much")
                    copy.write(block)
        except FileExistsError:
            raise DataError(f"{archive} contains {name} twice") from None
    return count, skipped


def _safe(name: str, archive: Path) -> PurePosixPath:
    """Return a member's path below the folder; raise a DataError if it leads out of it."""
    path, windows = PurePosixPath(name.replace("\\", "/")), PureWindowsPath(name)
    if path.is_absolute() or windows.drive or ".." in path.parts or not path.parts or "\0" in name:
        raise DataError(f"{archive} is refused: {name!r} in it leads outside its folder")
    if len(path.parts) > MOST_FOLDERS:
        raise DataError(f"{archive} is refused: {name[:60]!r}... in it is nested too deeply")
    return path


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the names and contents of an archive's files."""
    return _zip_members(archive) if archive.suffix.lower() == ".zip" else _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.is_dir():
                continue
            kind = info.external_attr >> 16 & 0o170000  # the Unix file type, if a Unix system wrote it
            if kind not in (0, 0o100000):
                raise DataError(f"{archive} is refused: {info.filename!r} in it is a link or a device")
            if info.flag_bits & 1:
                raise DataError(f"{archive} is encrypted: unpack it yourself, and name its folder")
            with opened.open(info) as file:
                yield info.filename, file


class _InBlocks:
    """A file that returns no more than a block at once: tarfile would read a header of any length whole."""

    def __init__(self, file: BufferedIOBase):
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        if size > _BLOCK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._read(size)


def _decompressed(archive: Path) -> BufferedIOBase:
    """Open a tar archive, decompressed as its suffix says."""
    suffix = archive.suffix.lower()
    if suffix in (".gz", ".tgz"):
        return gzip.open(archive)
    if suffix in (".bz2", ".tbz2"):
        return bz2.open(archive)
    if suffix in (".xz", ".txz"):
        return lzma.open(archive)
    return open(archive, "rb")


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with (
        _decompressed(archive) as file,
        # The stubs ask for methods that reading does not use.
        tarfile.open(fileobj=cast("IO[bytes]", _InBlocks(file)), mode="r:") as opened,
    ):
        reached = -1
        while member := opened.next():
            # tarfile would let both of these grow with every file.
            opened.members = []  # type: ignore[attr-defined]  # missing in the stubs
            opened.pax_headers = {}
            if opened.offset <= reached:  # a negative size, with which this would never end
                raise tarfile.ReadError("a member leads backwards")
            reached = opened.offset
            if member.isdir():
                continue
            if not member.isreg():
                raise DataError(f"{archive} is refused: {member.name!r} in it is a link or a device")
            content = opened.extractfile(member)
            assert content is not None  # since the member is a regular file
            with content:
                yield member.name, content
        file.seek(opened.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile itself stops without an error
            raise tarfile.ReadError("it ends too early")
        while block := file.read(_BLOCK):  # up to the very end, since gzip and xz keep their checksums there
            if any(block):
                raise tarfile.ReadError("there are data after its end")

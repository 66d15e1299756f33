"""Fetch what the project needs: the data set, the published detectors, any detector on the Hugging Face Hub.

A file under way is called `.part`. It outlives a failure, and the next run goes on from it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gdown
import httpx2
from huggingface_hub import HfApi
from huggingface_hub import errors as hub_errors
from tqdm import tqdm

from antispoofing.data import archives
from antispoofing.errors import DownloadError
from antispoofing.files import sha256_of
from antispoofing.published import DRIVE, HUB, HUB_FORM, HUB_SPEC, PUBLISHED, PublishedFile

logger = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte until a connection counts as lost
TRIES = 6  # in a row that bring nothing new
BACK_OFF = 1.0  # seconds after the first of these, doubled after each other

_CONTENT_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-\d+|\*)/(?P<total>\d+|\*)")


class _Interrupted(Exception):
    """A try that failed where another may not."""


def get(name: str, folder: Path = Path()) -> Path:
    """Fetch into a folder what has a name in PUBLISHED, or one file of the Hub (see `hub_file`).

    Raises:
        DownloadError: it cannot be had, is not the right one, or another file of its name is there.
    """
    if name.startswith(HUB):
        source = hub_file(name)
        target = folder / source.name
        with _told_in_one_line(target):
            if not _is_there(target, sha256_of(source), None):
                folder.mkdir(parents=True, exist_ok=True)
                _publish(shutil.copyfile(source, _part(target)), target, None, None)
        return target
    known = PUBLISHED[name]
    if known.source == DRIVE:
        return _fetch_from_drive(known, folder / known.name)
    return fetch(known.source, folder / known.name, sha256=known.sha256, size=known.size)


def fake_or_real(folder: Path = Path()) -> Path:
    """Fetch Fake-or-Real's two-second clips into a folder and extract them; where they then are."""
    return archives.extract(get("for-2sec", folder))


def resolve(checkpoint: str | Path) -> Path:
    """The file, fetched, for a `hub:` specification; anything else is a path, and stays as it is."""
    text = Path(checkpoint).as_posix()  # on Windows, a Path has turned its slash round
    return hub_file(text) if text.startswith(HUB) else Path(checkpoint)


def fetch(url: str, target: Path, *, sha256: str | None = None, size: int | None = None) -> Path:
    """Download a file, going on where an earlier try or run broke off.

    A file that is there already and is right is not fetched again; one that is not right stays as it is.

    Args:
        url: http or https.
        target: what to call it; its folder is made where it is not there.
        sha256: in hexadecimal, or how it begins; the whole is then logged.
        size: in bytes.

    Raises:
        DownloadError: it cannot be fetched or written, is not what it should be, or something else is there.
    """
    part = _part(target)
    with _told_in_one_line(target):
        if not _is_there(target, sha256, size):
            target.parent.mkdir(parents=True, exist_ok=True)
            _download(url, part, size)
            _publish(part, target, sha256, size)
    return target


def _download(url: str, part: Path, size: int | None) -> None:
    """Make `part` whole, in as many tries as bring it further."""
    furthest = failures = 0
    with httpx2.Client(follow_redirects=True, timeout=TIMEOUT) as client:
        while True:
            try:
                return _try(client, url, part, size)
            except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:  # or a redirect to one
                raise DownloadError(f"{url}: {_one_line(error)}") from error
            except (_Interrupted, httpx2.TransportError) as error:
                reached, _ = _begun(url, part)
                failures = 1 if reached > furthest else failures + 1
                furthest = max(furthest, reached)
                trouble = f"{url}: {_one_line(error)}"
                if failures == TRIES:
                    kept = f"; {reached:,} bytes are kept, to go on from" if reached else ""
                    raise DownloadError(trouble + kept) from error
            wait = BACK_OFF * 2 ** (failures - 1)
            logger.warning("%s; trying again in %g s", trouble, wait)
            time.sleep(wait)


def _try(client: httpx2.Client, url: str, part: Path, size: int | None) -> None:
    """One request for what is missing of `part`; returns when nothing is.

    Raises:
        _Interrupted, httpx2.TransportError: another try may bring more.
        DownloadError: none would.
    """
    offset, origin = _begun(url, part)
    if offset and offset == size:
        return
    headers = {"Accept-Encoding": "identity"}  # what is compressed on the way cannot be resumed
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if origin["validator"]:  # if the file is another by now, the whole of it comes
            headers["If-Range"] = origin["validator"]
    with client.stream("GET", url, headers=headers) as response:
        start, total = _place(response, part, offset, origin)
        if size is not None and total not in (None, size):
            raise DownloadError(f"{url} has {total:,} bytes, not {size:,}")
        if start and start == total:
            return
        expected, reached = size if total is None else total, start
        with _progress_bar(part.stem, expected, start) as bar, part.open("r+b" if start else "wb") as file:
            if not start:  # now that the old content is gone, and cannot be taken for the new
                origin = {"url": url, "validator": _validator(response), "total": total}
                _origin(part).write_text(json.dumps(origin))
            file.seek(start)
            for chunk in response.iter_raw():
                reached += len(chunk)
                if expected is not None and reached > expected:
                    _discard(part)
                    raise DownloadError(f"{url} sends more than the {expected:,} bytes that it should have")
                file.write(chunk)
                bar.update(len(chunk))
    if expected is not None and reached < expected:
        raise _Interrupted(f"the connection ended after {reached:,} of {expected:,} bytes")


def _place(response: httpx2.Response, part: Path, offset: int, origin: dict) -> tuple[int, int | None]:
    """Where in the file the body begins, and the file's length where it is told.

    Raises:
        _Interrupted: the server is in trouble, or does not go on from `part`, which is then removed.
        DownloadError: the server refuses.
    """
    status = response.status_code
    if status == 200:
        length = response.headers.get("Content-Length")
        return 0, None if length is None else int(length)
    if offset and status in (206, 416):  # the rest; there is no rest
        told = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if told:
            total = origin["total"] if told["total"] == "*" else int(told["total"])
            first = total if status == 416 else int(told["first"] or -1)
            same = _validator(response) in ("", origin["validator"]) and origin["total"] in (None, total)
            if same and first == offset:
                return offset, total
        _discard(part)
        raise _Interrupted("the server does not go on where the connection ended: from the beginning")
    answer = f"the server answers {status} {response.reason_phrase}"
    raise _Interrupted(answer) if status >= 500 else DownloadError(f"{response.url}: {answer}")


def _begun(url: str, part: Path) -> tuple[int, dict]:
    """How many bytes of a URL's content are in `part`, and of which content: its validator and length."""
    try:
        origin = json.loads(_origin(part).read_text())
        return (part.stat().st_size, origin) if origin["url"] == url else (0, {})
    except (FileNotFoundError, ValueError):  # the latter: an interrupt while it was written
        return 0, {}


def _validator(response: httpx2.Response) -> str:
    """What the server calls this content, for If-Range, which takes no weak ETag; "" if nothing."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    return validator if validator.isascii() else ""  # else it cannot be sent back


def _fetch_from_drive(known: PublishedFile, target: Path) -> Path:
    """As `fetch`, of a known file that is found by its name in a Google Drive folder."""
    with _told_in_one_line(f"{target}, from {known.source}"):
        if _is_there(target, known.sha256, known.size):
            return target
        listed = gdown.download_folder(url=known.source, skip_download=True, quiet=True, timeout=TIMEOUT)
        ids = {Path(file.path).name: file.id for file in listed}
        if known.name not in ids:
            raise DownloadError(f"{known.source} has no {known.name}, only {', '.join(sorted(ids))}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _progress_bar(known.name, known.size) as bar:
            gdown.download(
                id=ids[known.name],
                output=str(_part(target)),
                quiet=True,
                resume=True,
                progress=lambda done, total: bar.update(done - bar.n),
                timeout=TIMEOUT,
                retries=TRIES,
            )
        _publish(_part(target), target, known.sha256, known.size)
    return target


def hub_file(spec: str) -> Path:
    """Fetch a file of a model repository on the Hugging Face Hub into Hugging Face's cache.

    Without a network, what is in the cache will do.

    Args:
        spec: hub:<owner/repo>[@revision][:file]; without a file, the only .safetensors or .pth.

    Raises:
        DownloadError: there is no such thing, it cannot be had, or it is not what the Hub or PUBLISHED says.
    """
    parts = HUB_SPEC.fullmatch(spec)
    if not parts:
        raise DownloadError(f"{spec}: not {HUB_FORM}")
    repo, revision, name = parts["repo"], parts["revision"], parts["file"]
    api, sums = HfApi(), {}
    with _told_in_one_line(spec):
        try:
            files = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT).siblings
            sums = {file.rfilename: file.lfs and file.lfs.sha256 for file in files}
            name = name or _only_detector(sums)
            if name not in sums:
                raise DownloadError(f"{repo} has no {name}, only {', '.join(sums)}")
            path = Path(api.hf_hub_download(repo, name, revision=revision))
        except hub_errors.RepositoryNotFoundError as error:
            raise DownloadError(f"{spec}: there is no repository {repo}, or none for you") from error
        except hub_errors.RevisionNotFoundError as error:
            raise DownloadError(f"{spec}: {repo} has no revision {revision}") from error
        except (hub_errors.OfflineModeIsEnabled, httpx2.HTTPError) as error:
            if not name:
                raise
            try:
                path = Path(api.hf_hub_download(repo, name, revision=revision, local_files_only=True))
            except hub_errors.LocalEntryNotFoundError:
                raise error from None  # it says more
        except (ValueError, RuntimeError) as error:  # ours, of ill-formed names, of no JSON; hf_xet's
            raise DownloadError(f"{spec}: {_one_line(error)}") from error
        _check_hub_file(path, sums.get(name))
    return path


def _only_detector(files: Iterable[str]) -> str:
    detectors = [name for name in files if name.endswith((".safetensors", ".pth"))]
    if len(detectors) != 1:
        there = f"There are {', '.join(detectors)}" if detectors else "No .safetensors or .pth is there"
        raise DownloadError(f"which file? {there}")
    return detectors[0]


def _check_hub_file(path: Path, sha256: str | None) -> None:
    """Check against what the Hub tells, and PUBLISHED where name and size are there. Raises DownloadError."""
    known = PUBLISHED.get(path.name)
    prefix = known.sha256 if known and known.size == path.stat().st_size else None
    digest = sha256_of(path)
    for expected in filter(None, (sha256, prefix)):
        if not digest.startswith(expected):
            raise DownloadError(
                f"{path.resolve()} has the sha256 {digest}, not {expected}: remove it and fetch it again"
            )


def _part(target: Path) -> Path:
    return Path(f"{target}.part")


def _origin(part: Path) -> Path:
    """The file that tells what `part` is the beginning of."""
    return Path(f"{part}.json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def _is_there(target: Path, sha256: str | None, size: int | None) -> bool:
    """Whether the file is there, and right. Raises DownloadError if another one is."""
    if target.exists() and (fault := _fault(target, sha256, size)):
        raise DownloadError(f"{target} is there already, but {fault}: it stays as it is; move it away")
    return target.exists()


def _publish(part: Path, target: Path, sha256: str | None, size: int | None) -> None:
    """Give a whole file its name. Raises DownloadError, and removes it, if it is not the right one."""
    if fault := _fault(part, sha256, size):
        _discard(part)
        raise DownloadError(f"{target}: what came {fault}, and is deleted")
    part.replace(target)
    _discard(part)


def _fault(path: Path, sha256: str | None, size: int | None) -> str:
    """What is wrong with a file, "" if nothing; logs the whole sha256 if only its beginning is given."""
    if not path.is_file():
        return "is not a file"
    if size is not None and path.stat().st_size != size:
        return f"has {path.stat().st_size:,} bytes, not {size:,}"
    digest = sha256_of(path) if sha256 else ""
    if sha256 and not digest.startswith(sha256.lower()):
        return f"has the sha256 {digest}, not {sha256}"
    if sha256 and len(sha256) < len(digest):
        logger.info("%s has the sha256 %s", path.name.removesuffix(".part"), digest)
    return ""


def _progress_bar(name: str, total: int | None, initial: int = 0) -> tqdm:
    return tqdm(desc=name, total=total, initial=initial, unit="B", unit_scale=True, disable=None)


@contextmanager
def _told_in_one_line(what: str | Path) -> Iterator[None]:
    """Raises what a disk, a network or a library says as a DownloadError that names `what`."""
    try:
        yield
    except (OSError, httpx2.HTTPError, gdown.DownloadError) as error:
        raise DownloadError(f"{what}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

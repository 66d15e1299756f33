"""Fetch what the project needs: the data set, the published detectors, any detector on the Hugging Face Hub.

What has come of a file is in a folder beside it, called `.part`. It outlives a failure, and the next run goes
on from it.
"""

from __future__ import annotations

import logging
import shutil
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
from antispoofing.files import file_sha256
from antispoofing.published import DRIVE, DRIVE_FILE, HUB, HUB_FORM, HUB_SPEC, PUBLISHED

logger = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte until a connection counts as lost
RETRIES = 6  # of a connection that is lost or does not come about: after half a minute all have failed


def get(name: str, folder: Path = Path()) -> Path:
    """Fetch into a folder what has a name in PUBLISHED, or one file of the Hub (see `hub_file`).

    Raises:
        DownloadError: it cannot be had, is not the right one, or another file of its name is there.
    """
    if name.startswith(HUB):
        source = hub_file(name)
        target = folder / source.name
        with _errors_in_one_line(target):
            if not _is_there(target, file_sha256(source), None):
                _publish(shutil.copyfile(source, _begin(target)), target, None, None)
        return target
    known = PUBLISHED[name]
    return fetch(known.source, folder / known.name, sha256=known.sha256, size=known.size)


def fake_or_real(folder: Path = Path()) -> Path:
    """Fetch Fake-or-Real's two-second clips into a folder and extract them; return where they then are."""
    return archives.extract(get("for-2sec", folder))


def resolve(checkpoint: str | Path) -> Path:
    """Fetch the file of a `hub:` specification and return its path; anything else is a path already."""
    text = Path(checkpoint).as_posix()  # on Windows, a Path has turned its slash round
    return hub_file(text) if text.startswith(HUB) else Path(checkpoint)


def fetch(url: str, target: Path, *, sha256: str | None = None, size: int | None = None) -> Path:
    """Download a file, going on where an earlier try or run broke off.

    A file that is there already and is right is not fetched again; one that is not right stays as it is.

    Args:
        url: http or https; or DRIVE, for the file of the target's name in that folder.
        target: what to call it; its folder is made where it is not there.
        sha256: in hexadecimal, or how it begins; the whole is then logged.
        size: in bytes.

    Raises:
        DownloadError: it cannot be fetched or written, is not what it should be, or something else is there.
    """
    what = f"{target}, from {url}"
    with _errors_in_one_line(what):
        if not _is_there(target, sha256, size):
            location = _on_drive(target.name) if url == DRIVE else url
            whole = _begin(target)
            try:
                _download(location, whole, size)
            except DownloadError:
                _discard(whole)
                raise
            except (OSError, gdown.DownloadError) as error:
                # gdown names an option of its own command to go on with, and ours needs none.
                said = _one_line(error).partition(". The received bytes are kept")[0]
                raise DownloadError(f"{what}: {said}{_kept(whole)}") from error
            _publish(whole, target, sha256, size)
    return target


def _on_drive(name: str) -> str:
    """Return the URL of a file in the Google Drive folder DRIVE. Raises DownloadError if it is not there."""
    listed = gdown.download_folder(
        url=DRIVE, skip_download=True, quiet=True, timeout=TIMEOUT, use_cookies=False
    )
    ids = {Path(file.path).name: file.id for file in listed}
    if name not in ids:
        raise DownloadError(f"{DRIVE} has no {name}, only {', '.join(sorted(ids))}")
    return DRIVE_FILE + ids[name]


def _download(url: str, whole: Path, size: int | None) -> None:
    """Download a file under the name `whole`; until it is whole, gdown keeps what has come beside it.

    Raises:
        DownloadError: it has another size, or no later run can go on from what has come.
        gdown.DownloadError, OSError: it cannot be had or written (the errors of requests are OSErrors).
    """
    with tqdm(desc=whole.name, total=size, unit="B", unit_scale=True, disable=None) as bar:

        def check_and_show(done: int, total: int | None) -> None:
            if size is not None and (total not in (None, size) or done > size):
                raise DownloadError(f"{url} sends {max(done, total or 0):,} bytes, not {size:,}")
            bar.total = total
            bar.update(done - bar.n)

        for afresh in (False, False, True):
            if afresh:
                _discard(whole)
                whole.parent.mkdir()
            try:
                gdown.download(
                    url=url,
                    output=str(whole),
                    quiet=True,
                    use_cookies=False,
                    resume=True,
                    progress=check_and_show,
                    timeout=TIMEOUT,
                    retries=RETRIES,
                )
                return
            except gdown.DownloadError as error:
                # The server does not go on from what has come: it has no ranges, or another file by now. If
                # it is only in trouble, the second try says so, and nothing is lost.
                if "byte range" not in str(error):
                    raise
    raise DownloadError(f"{url}: the connection breaks off, and the server does not go on from there")


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
    with _errors_in_one_line(spec):
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
    digest = file_sha256(path)
    for expected in filter(None, (sha256, prefix)):
        if not digest.startswith(expected):
            raise DownloadError(
                f"{path.resolve()} has the sha256 {digest}, not {expected}: remove it and fetch it again"
            )


def _begin(target: Path) -> Path:
    """Make a folder for what comes of a file; return what to call the file until it is checked."""
    folder = Path(f"{target}.part")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / target.name


def _discard(whole: Path) -> None:
    shutil.rmtree(whole.parent)


def _kept(whole: Path) -> str:
    """Tell how much has come of a file; where that is nothing, remove its folder instead."""
    kept = sum(path.stat().st_size for path in whole.parent.iterdir())
    if kept:
        return f"; {kept:,} bytes are kept, and the same command goes on from there"
    _discard(whole)
    return ""


def _is_there(target: Path, sha256: str | None, size: int | None) -> bool:
    """Tell whether the file is there, and right. Raises DownloadError if another one is."""
    if target.exists() and (fault := _fault(target, sha256, size)):
        raise DownloadError(f"{target} is there already, but {fault}: it stays as it is; move it away")
    return target.exists()


def _publish(whole: Path, target: Path, sha256: str | None, size: int | None) -> None:
    """Give a whole file its name. Raises DownloadError, and removes it, if it is not the right one."""
    if fault := _fault(whole, sha256, size):
        _discard(whole)
        raise DownloadError(f"{target}: what came {fault}, and is deleted")
    whole.chmod(whole.parent.stat().st_mode & 0o666)  # gdown leaves files that only their owner can read
    whole.replace(target)
    _discard(whole)


def _fault(path: Path, sha256: str | None, size: int | None) -> str:
    """Return what is wrong with a file, or ""; log the whole sha256 if only its beginning is given."""
    if not path.is_file():
        return "is not a file"
    if size is not None and path.stat().st_size != size:
        return f"has {path.stat().st_size:,} bytes, not {size:,}"
    digest = file_sha256(path) if sha256 else ""
    if sha256 and not digest.startswith(sha256.lower()):
        return f"has the sha256 {digest}, not {sha256}"
    if sha256 and len(sha256) < len(digest):
        logger.info("%s has the sha256 %s", path.name, digest)
    return ""


@contextmanager
def _errors_in_one_line(what: str | Path) -> Iterator[None]:
    """Raise what a disk, a network or a library says as a DownloadError that names `what`."""
    try:
        yield
    except (OSError, httpx2.HTTPError, gdown.DownloadError) as error:
        raise DownloadError(f"{what}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

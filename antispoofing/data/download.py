"""Downloads: the data set, the published detectors, and any detector on the Hugging Face Hub.

An unfinished download is kept in a folder `<name>.part` beside its target, and the next run resumes from it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gdown
import httpx2
from huggingface_hub import HfApi
from huggingface_hub import errors as hub_errors

from antispoofing.data import archives
from antispoofing.errors import DownloadError
from antispoofing.files import file_sha256
from antispoofing.progress import bar
from antispoofing.published import (
    CONFIG,
    DRIVE,
    DRIVE_FILE,
    HUB,
    HUB_FORM,
    HUB_SPEC,
    PREPROCESSOR,
    PUBLISHED,
    WEIGHTS,
)

logger = logging.getLogger(__name__)

TIMEOUT = 30.0  # after so many seconds without data, a connection counts as lost
RETRIES = 6  # how often a connection that is lost or refused is tried again, within half a minute


def get(name: str, folder: Path = Path()) -> Path:
    """Download a file, or a model's folder, into a folder and return its path.

    Args:
        name: A name in PUBLISHED, or a specification for `resolve`.
        folder: The folder.

    Raises:
        DownloadError: If it cannot be downloaded, is not the right file, or another file has its name.
    """
    if name.startswith(HUB):
        sources = hub_files(name)
        if len(sources) == 1:
            return _copied(sources[0], folder / sources[0].name)
        target = folder / HUB_SPEC.fullmatch(name)["repo"].rpartition("/")[2]  # type: ignore[index]
        for source in sources:
            _copied(source, target / source.name)
        return target
    known = PUBLISHED[name]
    return fetch(known.source, folder / known.name, sha256=known.sha256, size=known.size)


def _copied(source: Path, target: Path) -> Path:
    with _errors_in_one_line(target):
        if not _is_there(target, file_sha256(source), None):
            _publish(shutil.copyfile(source, _begin(target)), target, None, None)
    return target


def fake_or_real(folder: Path = Path()) -> Path:
    """Download Fake-or-Real's two-second clips into a folder, unpack them, and return where they are."""
    return archives.extract(get("for-2sec", folder))


def resolve(checkpoint: str | Path) -> Path:
    """Return the path of a detector's file or folder; for a `hub:` specification, download it first.

    Raises:
        DownloadError: As in `hub_files`.
    """
    text = Path(checkpoint).as_posix()  # on Windows, a Path has replaced the specification's slash
    if not text.startswith(HUB):
        return Path(checkpoint)
    paths = hub_files(text)
    return paths[0] if len(paths) == 1 else paths[0].parent


def fetch(url: str, target: Path, *, sha256: str | None = None, size: int | None = None) -> Path:
    """Download a file, resuming where an earlier try or run stopped.

    If the right file is already there, it is not downloaded again; a wrong one is left as it is.

    Args:
        url: An http or https URL; or DRIVE, for the file in that folder that has the target's name.
        target: Where to put the file; its folder is created if necessary.
        sha256: The expected SHA-256 in hexadecimal, or its beginning; then the whole is logged.
        size: The expected size in bytes.

    Returns:
        The target.

    Raises:
        DownloadError: If the file cannot be downloaded or written, is not the expected one, or if something
            else is already there.
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
                # gdown goes on to recommend an option of its own command; ours resumes without one.
                reason = _one_line(error).partition(". The received bytes are kept")[0]
                raise DownloadError(f"{what}: {reason}{_kept(whole)}") from error
            _publish(whole, target, sha256, size)
    return target


def _on_drive(name: str) -> str:
    """Return the URL of a file in the Google Drive folder DRIVE; raise a DownloadError if it is not there."""
    listed = gdown.download_folder(
        url=DRIVE, skip_download=True, quiet=True, timeout=TIMEOUT, use_cookies=False
    )
    # With skip_download, the list has no str, which would be the path of a downloaded file.
    ids = {Path(file.path).name: file.id for file in listed if not isinstance(file, str)}
    if name not in ids:
        raise DownloadError(f"{DRIVE} has no {name}, only {', '.join(sorted(ids))}")
    return DRIVE_FILE + ids[name]


def _download(url: str, whole: Path, size: int | None) -> None:
    """Download a file to the path `whole`; gdown keeps the unfinished file beside that.

    Raises:
        DownloadError: If the file has another size, or if the download cannot be resumed.
        gdown.DownloadError: If the server or the connection fails.
        OSError: If the file cannot be written, or the connection fails (the errors of requests are OSErrors).
    """
    with bar(what=whole.name, unit="B", total=size) as shown:

        def check_and_show(done: int, total: int | None) -> None:
            if size is not None and (total not in (None, size) or done > size):
                raise DownloadError(f"{url} sends {max(done, total or 0):,} bytes, not {size:,}")
            shown.total = total
            shown.update(done - shown.n)

        for start_over in (False, False, True):
            if start_over:
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
                # The server cannot resume: it does not support ranges, or has another file by now. If it is
                # only failing for the moment, the second try says so, and nothing is lost.
                if "byte range" not in str(error):
                    raise
    raise DownloadError(f"{url}: the connection broke, and the server cannot resume the download: try again")


def hub_files(spec: str) -> list[Path]:
    """Download a detector from a model repository on the Hugging Face Hub into Hugging Face's cache.

    Without a network connection, what is in the cache is used.

    Args:
        spec: hub:<owner/repo>[@revision][:file]. Without a file: if the repository is a model of transformers
            that says how clips are prepared, its folder; else its only detector file.

    Returns:
        The paths in the cache: of one file, or of the files of a folder.

    Raises:
        DownloadError: If there is no such file, it cannot be downloaded, or its checksum is not the one that
            the Hub or PUBLISHED gives.
    """
    parts = HUB_SPEC.fullmatch(spec)
    if not parts:
        raise DownloadError(f"{spec}: not of the form {HUB_FORM}")
    repo, revision = parts["repo"], parts["revision"]
    names = [parts["file"]] if parts["file"] else []
    api = HfApi()
    checksums: dict[str, str | None] = {}
    with _errors_in_one_line(spec):
        try:
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
            for file in info.siblings or []:
                checksums[file.rfilename] = file.lfs.sha256 if file.lfs else None
            names = names or _folder_files(checksums) or [_only_detector(checksums)]
            if names[0] not in checksums:
                raise DownloadError(f"{repo} has no {names[0]}, only {', '.join(checksums)}")
            paths = {name: Path(api.hf_hub_download(repo, name, revision=revision)) for name in names}
        except hub_errors.RepositoryNotFoundError as error:
            raise DownloadError(
                f"{spec}: there is no repository {repo}, or you have no access to it"
            ) from error
        except hub_errors.RevisionNotFoundError as error:
            raise DownloadError(f"{spec}: {repo} has no revision {revision}") from error
        except (hub_errors.OfflineModeIsEnabled, httpx2.HTTPError):
            paths = _cached(api, repo, revision, names)
            if not paths:
                raise  # the network's error says more than the cache's
        except (ValueError, RuntimeError) as error:  # DownloadErrors too, and those of hf_xet and bad JSON
            raise DownloadError(f"{spec}: {_one_line(error)}") from error
        for name, path in paths.items():
            _check_hub_file(path, checksums.get(name))
    return list(paths.values())


def _cached(api: HfApi, repo: str, revision: str | None, names: list[str]) -> dict[str, Path]:
    """Return the paths in the cache of these files, or of what is there if none is named; {} if one lacks."""
    try:
        if not names:
            folder = Path(api.snapshot_download(repo, revision=revision, local_files_only=True))
            found = [path.name for path in folder.iterdir()]
            names = _folder_files(found) or [_only_detector(found)]
        return {
            name: Path(api.hf_hub_download(repo, name, revision=revision, local_files_only=True))
            for name in names
        }
    except (hub_errors.LocalEntryNotFoundError, DownloadError):
        return {}


def _folder_files(files: Collection[str]) -> list[str]:
    """Return the files that a model of transformers consists of; none if this is no such model."""
    if not {CONFIG, PREPROCESSOR} <= set(files):
        return []
    weights = next((name for name in WEIGHTS if name in files), None)
    if weights is None and any(f"{name}.index.json" in files for name in WEIGHTS):
        raise DownloadError("its weights are in several files, which cannot be read")
    return [CONFIG, PREPROCESSOR, weights] if weights else []


def _only_detector(files: Iterable[str]) -> str:
    detectors = [name for name in files if name.endswith((".safetensors", ".pth"))]
    if len(detectors) != 1:
        if detectors:
            raise DownloadError(f"it has several detectors, so name the file: {', '.join(detectors)}")
        raise DownloadError("it has no .safetensors or .pth file, so name the file")
    return detectors[0]


def _check_hub_file(path: Path, sha256: str | None) -> None:
    """Check a file's SHA-256 against the Hub's, and against PUBLISHED if name and size match a file there."""
    known = PUBLISHED.get(path.name)
    prefix = known.sha256 if known and known.size == path.stat().st_size else None
    digest = file_sha256(path)
    for expected in filter(None, (sha256, prefix)):
        if not digest.startswith(expected):
            raise DownloadError(
                f"{path.resolve()} has the sha256 {digest}, not {expected}: remove it and fetch it again"
            )


def _begin(target: Path) -> Path:
    """Create the folder of an unfinished download; return what to call the file until it is checked."""
    folder = Path(f"{target}.part")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / target.name


def _discard(whole: Path) -> None:
    shutil.rmtree(whole.parent)


def _kept(whole: Path) -> str:
    """Return how much of a file has been kept, for the error message; if nothing, remove its folder."""
    kept = sum(path.stat().st_size for path in whole.parent.iterdir())
    if kept:
        return f"; {kept:,} bytes are kept: run the same command to resume"
    _discard(whole)
    return ""


def _is_there(target: Path, sha256: str | None, size: int | None) -> bool:
    """Return whether the right file is there; raise a DownloadError if another one is."""
    if target.exists() and (fault := _fault(target, sha256, size)):
        raise DownloadError(f"{target} already exists, but {fault}; it was left as it is: move it away first")
    return target.exists()


def _publish(whole: Path, target: Path, sha256: str | None, size: int | None) -> None:
    """Give a finished download its name; if it is not the right file, delete it and raise a DownloadError."""
    if fault := _fault(whole, sha256, size):
        _discard(whole)
        raise DownloadError(f"{target}: the downloaded file {fault}, and was deleted")
    whole.chmod(whole.parent.stat().st_mode & 0o666)  # gdown makes files that only their owner can read
    whole.replace(target)
    _discard(whole)


def _fault(path: Path, sha256: str | None, size: int | None) -> str:
    """Return what is wrong with a file, or ""; log its whole SHA-256 if only the beginning is given."""
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
    """Raise the errors of disk, network and libraries as DownloadErrors of one line that name `what`."""
    try:
        yield
    except (OSError, httpx2.HTTPError, gdown.DownloadError) as error:
        raise DownloadError(f"{what}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

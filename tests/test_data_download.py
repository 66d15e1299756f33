"""Downloads: connections break, servers fail and lie, and only the right file gets its name."""

import hashlib
import inspect
import io
import itertools
import json
import random
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gdown
import huggingface_hub
import pytest
from gdown.download import GoogleDriveFileToDownload
from helpers import SHORT_CLIPS, copy_samples, recording

import evaluate_custom
import evaluate_custom_for
import fine_tune_for
from antispoofing import project, published
from antispoofing.commands import download as command
from antispoofing.commands import tasks
from antispoofing.data import download
from antispoofing.data.download import fake_or_real, fetch, get, resolve
from antispoofing.data.layouts import SPLITS
from antispoofing.data.recordings import find_splits
from antispoofing.errors import DownloadError
from antispoofing.published import HUB_FORM, PUBLISHED, PublishedFile
from model import Detector

CONTENT = random.Random(0).randbytes(2_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CHUNK = 2**19  # gdown writes so much at once: when a connection breaks, the last chunk is lost


class Server(ThreadingHTTPServer):
    """A server that gives each request the next of `answers`, and the whole file when none are left."""

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.content, self.answers, self.paths, self.ranges = CONTENT, [], [], []
        self.over = threading.Event()  # stalled answers wait for it

    def handle_error(self, *args):
        if not isinstance(sys.exception(), ConnectionError):  # clients may hang up
            super().handle_error(*args)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Log nothing."""

    def do_GET(self):
        self.server.paths.append(self.path)
        self.server.ranges.append(self.headers.get("Range", "all"))
        answer = self.server.answers.pop(0) if self.server.answers else send
        answer(self)

    def head(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def send(handler, stop=None, stall=False, ranges=True, length=None, shift=0, total=None):
    """Send the requested part of the content, as a server should, except for one fault.

    Args:
        handler: The request's handler.
        stop: Where in the file the connection ends.
        stall: Whether it stays open there, without sending more.
        ranges: Whether Range is honoured.
        length: The Content-Length, whatever is sent; 0 for none, so that the connection's end is the file's.
        shift: How many bytes too late the part begins.
        total: The size of the file that Content-Range claims.
    """
    content, about = handler.server.content, {}
    asked = handler.headers.get("Range") if ranges else None
    start = int(asked.removeprefix("bytes=").removesuffix("-")) + shift if asked else 0
    if start >= len(content):
        return handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
    if asked:
        about["Content_Range"] = f"bytes {start}-{len(content) - 1}/{total or len(content)}"
    if length != 0:
        about["Content_Length"] = length or len(content) - start
    handler.close_connection = stop is not None or length is not None
    handler.head(206 if asked else 200, **about)
    handler.wfile.write(content[start:stop])
    return handler.server.over.wait() if stall else None


def say(status, **headers):
    return lambda handler: handler.head(status, Content_Length=0, **headers)


def drop(at, **fault):
    return partial(send, stop=at, **fault)


def hang_up(handler, said=b""):
    handler.wfile.write(said)
    handler.close_connection = True


@contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with server:
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def waits(monkeypatch):
    """Record the waits between tries, in seconds, instead of waiting."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return waited


@pytest.fixture
def server(waits):
    with running(Server(Handler)) as server:
        yield server


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "detectors" / "LA_model.pth"


def left(target: Path) -> list[str]:
    """Return the names in a file's folder."""
    return sorted(path.name for path in target.parent.iterdir())


def fails(call, *args, **options) -> str:
    """Return the one line of the DownloadError that a call must raise."""
    with pytest.raises(DownloadError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_fetched_and_nothing_else_is_left(server, target, capsys, logged):
    server.answers = [say(302, Location="/elsewhere")]
    assert fetch(server.url, target, sha256=SHA256, size=len(CONTENT)) == target
    assert target.read_bytes() == CONTENT
    assert left(target) == [target.name]
    assert (capsys.readouterr(), logged.messages) == (("", ""), [])
    (beside := target.with_name("beside")).touch()
    assert target.stat().st_mode == beside.stat().st_mode  # it has the permissions of any new file


@pytest.mark.parametrize("stall", [False, True])
def test_a_broken_connection_is_resumed(stall, server, target, waits, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2 if stall else 30)
    server.answers = [drop(at, stall=stall) for at in (0, 1, 600_000, len(CONTENT) - 1)]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["all", "all", "all", f"bytes={CHUNK}-", f"bytes={3 * CHUNK}-"]
    assert len(waits) == 4


def test_a_later_run_resumes(server, target):
    server.answers = [drop(600_000)] * (download.RETRIES + 1)
    said = fails(fetch, server.url, target)
    assert said.startswith(f"{target}, from {server.url}: Download is incomplete: received {CHUNK} bytes ")
    assert said.endswith("000 bytes; 524,288 bytes are kept: run the same command to resume")
    assert left(target) == ["LA_model.pth.part"]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert left(target) == [target.name]
    assert server.ranges[-2:] == ["all", f"bytes={CHUNK}-"]  # the first request is for the headers only


def test_a_complete_file_of_an_interrupted_run_is_not_downloaded_again(server, target):
    (part := Path(f"{target}.part")).mkdir(parents=True)
    (part / target.name).write_bytes(CONTENT)
    server.answers = [drop(0)]
    fetch(server.url, target, sha256=SHA256)
    assert left(target) == [target.name]


@pytest.mark.parametrize(
    "fault",
    [
        partial(send, ranges=False),
        partial(send, shift=1),  # resumes at another place
        partial(send, total=len(CONTENT) + 1),  # claims a longer file
        say(206),  # does not say where it resumes
        say(416),
    ],
)
def test_if_the_server_cannot_resume_the_download_starts_over_once(fault, server, target):
    server.answers = [drop(600_000), fault, send, fault, drop(600_000), fault]
    said = fails(fetch, server.url, target)
    assert said == f"{server.url}: the connection broke, and the server cannot resume the download: try again"
    assert left(target) == []
    server.answers = [drop(600_000), fault, send, fault]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges[-5:] == [*["all", f"bytes={CHUNK}-"] * 2, "all"]


def test_a_failing_server_loses_nothing_of_what_was_downloaded(server, target):
    server.answers = [drop(600_000), say(503), say(503)]
    assert "503 Server Error: Service Unavailable for url: " in (said := fails(fetch, server.url, target))
    assert "; 524,288 bytes are kept" in said
    fetch(server.url, target)
    assert server.ranges[-1] == f"bytes={CHUNK}-"
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_between_two_runs_is_recognised_by_its_sha256(server, target):
    server.answers = [drop(600_000)] * (download.RETRIES + 1)
    assert "are kept" in fails(fetch, server.url, target)
    server.content = CONTENT[::-1]
    sha256 = hashlib.sha256(server.content).hexdigest()
    assert fails(fetch, server.url, target, sha256=sha256).endswith(f", not {sha256}, and was deleted")
    fetch(server.url, target, sha256=sha256)
    assert target.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("answers", "known", "reason"),
    [
        *(([say(status)], {}, f": {status} ") for status in (403, 404, 416, 429, 500, 503)),
        ([say(302, Location="file:///etc/hosts")], {}, "'file:///etc/hosts'"),
        ([say(302, Location="ftp://127.0.0.1/file")], {}, "'ftp://127.0.0.1/file'"),
        ([say(302, Location="/again")] * 50, {}, "redirects"),
        ([partial(hang_up, said=b"220 ready\r\n")] * 7, {}, "220 ready"),
        ([drop(0, stall=True)] * 7, {}, "Read timed out"),
        ([], {"sha256": "0" * 64}, f"the downloaded file has the sha256 {SHA256}, not {'0' * 64}"),
        ([], {"sha256": "bd6f3609"}, f"has the sha256 {SHA256}, not bd6f3609"),
        ([], {"size": 1000}, "sends 2,000,000 bytes, not 1,000"),
        ([], {"size": 3_000_000}, "sends 2,000,000 bytes, not 3,000,000"),
        ([partial(send, length=0)], {"size": 1000}, f"sends {CHUNK:,} bytes, not 1,000"),
        ([drop(600_000, length=0)], {"size": len(CONTENT)}, "has 600,000 bytes, not 2,000,000"),
        ([drop(600_000, length=0)], {"sha256": SHA256}, "has the sha256 "),
    ],
)
def test_a_failure_is_explained_and_leaves_nothing(answers, known, reason, server, target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    server.answers = answers
    assert reason in fails(fetch, server.url, target, **known)
    assert left(target) == []


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://127.0.0.1/file", "/etc/hosts", "http://a:b"])
def test_only_http_is_fetched(url, target):
    assert fails(fetch, url, target).startswith(f"{target}, from {url}: ")
    assert left(target) == []


def test_an_unreachable_server_is_given_up(server, target, waits):
    server.server_close()
    assert "refused" in fails(fetch, server.url, target)
    assert len(waits) == download.RETRIES


@pytest.mark.parametrize("known", [{"size": len(CONTENT)}, {"sha256": SHA256}, {"sha256": SHA256[:8]}])
def test_an_existing_file_is_not_fetched_again_and_kept_even_if_wrong(known, server, target):
    target.parent.mkdir()
    for content in (CONTENT, b"precious"):
        target.write_bytes(content)
        assert fetch(server.url, target) == target
    assert fails(fetch, server.url, target, **known).startswith(f"{target} already exists, but has ")
    assert target.read_bytes() == b"precious"
    target.write_bytes(CONTENT)
    assert fetch(server.url, target, **known) == target
    assert not server.ranges


def test_whatever_is_in_the_way_is_named(server, target):
    target.mkdir(parents=True)
    assert "is not a file" in fails(fetch, server.url, target)
    target.with_name("file").touch()
    assert "Not a directory" in fails(fetch, server.url, target.with_name("file") / "LA_model.pth")


def test_a_full_disk_is_reported_and_the_download_kept(server, target):
    import resource  # Windows does not have it

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, most))
    try:
        assert "File too large; 600,000 bytes are kept" in fails(fetch, server.url, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["all", "all", "bytes=600000-"]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_server_does_only_the_right_file_gets_its_name(seed, server, target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    draw = random.Random(seed)
    faults = [
        lambda: drop(draw.randrange(len(CONTENT)), ranges=draw.random() < 0.8),
        lambda: drop(draw.randrange(len(CONTENT)), length=0),
        lambda: drop(draw.randrange(len(CONTENT)), stall=True),
        lambda: partial(send, shift=draw.randrange(1, 100)),
        lambda: partial(send, length=draw.randrange(1, 2 * len(CONTENT))),
        lambda: partial(send, total=draw.randrange(1, 2 * len(CONTENT))),
        lambda: say(draw.choice([204, 206, 416, 500, 503])),
    ]
    for _ in range(5):  # runs
        server.answers = [draw.choice(faults)() for _ in range(draw.randrange(1, 16))]
        try:
            fetch(server.url, target, sha256=SHA256)
        except DownloadError:
            assert not target.exists()
        else:
            break
    server.answers = []
    fetch(server.url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert left(target) == [target.name]


@pytest.fixture
def york(server, tmp_path, monkeypatch):
    """A stand-in for York University's server, and an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PUBLISHED, "for-2sec", PublishedFile("for-2sec.tar.gz", server.url))
    (clip := tmp_path / "clip.wav").write_bytes(recording())
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w:gz") as archive:
        for split, label, i in itertools.product(SPLITS, ("fake", "real"), range(2)):
            archive.add(clip, f"for-2sec/for-2seconds/{split}/{label}/file{i}.wav")
    server.content = packed.getvalue()
    return server


def test_fake_or_real_is_fetched_and_extracted(york, tmp_path, capsys):
    york.answers = [drop(100)]
    folder = fake_or_real(tmp_path / "data")
    assert folder == tmp_path / "data" / "for-2sec.tar.gz.extracted"
    assert find_splits(folder) == folder / "for-2sec" / "for-2seconds"
    assert command.main(["for-2sec"]) == 0
    assert capsys.readouterr().out.endswith("\nfor-2sec.tar.gz.extracted\n")
    options = ["--epochs", "1", "--no-wandb", "--no-audit", "--workers", "0"]
    assert fine_tune_for.main([*options, "--checkpoint", str(tasks.STAND_IN)]) == 0  # it finds them there
    assert "training: 2 real, 2 fake" in capsys.readouterr().out


def test_a_page_in_place_of_the_archive_is_reported(york, capsys):
    york.content = b"<html>moved</html>"
    assert command.main(["for-2sec"]) == 2
    assert capsys.readouterr().err.startswith("error: for-2sec.tar.gz is a web page in place")


def test_fine_tuning_fetches_its_data(york, capsys):
    options = ["--download", "--epochs", "1", "--no-wandb", "--no-audit", "--workers", "0"]
    assert fine_tune_for.main(options) == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert not york.ranges  # nothing is downloaded in vain
    assert fine_tune_for.main([*options, "--checkpoint", str(tasks.STAND_IN)]) == 0
    assert "training: 2 real, 2 fake" in capsys.readouterr().out
    assert Path("results/for/final_model.safetensors").is_file()


@pytest.mark.parametrize("script", [evaluate_custom, evaluate_custom_for, fine_tune_for])
def test_every_script_takes_a_detector_of_the_hub(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def refuse(checkpoint):
        raise DownloadError(f"asked for {checkpoint}")

    monkeypatch.setattr(download, "resolve", refuse)
    data = project.SAMPLES / ("for-2seconds" if script is fine_tune_for else "custom")
    assert script.main(["--data", str(data), "--checkpoint", "hub:owner/one@v1:a.pth"]) == 2
    assert capsys.readouterr().err == "error: asked for hub:owner/one@v1:a.pth\n"


def test_a_detector_that_cannot_be_fetched_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    copy_samples(tmp_path / "data", 3)
    detectors = ["hub:owner/one:a.pth", str(tasks.STAND_IN)]  # the tests are offline
    options = ["--data", "data", "--workers", "0", "--no-audit"]
    assert evaluate_custom.main(["--checkpoint", *detectors, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: hub:owner/one:a.pth: ")
    assert error.count("\n") == 1
    assert Path("results/custom/detector/metrics.json").is_file()


def test_the_command_fetches_a_known_file_into_a_folder(server, tmp_path, monkeypatch, capsys):
    known = PublishedFile("xlsr2_300m.pt", server.url, len(CONTENT), SHA256[:8].upper())
    monkeypatch.setitem(PUBLISHED, "xlsr2_300m.pt", known)
    path = tmp_path / "new" / "xlsr2_300m.pt"
    assert command.main(["xlsr2_300m.pt", "--output", str(path.parent)]) == 0
    assert path.read_bytes() == CONTENT
    assert capsys.readouterr().out == f"xlsr2_300m.pt has the sha256 {SHA256}\n{path}\n"


def test_the_command_copies_a_file_of_the_hub(target, monkeypatch, tmp_path, capsys):
    (cached := tmp_path / "LA_model.pth").write_bytes(CONTENT)
    monkeypatch.setattr(download, "hub_files", lambda spec: [cached])
    arguments = ["hub:owner/one", "--output", str(target.parent)]
    assert command.main(arguments) == command.main(arguments) == 0
    assert target.read_bytes() == CONTENT
    assert left(target) == [target.name]
    target.write_bytes(b"precious")
    assert command.main(arguments) == 2
    assert target.read_bytes() == b"precious"
    assert capsys.readouterr().err.startswith(f"error: {target} already exists, but has the sha256 ")


def test_names_are_listed(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["LA_model.pth", "LA_model.pht"])
    assert (
        f"'LA_model.pht' is neither one of {', '.join(PUBLISHED)} nor {HUB_FORM}" in capsys.readouterr().err
    )


@pytest.fixture
def drive(server, monkeypatch):
    """A stand-in for Google's server; gdown lists its folder of two files as it would a real one."""
    signature = inspect.signature(gdown.download_folder)

    def download_folder(*args, **options):
        given = signature.bind(*args, **options).arguments
        assert given["skip_download"]
        assert given["url"].endswith("/1c4ywztEVlYVijfwbGLl9OEa1SNtFKppB")
        names = ("Best_LA_model_for_DF.pth", "LA_model.pth")
        return [GoogleDriveFileToDownload(f"id-of-{name}", f"models/{name}", "") for name in names]

    monkeypatch.setattr(gdown, "download_folder", download_folder)
    monkeypatch.setattr(download, "DRIVE_FILE", f"{server.url}/uc?id=")
    for name in ("LA_model.pth", "other.pth"):
        monkeypatch.setitem(PUBLISHED, name, PublishedFile(name, published.DRIVE, len(CONTENT), SHA256[:8]))
    return server


def test_a_file_on_google_drive_is_found_by_its_name_and_checked(drive, target):
    drive.content = CONTENT[::-1]
    assert "LA_model.pth: the downloaded file has the sha256 " in fails(get, "LA_model.pth", target.parent)
    drive.content, drive.answers = CONTENT, [drop(600_000)]
    assert get("LA_model.pth", target.parent) == get("LA_model.pth", target.parent) == target
    assert target.read_bytes() == CONTENT
    assert drive.paths == ["/uc?id=id-of-LA_model.pth"] * 3


def test_trouble_with_google_drive_is_reported(drive, target, monkeypatch):
    assert fails(get, "other.pth", target.parent).endswith(
        " has no other.pth, only Best_LA_model_for_DF.pth, LA_model.pth"
    )

    def download_folder(**options):
        raise gdown.exceptions.FileURLRetrievalError("Failed to retrieve file url:\n\n\tToo many users")

    monkeypatch.setattr(gdown, "download_folder", download_folder)
    said = fails(get, "LA_model.pth", target.parent)
    assert said == f"{target}, from {published.DRIVE}: Failed to retrieve file url: Too many users"


HUB_FILES = {
    "owner/one": {"README.md": b"not in LFS", "LA_model.pth": CONTENT},
    "owner/two": {"a.safetensors": b"small", "more/b.pth": CONTENT},
    "owner/none": {"README.md": b""},
    "owner/folder": {
        "README.md": b"",
        "config.json": b"{}",
        "preprocessor_config.json": b"{ }",
        "pytorch_model.bin": b"the same in another format",
        "model.safetensors": CONTENT,
    },
    "owner/shards": {
        "config.json": b"{}",
        "preprocessor_config.json": b"{}",
        "model.safetensors.index.json": b"{}",
        "model-00001-of-00002.safetensors": CONTENT,
    },
}
ONE = "hub:owner/one:LA_model.pth"


class HubHandler(Handler):
    """The routes of the Hub that huggingface_hub uses to download a file."""

    def do_HEAD(self):
        repo, _, rest = self.path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        content, commit = HUB_FILES[repo][name], self.server.sha256[:40]
        if repo == "owner/none" and revision == "v1":
            content, commit = b"as it was in v1", "1" * 40
        self.server.content = content
        digest = hashlib.sha1(content + self.server.sha256.encode()).hexdigest()
        self.head(
            200,
            X_Repo_Commit=commit,
            ETag=f'"{digest}"',
            Content_Length=len(content),
        )

    def do_GET(self):
        if "/resolve/" in self.path:
            return super().do_GET()
        if self.server.trouble:
            return self.server.trouble(self)
        repo, _, revision = self.path.partition("?")[0].removeprefix("/api/models/").partition("/revision/")
        if repo not in HUB_FILES or revision not in ("", "v1"):
            missing = "Revision" if repo in HUB_FILES else "Repo"
            return self.head(404, X_Error_Code=f"{missing}NotFound", Content_Length=0)
        lfs = {"sha256": self.server.sha256, "size": len(CONTENT), "pointerSize": 134}
        files = [
            {"rfilename": name} | ({"lfs": lfs} if content is CONTENT and "blobs=" in self.path else {})
            for name, content in HUB_FILES[repo].items()
        ]
        body = json.dumps({"id": repo, "siblings": files}).encode()
        self.head(200, Content_Type="application/json", Content_Length=len(body))
        return self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch, tmp_path, waits):
    """A Hub, and an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    huggingface_hub.close_session()  # so that the next session respects NO_PROXY
    with running(Server(HubHandler)) as server:
        server.sha256, server.trouble = SHA256, None
        monkeypatch.setattr(download, "HfApi", partial(huggingface_hub.HfApi, endpoint=server.url))
        yield server
    huggingface_hub.close_session()


@pytest.mark.parametrize("repo", ["hub:owner/one", "hub:owner/one@v1"])
@pytest.mark.parametrize("file", ["", ":LA_model.pth", ":README.md"])
def test_a_file_of_the_hub_is_fetched_into_its_cache(repo, file, hub, tmp_path):
    path = resolve(Path(repo + file))
    assert path.is_relative_to(tmp_path / "cache")
    assert path.name == (file[1:] or "LA_model.pth")
    assert path.read_bytes() == HUB_FILES["owner/one"][path.name]
    assert resolve(repo + file) == resolve(path) == path
    assert len(hub.ranges) == 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hub:owner/two", "it has several detectors, so name the file: a.safetensors, more/b.pth"),
        ("hub:owner/none", "it has no .safetensors or .pth file, so name the file"),
        ("hub:owner/shards", "its weights are in several files, which cannot be read"),
        ("hub:owner/one:b.pth", "owner/one has no b.pth, only README.md, LA_model.pth"),
        ("hub:owner/one@v2:LA_model.pth", "owner/one has no revision v2"),
        ("hub:owner/six:LA_model.pth", "there is no repository owner/six, or you have no access to it"),
        ("hub:owner/-:LA_model.pth", "Repo id must use alphanumeric chars"),
        *(
            (spec, f"not of the form {HUB_FORM}")
            for spec in ("hub:owner", "hub:owner/one:", "hub:owner/one/two")
        ),
    ],
)
def test_what_the_hub_does_not_have_is_named(spec, said, hub):
    assert fails(resolve, spec).startswith(f"{spec}: {said}")
    assert not hub.ranges


FOLDER = {"config.json", "preprocessor_config.json", "model.safetensors"}


@pytest.mark.parametrize("trouble", [None, say(503)])
def test_a_model_of_transformers_is_fetched_as_a_folder(trouble, hub, tmp_path):
    """With the settings beside the weights, into the cache, which is used when the Hub cannot be reached."""
    folder = resolve("hub:owner/folder")
    hub.trouble = trouble
    assert resolve("hub:owner/folder") == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: content for name, content in HUB_FILES["owner/folder"].items() if name in FOLDER
    }
    assert resolve("hub:owner/folder:model.safetensors") == folder / "model.safetensors"
    copied = get("hub:owner/folder", tmp_path / "copies")
    assert copied == tmp_path / "copies" / "folder" == get("hub:owner/folder", tmp_path / "copies")
    assert {path.name for path in copied.iterdir()} == FOLDER
    (copied / "config.json").write_bytes(b"precious")
    assert "config.json already exists" in fails(get, "hub:owner/folder", tmp_path / "copies")


def test_a_revision_is_that_revision(hub):
    """Online and, afterwards, from the cache."""
    specs = ("hub:owner/none@v1:README.md", "hub:owner/none:README.md")
    found = [resolve(spec).read_bytes() for spec in specs]
    assert found == [b"as it was in v1", b""]
    hub.trouble = say(503)
    assert [resolve(spec).read_bytes() for spec in specs] == found


def test_the_weights_of_a_folder_are_checked(hub):
    hub.sha256 = "0" * 64
    assert f"has the sha256 {SHA256}, not {'0' * 64}" in fails(resolve, "hub:owner/folder")


def test_settings_without_their_weights_are_no_folder(hub, monkeypatch):
    settings = {"config.json": b"{}", "preprocessor_config.json": b"{}", "detector.pth": CONTENT}
    monkeypatch.setitem(HUB_FILES, "owner/folder", settings)
    assert resolve("hub:owner/folder").name == "detector.pth"


def test_part_of_a_folder_in_the_cache_is_not_the_folder(hub):
    resolve("hub:owner/folder:config.json")
    hub.trouble = say(503)
    assert "503" in fails(resolve, "hub:owner/folder")


def test_detectors_of_the_hub_are_named_after_their_repositories(hub, tmp_path):
    detector = Detector(SHORT_CLIPS)
    detector.path = resolve("hub:owner/folder") / "model.safetensors"
    assert tasks.distinct_name(detector, []) == "folder"
    detector.path = resolve(ONE)
    assert tasks.distinct_name(detector, []) == "LA_model"
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        (tmp_path / "theirs" / name).touch()
    detector.path = tmp_path / "theirs" / "model.safetensors"
    assert tasks.distinct_name(detector, []) == "theirs"


def test_a_cached_file_does_not_replace_one_that_is_refused(hub):
    resolve(ONE)
    hub.sha256 = "1" * 64
    hub.answers = [say(403)]
    assert "403 Forbidden" in fails(resolve, ONE)


def test_a_file_of_the_hub_is_checked(hub, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "LA_model.pth", PublishedFile("LA_model.pth", "", len(CONTENT), "bd6f"))
    assert f"has the sha256 {SHA256}, not bd6f: remove it and fetch it again" in fails(resolve, ONE)
    monkeypatch.setitem(PUBLISHED, "LA_model.pth", PublishedFile("LA_model.pth", "", 1000, "bd6f"))
    assert resolve(ONE).read_bytes() == CONTENT  # with another size, it is another file
    hub.sha256 = "0" * 64
    assert f"has the sha256 {SHA256}, not {'0' * 64}: remove it" in fails(resolve, ONE)


@pytest.mark.parametrize("trouble", [hang_up, say(503), partial(send, stall=True, stop=0), "offline"])
def test_without_the_hub_the_cache_is_used(trouble, hub, monkeypatch):
    path = resolve(ONE)
    if trouble == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.trouble = trouble
    assert resolve(ONE) == path
    assert resolve("hub:owner/one") == path  # the only one there
    for spec in ("hub:owner/two", "hub:owner/two:a.safetensors"):
        assert fails(resolve, spec).startswith(f"{spec}: ")


@pytest.mark.parametrize("error", [RuntimeError("Task error:\nno CAS"), ValueError("no\nJSON")])
def test_errors_of_hf_xet_and_the_hubs_client_are_passed_on(error, monkeypatch):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(download.HfApi, "model_info", fail)
    assert fails(resolve, "hub:owner/one") == f"hub:owner/one: {str(error).replace(chr(10), ' ')}"

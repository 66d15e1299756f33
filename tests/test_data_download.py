"""Downloads: connections break off, servers err and lie, and only the right file gets its name."""

import errno
import hashlib
import inspect
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gdown
import huggingface_hub
import numpy as np
import pytest
import requests
import soundfile
from gdown.download import GoogleDriveFileToDownload

import evaluate_custom
import evaluate_custom_for
import fine_tune_for
from antispoofing import project, published
from antispoofing.commands import download as command
from antispoofing.commands import tasks
from antispoofing.data import download
from antispoofing.data.download import fake_or_real, fetch, get, hub_file, resolve
from antispoofing.data.layouts import SPLITS
from antispoofing.data.recordings import find_splits
from antispoofing.detectors.loading import save_detector
from antispoofing.errors import DownloadError
from antispoofing.published import HUB_FORM, PUBLISHED, PublishedFile
from model import PRESETS, Detector

CONTENT = random.Random(0).randbytes(307_200)  # several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers each request by the next of `answers`, and by the whole truth when there are none left."""

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.content, self.validators = CONTENT, {"ETag": '"one"'}
        self.answers, self.requests = [], []
        self.api_answers = []  # the Hub's, of what is no file
        self.commit, self.sha256 = "0" * 40, SHA256
        self.over = threading.Event()  # what stalls waits for it

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client may well hang up
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        answer = self.server.answers.pop(0) if self.server.answers else send
        answer(self)

    def log_message(self, *args):
        pass

    def head(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def send(handler, stop=None, stall=False, ranges=True, conditions=True, length=None, shift=0, total=None):
    """The content from where it is asked for, as a server should, but for one fault.

    Args:
        stop: ends the connection before this byte of the file; stall: does nothing instead.
        ranges: False ignores Range; conditions: False ignores If-Range.
        length: the Content-Length, whatever comes; 0 for none.
        shift: sends from so much later than it was asked to.
        total: of Content-Range.
    """
    content, about = handler.server.content, dict(handler.server.validators)
    asked = handler.headers.get("Range") if ranges else None
    if conditions and handler.headers.get("If-Range") not in (None, *about.values()):
        asked = None
    start = int(asked.removeprefix("bytes=").removesuffix("-")) + shift if asked else 0
    if start >= len(content):
        handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=5)
        handler.wfile.write(b"sorry")
        return
    if asked:
        about["Content_Range"] = f"bytes {start}-{len(content) - 1}/{total or len(content)}"
    if length != 0:
        about["Content_Length"] = length or len(content) - start
    handler.close_connection = stop is not None or length is not None
    handler.head(206 if asked else 200, **about)
    handler.wfile.write(content[start:stop])
    if stall:
        handler.server.over.wait()


def say(status, **headers):
    return lambda handler: handler.head(status, Content_Length=0, **headers)


def drop(at, **fault):
    return partial(send, stop=at, **fault)


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
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "BACK_OFF", 0.001)
    with running(Server(Handler)) as server:
        yield server


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "detectors" / "LA_model.pth"


def is_alone(target: Path) -> bool:
    """Whether nothing but the file is in its folder."""
    return [path.name for path in target.parent.iterdir()] == [target.name]


def fails(reason: str, *args, **options) -> None:
    """fetch raises a DownloadError of one line with this in it."""
    with pytest.raises(DownloadError) as error:
        fetch(*args, **options)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def asked_for(server: Server) -> list[str]:
    return [request.get("Range", "all") for request in server.requests]


# ------------------------------------------------------------------- fetch


def test_a_file_is_fetched_and_nothing_else_is_left(server, target, capsys, logged):
    assert fetch(server.url, target, sha256=SHA256, size=len(CONTENT)) == target
    assert target.read_bytes() == CONTENT
    assert is_alone(target)
    assert server.requests[0]["Accept-Encoding"] == "identity"
    assert (capsys.readouterr(), logged.messages) == (("", ""), [])


def test_of_a_sha256_that_is_known_in_part_the_whole_is_logged(server, target, logged):
    fetch(server.url, target, sha256=SHA256[:8].upper())
    assert logged.messages == [f"LA_model.pth has the sha256 {SHA256}"]


@pytest.mark.parametrize("stall", [False, True])
@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT)}])
def test_a_broken_connection_is_resumed(stall, known, server, target, logged, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3 if stall else 30)
    server.answers = [drop(at, stall=stall) for at in (0, 1, 100_000, len(CONTENT) - 1)]
    fetch(server.url, target, **known)
    assert target.read_bytes() == CONTENT
    assert asked_for(server) == ["all", "all", "bytes=1-", "bytes=100000-", f"bytes={len(CONTENT) - 1}-"]
    assert logged.text.count("; trying again in ") == 4


def test_a_later_run_goes_on(server, target, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    server.answers = [drop(100_000)]
    fails("; 100,000 bytes are kept, to go on from", server.url, target)
    assert not target.exists()
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert is_alone(target)
    assert asked_for(server) == ["all", "bytes=100000-"]


def test_what_was_begun_from_another_url_is_not_gone_on_with(server, target, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    server.answers = [drop(100_000)]
    fails("", server.url, target)
    fetch(server.url + "/other", target)
    assert asked_for(server) == ["all", "all"]


@pytest.mark.parametrize("origin", ["", '{"url": "http'])
def test_a_part_of_unknown_origin_is_not_gone_on_with(origin, server, target):
    target.parent.mkdir()
    Path(f"{target}.part").write_bytes(b"something else")
    Path(f"{target}.part.json").write_text(origin)
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert asked_for(server) == ["all"]


@pytest.fixture
def interrupted(server, target, monkeypatch):
    """All of the file has come, and has not got its name."""

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "_publish", interrupt)
        fetch(server.url, target)


@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT)}])
def test_an_interrupt_before_the_renaming_costs_nothing(known, interrupted, server, target):
    fetch(server.url, target, **known)
    assert target.read_bytes() == CONTENT
    assert asked_for(server) == ["all"] + ([] if known else [f"bytes={len(CONTENT)}-"])  # answered by 416


def test_after_such_an_interrupt_too_what_changed_is_fetched_anew(interrupted, server, target):
    server.content, server.validators = CONTENT[::-1], {"ETag": '"two"'}
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_is_asked_for_the_whole_again(server, target):
    server.answers = [drop(100_000, ranges=False), partial(send, ranges=False)]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "fault",
    [
        partial(send, shift=1),  # goes on elsewhere
        partial(send, total=len(CONTENT) + 1),  # in a longer file
        say(206),  # does not say where
        say(206, Content_Range="bytes */*"),
        say(416),
        say(416, Content_Range="bytes */50000"),
    ],
)
def test_what_does_not_go_on_where_it_should_starts_again(fault, server, target):
    server.answers = [drop(100_000), fault]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert asked_for(server) == ["all", "bytes=100000-", "all"]


def test_a_server_that_announced_too_much_is_asked_again(server, target):
    server.answers = [partial(send, length=len(CONTENT) + 1000)]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert asked_for(server) == ["all", f"bytes={len(CONTENT)}-", "all"]


def test_a_server_that_never_sends_what_it_announces_is_given_up(server, target):
    server.answers = [partial(send, length=len(CONTENT) + 1000, ranges=False)] * 20
    fails("received 307200 bytes, expected 308200", server.url, target)
    assert len(server.requests) == download.TRIES


def test_another_size_than_the_known_one_is_refused_at_once(server, target):
    fails(f"{server.url} has 307,200 bytes, not 1,000", server.url, target, size=1000)
    assert not list(target.parent.iterdir())
    assert len(server.requests) == 1


def test_a_page_in_place_of_the_file_costs_nothing_of_what_came_before(server, target, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    server.answers = [drop(100_000), say(200)]
    fails("100,000 bytes are kept", server.url, target, size=len(CONTENT))
    fails("has 0 bytes, not 307,200", server.url, target, size=len(CONTENT))
    fetch(server.url, target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert asked_for(server) == ["all", "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize("known", [1000, len(CONTENT) - 1])
def test_more_than_the_known_size_is_refused(known, server, target):
    server.answers = [partial(send, length=0)]  # the end of the connection is the end of the file
    fails(f"more than the {known:,} bytes", server.url, target, size=known)
    assert not list(target.parent.iterdir())


def test_more_than_was_announced_is_refused(server, target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    server.answers = [drop(100_000, length=0, stall=True), partial(send, total=200_000)]
    fails("more than the 200,000 bytes", server.url, target)
    assert not list(target.parent.iterdir())


def test_an_end_before_the_known_size_is_no_end(server, target):
    server.answers = [drop(100_000, length=0)]
    fetch(server.url, target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT


MONDAY, TUESDAY = "Mon, 02 Nov 2026 10:00:00 GMT", "Tue, 03 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize(
    ("before", "after", "length"),
    [
        ({"ETag": '"one"'}, {"ETag": '"two"'}, len(CONTENT)),
        ({"Last-Modified": MONDAY}, {"Last-Modified": TUESDAY}, len(CONTENT)),
        (
            {"ETag": 'W/"1"', "Last-Modified": MONDAY},
            {"ETag": 'W/"2"', "Last-Modified": TUESDAY},
            len(CONTENT),
        ),
        ({}, {"ETag": '"two"'}, len(CONTENT)),
        ({"ETag": '"one"'}, {}, 200_000),
        ({}, {}, 200_000),
    ],
)
def test_what_changed_between_two_tries_is_fetched_anew(before, after, length, conditions, server, target):
    def change(handler):
        server.content, server.validators = b"b" * length, after
        send(handler, conditions=conditions)

    server.validators = before
    server.answers = [drop(100_000), change]
    fetch(server.url, target)
    assert target.read_bytes() == b"b" * length


@pytest.mark.parametrize(
    ("validators", "sent"),
    [
        ({"ETag": '"one"', "Last-Modified": MONDAY}, '"one"'),
        ({"ETag": 'W/"one"', "Last-Modified": MONDAY}, MONDAY),
        ({"ETag": 'W/"one"'}, None),  # a weak one may not be sent
        ({"ETag": '"\xe9"'}, None),
        ({}, None),
    ],
)
def test_the_rest_is_asked_for_on_condition(validators, sent, server, target):
    server.validators = validators
    server.answers = [drop(100_000)]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert asked_for(server) == ["all", "bytes=100000-"]
    assert server.requests[1].get("If-Range") == sent


@pytest.mark.parametrize("status", [204, 206, 304, 403, 404, 416, 429])
def test_a_refusal_is_final(status, server, target):
    server.answers = [say(status)]
    fails(f"{server.url}: the server answers {status} ", server.url, target)
    assert len(server.requests) == 1


def test_a_server_in_trouble_is_asked_again(server, target, logged):
    server.answers = [say(500), drop(1000), say(503), say(502)]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert "the server answers 503 Service Unavailable; trying again in " in logged.text


def test_tries_without_progress_are_counted(server, target, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 3)
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.answers = [say(503), say(503), drop(1000), drop(1000), drop(2000), say(503), say(503)]
    fails("503 Service Unavailable; 2,000 bytes are kept", server.url, target)
    assert [round(wait / download.BACK_OFF) for wait in waits] == [1, 2, 1, 2, 1, 2]


def test_a_server_that_never_gets_further_is_given_up(server, target):
    server.answers = [drop(at, ranges=False) for at in (100_000, *range(1000, 50_000, 1000))]
    fails("bytes are kept", server.url, target)
    assert len(server.requests) == download.TRIES


def test_a_redirect_is_followed(server, target):
    server.answers = [say(302, Location="/elsewhere")]
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("location", ["file:///etc/hosts", "ftp://127.0.0.1/file", "gopher:"])
def test_a_redirect_to_another_scheme_is_not_followed(location, server, target):
    server.answers = [say(302, Location=location)]
    fails(f"{server.url}: ", server.url, target)
    assert not list(target.parent.iterdir())
    assert len(server.requests) == 1


def test_endless_redirects_are_not_followed(server, target):
    server.answers = [say(302, Location="/again")] * 50
    fails("redirect", server.url, target)


@pytest.mark.parametrize(
    "url", ["file:///etc/hosts", "ftp://127.0.0.1/file", "/etc/hosts", "http://", "http://a:b"]
)
def test_only_http_is_fetched(url, target):
    fails(url, url, target)
    assert not list(target.parent.iterdir())


def test_a_server_that_is_not_there_is_given_up(server, target):
    server.server_close()
    fails("refused", server.url, target)


def test_what_speaks_no_http_is_given_up(server, target):
    def greet(handler):
        handler.wfile.write(b"220 ready\r\n")
        handler.close_connection = True

    server.answers = [greet] * 20
    fails(server.url, server.url, target)
    assert len(server.requests) == download.TRIES


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"sha256": "0" * 64}, f"has the sha256 {SHA256}, not {'0' * 64}"),
        ({"sha256": "bd6f3609"}, f"has the sha256 {SHA256}, not bd6f3609"),
    ],
)
def test_what_is_not_the_right_file_is_deleted(known, said, server, target):
    fails(said, server.url, target, **known)
    assert not list(target.parent.iterdir())


def test_a_file_that_ends_early_unannounced_is_told_by_its_sha256(server, target):
    server.answers = [drop(100_000, length=0)]
    fails("has the sha256", server.url, target, sha256=SHA256)
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT)}, {"sha256": SHA256}, {"sha256": SHA256[:8]}])
def test_what_is_there_and_right_is_not_fetched(known, server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert fetch(server.url, target, **known) == target
    assert not server.requests


@pytest.mark.parametrize("known", [{"size": len(CONTENT)}, {"sha256": SHA256[:8]}])
def test_what_is_there_and_wrong_stays(known, server, target):
    target.parent.mkdir()
    target.write_bytes(b"precious")
    fails(f"{target} is there already, but has ", server.url, target, **known)
    assert target.read_bytes() == b"precious"
    assert not server.requests


def test_a_folder_in_the_way_is_said(server, target):
    target.mkdir(parents=True)
    fails("is not a file", server.url, target)


def test_a_file_where_the_folder_should_be_is_said(server, target):
    target.parent.write_text("")
    fails("File exists", server.url, target)


class FullDisk(io.FileIO):
    """A file on a disk that has room for one write."""

    def write(self, data):
        if self.tell():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_full_disk_is_said_and_what_came_is_kept(server, target, monkeypatch):
    def open_full(path, mode="r", *args, **options):
        return FullDisk(path, mode) if path.suffix == ".part" else open(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        fails(f"{target}: [Errno {errno.ENOSPC}] No space left on device", server.url, target)
    kept = Path(f"{target}.part").stat().st_size
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert asked_for(server) == ["all", f"bytes={kept}-"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_server_does_only_the_right_file_gets_its_name(seed, server, target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    draw = random.Random(seed)
    faults = [
        lambda: drop(draw.randrange(len(CONTENT)), ranges=draw.random() < 0.8),
        lambda: drop(draw.randrange(len(CONTENT)), length=0, conditions=False),
        lambda: drop(draw.randrange(len(CONTENT)), stall=True),
        lambda: partial(send, shift=draw.randrange(1, 100)),
        lambda: partial(send, length=draw.randrange(1, 2 * len(CONTENT))),
        lambda: partial(send, total=draw.randrange(1, 2 * len(CONTENT))),
        lambda: say(draw.choice([206, 416, 500, 503])),
        lambda: say(302, Location="/elsewhere"),
    ]
    for _ in range(10):  # runs
        server.answers = [draw.choice(faults)() for _ in range(draw.randrange(8))]
        try:
            fetch(server.url, target, sha256=SHA256)
        except DownloadError:
            assert not target.exists()
        else:
            break
    server.answers = []
    fetch(server.url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert is_alone(target)


# ------------------------------------------------------------------- what has a name, and the command


def packed_splits() -> bytes:
    """Fake-or-Real in small, as York University packs it."""
    clip = io.BytesIO()
    soundfile.write(clip, 0.1 * np.random.default_rng(0).standard_normal(4000), 16000, format="WAV")
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w:gz") as archive:
        for split, label, i in itertools.product(SPLITS, ("fake", "real"), range(2)):
            member = tarfile.TarInfo(f"for-2sec/for-2seconds/{split}/{label}/file{i}.wav")
            member.size = len(clip.getvalue())
            archive.addfile(member, io.BytesIO(clip.getvalue()))
    return packed.getvalue()


@pytest.fixture
def york(server, tmp_path, monkeypatch):
    """A server that stands in for York University's, and an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        PUBLISHED, "for-2sec", PublishedFile("for-2sec.tar.gz", f"{server.url}/for-2sec.tar.gz")
    )
    server.content = packed_splits()
    return server


def test_fake_or_real_is_fetched_and_extracted(york, tmp_path, capsys):
    york.answers = [drop(100)]
    folder = fake_or_real(tmp_path / "data")
    assert folder == tmp_path / "data" / "for-2sec.tar.gz.extracted"
    assert find_splits(folder) == folder / "for-2sec" / "for-2seconds"
    assert command.main(["for-2sec"]) == 0
    assert capsys.readouterr().out.endswith("\nfor-2sec.tar.gz.extracted\n")


def test_a_page_in_place_of_the_archive_is_said(york, capsys):
    york.content = b"<html>moved</html>"
    assert command.main(["for-2sec"]) == 2
    assert capsys.readouterr().err.startswith("error: for-2sec.tar.gz is damaged")


def test_fine_tuning_fetches_its_data(york, capsys):
    save_detector(Detector(PRESETS["small"]), "start.safetensors")
    options = ["--epochs", "1", "--no-wandb", "--no-audit", "--workers", "0"]
    assert fine_tune_for.main(["--download", *options]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert not york.requests  # nothing is fetched in vain
    assert fine_tune_for.main(["--download", "--checkpoint", "start.safetensors", *options]) == 0
    assert "training: 2 real, 2 fake" in capsys.readouterr().out
    assert Path("results/for/final_model.safetensors").is_file()
    assert fine_tune_for.main(["--download", "--checkpoint", "start.safetensors", *options]) == 0
    assert len(york.requests) == 1


@pytest.mark.parametrize("script", [evaluate_custom, evaluate_custom_for, fine_tune_for])
def test_every_script_takes_a_detector_of_the_hub(script, monkeypatch, capsys):
    def refusing(checkpoint):
        raise DownloadError(f"asked for {checkpoint}")

    monkeypatch.setattr(download, "resolve", refusing)
    data = project.SAMPLES / ("for-2seconds" if script is fine_tune_for else "custom")
    assert script.main(["--data", str(data), "--checkpoint", "hub:owner/one@v1:a.pth"]) == 2
    assert capsys.readouterr().err == "error: asked for hub:owner/one@v1:a.pth\n"


def test_a_detector_that_cannot_be_fetched_costs_no_other_its_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))  # the tests are offline
    args = [
        "--checkpoint",
        "hub:owner/one:a.pth",
        str(tasks.STAND_IN),
        "--data",
        str(project.SAMPLES / "custom"),
    ]
    assert evaluate_custom.main([*args, "--workers", "0", "--no-audit"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: hub:owner/one:a.pth: ")
    assert error.count("\n") == 1
    assert Path("results/custom/detector/metrics.json").is_file()


def test_the_command_fetches_a_known_file_into_a_folder(server, tmp_path, monkeypatch, capsys):
    known = PublishedFile("xlsr2_300m.pt", server.url, len(CONTENT), SHA256[:8])
    monkeypatch.setitem(PUBLISHED, "xlsr2_300m.pt", known)
    assert command.main(["xlsr2_300m.pt", "--output", str(tmp_path / "new")]) == 0
    path = tmp_path / "new" / "xlsr2_300m.pt"
    assert path.read_bytes() == CONTENT
    assert capsys.readouterr().out == f"xlsr2_300m.pt has the sha256 {SHA256}\n{path}\n"


@pytest.mark.parametrize(
    ("known", "said"), [({"size": 1000}, "bytes, not 1,000"), ({"sha256": "b0892759"}, ", not b0892759")]
)
def test_a_known_file_is_checked(known, said, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PUBLISHED, "xlsr2_300m.pt", PublishedFile("xlsr2_300m.pt", server.url, **known))
    assert command.main(["xlsr2_300m.pt", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_said(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["LA_model.pth", "LA_model.pht"])
    assert f"'LA_model.pht' is none of {', '.join(PUBLISHED)}, nor {HUB_FORM}" in capsys.readouterr().err


def test_help_lists_the_names(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in (*PUBLISHED, HUB_FORM))


# ------------------------------------------------------------------- Google Drive


class Drive:
    """gdown's two functions, called as the real ones can be, for a folder of two files."""

    def __init__(self, monkeypatch):
        self.content, self.trouble, self.downloads = CONTENT, None, []
        self.signatures = {
            name: inspect.signature(getattr(gdown, name)) for name in ("download", "download_folder")
        }
        monkeypatch.setattr(gdown, "download_folder", self.download_folder)
        monkeypatch.setattr(gdown, "download", self.download)

    def download_folder(self, *args, **options):
        given = self.signatures["download_folder"].bind(*args, **options).arguments
        assert given["url"].endswith("/1c4ywztEVlYVijfwbGLl9OEa1SNtFKppB")
        assert given["skip_download"]
        names = ("Best_LA_model_for_DF.pth", "LA_model.pth")
        return [GoogleDriveFileToDownload(f"id of {name}", f"models/{name}", "") for name in names]

    def download(self, *args, **options):
        given = self.signatures["download"].bind(*args, **options).arguments
        self.downloads.append(given["id"])
        assert given["resume"]
        if self.trouble:
            raise self.trouble
        Path(given["output"]).write_bytes(self.content)
        given["progress"](len(self.content), len(self.content))
        return given["output"]


@pytest.fixture
def drive(monkeypatch) -> Drive:
    for name in ("LA_model.pth", "Best_LA_model_for_DF.pth"):
        monkeypatch.setitem(PUBLISHED, name, PublishedFile(name, published.DRIVE, len(CONTENT), SHA256[:8]))
    return Drive(monkeypatch)


def test_a_file_on_google_drive_is_found_by_its_name(drive, target, logged):
    assert get("LA_model.pth", target.parent) == target
    assert target.read_bytes() == CONTENT
    assert is_alone(target)
    assert drive.downloads == ["id of LA_model.pth"]
    assert SHA256 in logged.text
    assert get("LA_model.pth", target.parent) == target
    assert len(drive.downloads) == 1


@pytest.mark.parametrize(
    ("content", "said"), [(CONTENT[1:], "has 307,199 bytes, not 307,200"), (CONTENT[::-1], "has the sha256 ")]
)
def test_what_google_drive_sends_is_checked(content, said, drive, target):
    drive.content = content
    with pytest.raises(DownloadError, match=f"LA_model.pth: what came {said}"):
        get("LA_model.pth", target.parent)
    assert not list(target.parent.iterdir())


def test_what_is_there_and_wrong_is_not_overwritten_from_google_drive(drive, target):
    target.parent.mkdir()
    target.write_bytes(b"precious")
    with pytest.raises(DownloadError, match="is there already"):
        get("LA_model.pth", target.parent)
    assert target.read_bytes() == b"precious"
    assert not drive.downloads


@pytest.mark.parametrize(
    "trouble",
    [
        gdown.exceptions.FileURLRetrievalError("Failed to retrieve file url:\n\n\tToo many users"),
        gdown.DownloadError("Too many users"),
        requests.exceptions.ConnectionError("Too many users"),
    ],
)
def test_trouble_with_google_drive_is_one_line(trouble, drive, target):
    drive.trouble = trouble
    with pytest.raises(DownloadError) as error:
        get("LA_model.pth", target.parent)
    assert str(error.value).startswith(f"{target}, from {published.DRIVE}: ")
    assert str(error.value).endswith("Too many users")
    assert "\n" not in str(error.value)


def test_a_name_that_is_not_on_google_drive_is_said(drive, monkeypatch, target):
    monkeypatch.setitem(PUBLISHED, "other.pth", PublishedFile("other.pth", published.DRIVE))
    with pytest.raises(DownloadError, match=r"no other.pth, only Best_LA_model_for_DF.pth, LA_model.pth"):
        get("other.pth", target.parent)


# ------------------------------------------------------------------- the Hugging Face Hub

SMALL = b"a detector"  # not in LFS
HUB_FILES = {
    "owner/one": {"README.md": SMALL, "LA_model.pth": CONTENT},
    "owner/two": {"a.safetensors": SMALL, "more/b.pth": CONTENT},
    "owner/none": {"README.md": SMALL},
}
# In a process of its own, since the library reads its environment once only. Each line it is given says what
# to fetch, and what PUBLISHED should hold of LA_model.pth.
WORKER = """
import json, sys
from antispoofing.data import download
download.TIMEOUT = 2
for line in sys.stdin:
    spec, *known = json.loads(line)
    download.PUBLISHED["LA_model.pth"] = download.PublishedFile("LA_model.pth", "", *known)
    try:
        print(json.dumps([str(download.resolve(spec)), ""]), flush=True)
    except download.DownloadError as error:
        print(json.dumps(["", str(error)]), flush=True)
"""


class HubHandler(Handler):
    """The Hub's routes that huggingface_hub uses to download a file. What is in LFS is on another host."""

    def do_HEAD(self):
        content = self.content()
        about = {"X-Repo-Commit": self.server.commit, "ETag": '"0123"', "Content-Length": len(content)}
        if content is SMALL:
            return self.head(200, **about)
        about |= {
            "X-Linked-Etag": f'"{self.server.sha256}"',
            "X-Linked-Size": len(content),
            "Content-Length": 0,
        }
        return self.head(302, **about, Location=self.server.url.replace("127.0.0.1", "localhost") + self.path)

    def do_GET(self):
        if "/resolve/" in self.path:
            self.server.content = self.content()
            return super().do_GET()
        repo, _, revision = self.path.partition("?")[0].removeprefix("/api/models/").partition("/revision/")
        if self.server.api_answers:
            return self.server.api_answers.pop(0)(self)
        if repo not in HUB_FILES:
            return self.head(404, X_Error_Code="RepoNotFound", Content_Length=0)
        if revision not in ("", "v1"):
            return self.head(404, X_Error_Code="RevisionNotFound", Content_Length=0)
        files = [{"rfilename": name, "size": len(content)} for name, content in HUB_FILES[repo].items()]
        for file in files:
            if HUB_FILES[repo][file["rfilename"]] is CONTENT and "blobs=" in self.path:
                file["lfs"] = {"sha256": self.server.sha256, "size": file["size"], "pointerSize": 134}
        body = json.dumps({"id": repo, "sha": self.server.commit, "siblings": files}).encode()
        self.head(200, Content_Type="application/json", Content_Length=len(body))
        return self.wfile.write(body)

    def content(self):
        repo, _, rest = self.path[1:].partition("/resolve/")
        return HUB_FILES[repo][rest.partition("/")[2]]


class Hub:
    """A Hub, and a process that fetches from it."""

    def __init__(self, server, process, cache):
        self.server, self.process, self.cache = server, process, cache

    def fetch(self, spec, size=None, sha256=None) -> tuple[Path, str]:
        """What `resolve` gives for the specification, and the reason if it fails."""
        self.server.requests.clear()
        self.process.stdin.write(json.dumps([spec, size, sha256]) + "\n")
        self.process.stdin.flush()
        path, error = json.loads(self.process.stdout.readline())
        assert "\n" not in error
        return Path(path), error


@pytest.fixture(scope="module")
def hub_process(tmp_path_factory):
    home = tmp_path_factory.mktemp("hub")
    with running(Server(HubHandler)) as server:
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        command = [sys.executable, "-c", WORKER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        with subprocess.Popen(command, **pipes) as process:
            yield Hub(server, process, home / "hub")


@pytest.fixture
def hub(hub_process):
    """With an empty cache."""
    yield hub_process
    server = hub_process.server
    server.answers, server.api_answers, server.commit, server.sha256 = [], [], "0" * 40, SHA256
    shutil.rmtree(hub_process.cache, ignore_errors=True)


@pytest.mark.parametrize(
    ("spec", "name", "content"),
    [
        ("hub:owner/one:LA_model.pth", "LA_model.pth", CONTENT),
        ("hub:owner/one@v1:LA_model.pth", "LA_model.pth", CONTENT),
        ("hub:owner/one", "LA_model.pth", CONTENT),
        ("hub:owner/one@v1", "LA_model.pth", CONTENT),
        ("hub:owner/two:more/b.pth", "b.pth", CONTENT),
        ("hub:owner/two:a.safetensors", "a.safetensors", SMALL),
    ],
)
def test_a_file_of_the_hub_is_fetched_into_its_cache(spec, name, content, hub):
    path, error = hub.fetch(spec)
    assert error == ""
    assert path.read_bytes() == content
    assert path.name == name
    assert path.is_relative_to(hub.cache)
    assert len(hub.server.requests) == 1
    assert hub.fetch(spec) == (path, "")
    assert not hub.server.requests


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hub:owner/two", "which file? There are a.safetensors, more/b.pth"),
        ("hub:owner/none", "which file? No .safetensors or .pth is there"),
        ("hub:owner/one:b.pth", "owner/one has no b.pth, only README.md, LA_model.pth"),
        ("hub:owner/one@v2:LA_model.pth", "owner/one has no revision v2"),
        ("hub:owner/six:LA_model.pth", "there is no repository owner/six, or none for you"),
        ("hub:owner/-:LA_model.pth", "Repo id must use alphanumeric chars"),
        ("hub:owner", f"not {HUB_FORM}"),
        ("hub:owner/one:", f"not {HUB_FORM}"),
        ("hub:owner/one/two", f"not {HUB_FORM}"),
    ],
)
def test_what_the_hub_does_not_have_is_said(spec, said, hub):
    _, error = hub.fetch(spec)
    assert error.startswith(f"{spec}: {said}")
    assert not hub.server.requests


def test_a_broken_connection_to_the_hub_is_resumed(hub):
    hub.server.answers = [drop(100_000)]
    path, _ = hub.fetch("hub:owner/one:LA_model.pth")
    assert path.read_bytes() == CONTENT
    assert len(hub.server.requests) == 2


def test_a_refusal_of_the_hub_is_said(hub):
    hub.server.answers = [say(403)]
    assert "403 Forbidden" in hub.fetch("hub:owner/one:LA_model.pth")[1]


def test_an_older_file_is_not_taken_for_one_that_cannot_be_had(hub):
    hub.fetch("hub:owner/one:LA_model.pth")
    hub.server.commit, hub.server.sha256 = "1" * 40, "1" * 64
    hub.server.answers = [say(403)]
    assert "403 Forbidden" in hub.fetch("hub:owner/one:LA_model.pth")[1]


def test_a_file_of_the_hub_is_held_against_the_hubs_sha256(hub):
    hub.server.sha256 = "0" * 64
    _, error = hub.fetch("hub:owner/one:LA_model.pth")
    assert f"has the sha256 {SHA256}, not {'0' * 64}: remove it and fetch it again" in error
    assert Path(error.split(" ")[0]).is_file()


def test_a_published_file_on_the_hub_is_held_against_the_known_sha256(hub):
    spec = "hub:owner/one:LA_model.pth"
    assert hub.fetch(spec, len(CONTENT), SHA256[:8])[1] == ""
    assert "not bd6f3609" in hub.fetch(spec, len(CONTENT), "bd6f3609")[1]
    assert hub.fetch(spec, 1000, "bd6f3609")[1] == ""  # of another size it is another file


def hang_up(handler):
    handler.close_connection = True


@pytest.mark.parametrize("trouble", [hang_up, say(503), partial(send, stall=True, stop=0)])
def test_without_the_hub_the_cache_will_do(trouble, hub):
    spec = "hub:owner/one@v1:LA_model.pth"
    path, _ = hub.fetch(spec)
    hub.server.api_answers = [trouble] * 2
    assert hub.fetch(spec) == (path, "")
    assert hub.fetch("hub:owner/one@v1")[1].startswith("hub:owner/one@v1: ")  # the Hub alone knows the name


@pytest.mark.parametrize(
    ("trouble", "said"), [(hang_up, "disconnected"), (say(503), "503 Service Unavailable")]
)
def test_without_the_hub_and_the_cache_the_trouble_is_said(trouble, said, hub):
    hub.server.api_answers = [trouble]
    spec = "hub:owner/one:LA_model.pth"
    _, error = hub.fetch(spec)
    assert error.startswith(f"{spec}: ")
    assert said in error


@pytest.mark.parametrize("content", [b"no JSON", b"\xff"])
def test_what_is_no_hub_is_said(content, hub):
    hub.server.content = content
    hub.server.api_answers = [send]
    assert hub.fetch("hub:owner/one")[1].startswith("hub:owner/one: ")


def test_a_failure_of_hf_xet_is_said(monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("Task error:\nno CAS")

    monkeypatch.setattr(download.HfApi, "model_info", fail)
    with pytest.raises(DownloadError, match=r"^hub:owner/one: Task error: no CAS$"):
        hub_file("hub:owner/one")


def test_offline_the_cache_will_do(hub, monkeypatch):
    path, _ = hub.fetch("hub:owner/one:LA_model.pth")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub.cache))
    assert hub_file("hub:owner/one:LA_model.pth") == path  # conftest.py keeps this process offline


def test_being_offline_is_said():
    with pytest.raises(DownloadError, match=r"^hub:owner/one:LA_model.pth: .* offline mode is enabled"):
        hub_file("hub:owner/one:LA_model.pth")


def test_what_is_no_hub_specification_is_a_path(monkeypatch):
    asked = []
    monkeypatch.setattr(download, "hub_file", lambda spec: asked.append(spec) or Path("cached"))
    assert resolve("models/hub.pth") == resolve(Path("models/hub.pth")) == Path("models/hub.pth")
    assert resolve("hub:owner/one@v1:a/b.pth") == resolve(Path("hub:owner/one@v1:a/b.pth")) == Path("cached")
    assert asked == ["hub:owner/one@v1:a/b.pth"] * 2


def test_the_command_copies_a_file_of_the_hub(target, monkeypatch, tmp_path, capsys):
    cached = tmp_path / "LA_model.pth"
    cached.write_bytes(CONTENT)
    monkeypatch.setattr(download, "hub_file", lambda spec: cached)
    arguments = ["hub:owner/one", "--output", str(target.parent)]
    assert command.main(arguments) == command.main(arguments) == 0
    assert target.read_bytes() == CONTENT
    assert is_alone(target)
    target.write_bytes(b"precious")
    assert command.main(arguments) == 2
    assert target.read_bytes() == b"precious"
    assert capsys.readouterr().err.startswith(f"error: {target} is there already, but has the sha256 ")

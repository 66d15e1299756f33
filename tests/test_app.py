"""The server, as programs and strangers see it."""

import csv
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import gradio
import httpx2
import numpy as np
import pytest
import soundfile
import torch
from helpers import PRESETS, tone, write_zip
from processes import run
from serving import served, write_calibrated

import app
import evaluate_custom
from antispoofing.commands.tasks import FINE_TUNED, STAND_IN
from antispoofing.detectors.loading import save_detector
from antispoofing.errors import CheckpointError, UserError
from antispoofing.project import SAMPLES
from antispoofing.web.page import _with_user_errors_shown
from model import Detector


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    options = ("--checkpoint", str(STAND_IN), write_calibrated(folder), "--max-megabytes", "0.5")
    with served(folder, *options, "--max-minutes", "0.5", "--max-files", "3") as address:
        yield address


def upload(server, *paths) -> list[dict]:
    """Upload files as curl does it; return how calls refer to them."""
    with ExitStack() as stack:
        files = [("files", stack.enter_context(open(path, "rb"))) for path in paths]
        response = httpx2.post(f"{server.address}gradio_api/upload", files=files, timeout=60)
    assert response.status_code == 200, response.text
    names = [Path(path).name for path in paths]
    kind = {"_type": "gradio.FileData"}
    return [
        {"path": path, "orig_name": name, "meta": kind}
        for path, name in zip(response.json(), names, strict=True)
    ]


def call(server, name, data) -> tuple[str, object]:
    """Make a call as curl does it; return "complete" and the answer, or "error" and the message."""
    response = httpx2.post(f"{server.address}gradio_api/call/{name}", json={"data": data}, timeout=60)
    assert response.status_code == 200, response.text
    answer = httpx2.get(f"{server.address}gradio_api/call/{name}/{response.json()['event_id']}", timeout=60)
    event, content = re.fullmatch(
        r"event: (\w+)\ndata: (.*)\s*", answer.text.split("\n\n")[-2] + "\n"
    ).groups()
    content = json.loads(content)
    return event, content[0] if event == "complete" else content


def score(server, *paths, detectors=("stand-in",)) -> list[dict]:
    event, answer = call(server, "score", [upload(server, *paths), list(detectors)])
    assert event == "complete", answer
    return answer


def timeline(server, path) -> tuple[str, object]:
    return call(server, "timeline", [*upload(server, path), ["stand-in"]])


def test_twenty_clients_at_once_get_the_scores_of_the_command_line(server, tmp_path):
    options = ["--data", str(SAMPLES / "custom"), "--checkpoint", str(STAND_IN), "--output", str(tmp_path)]
    assert evaluate_custom.main([*options, "--no-audit", "--workers", "0"]) == 0
    with open(tmp_path / STAND_IN.stem / "scores.csv", encoding="utf-8", newline="") as file:
        expected = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}
    names = sorted(expected)[::6]
    assert len(names) == 20

    with ThreadPoolExecutor(20) as pool:
        answered = list(pool.map(lambda name: score(server, SAMPLES / "custom" / name), names))
    for name, (answer,) in zip(names, answered, strict=True):
        assert answer["file"] == Path(name).name
        assert answer["results"][0]["score"] == pytest.approx(expected[name], abs=1e-5)


def test_the_detectors_asked_for(server, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(3, 16000), 16000)
    (both,) = score(server, tmp_path / "a.wav", detectors=("stand-in", "calibrated"))
    stand_in, calibrated = both["results"]
    assert [stand_in] == score(server, tmp_path / "a.wav")[0]["results"]
    assert stand_in["probability_real"] is None
    assert 0 < calibrated["probability_real"] < 1
    event, answer = call(server, "score", [upload(server, tmp_path / "a.wav"), []])
    assert (event, answer["error"]) == ("error", "choose a detector")


def test_the_timeline_of_a_recording(server, tmp_path):
    soundfile.write(tmp_path / "a.ogg", tone(20, 22050), 22050)
    event, answer = timeline(server, tmp_path / "a.ogg")
    assert event == "complete"
    assert answer["seconds"] == 20
    assert len(answer["results"][0]["windows"]) == 9


def test_what_cannot_be_judged_gets_a_clear_answer_and_does_no_harm(server, tmp_path):
    (tmp_path / "text.wav").write_text("this is not sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "long.flac", np.zeros(31 * 8000), 8000)
    write_zip(tmp_path / "a.zip")
    for name, words in {
        "text.wav": "text.wav cannot be read: libsndfile: ",
        "empty.wav": "empty.wav cannot be read: the file is empty",
        "long.flac": "long.flac is longer than 0.5 minutes, the limit here",
        "a.zip": "a.zip cannot be read: libsndfile: ",
    }.items():
        event, answer = timeline(server, tmp_path / name)
        assert event == "error"
        assert answer["error"].startswith(words)
    answers = score(server, tmp_path / "text.wav", tmp_path / "empty.wav")
    assert answers[0]["results"][0]["error"].startswith("libsndfile: ")
    assert answers[1]["results"][0]["error"] == "the file is empty"
    sent = upload(server, *[tmp_path / "text.wav"] * 4)
    event, answer = call(server, "score", [sent, ["stand-in"]])
    assert (event, answer["error"]) == ("error", "4 recordings, but the limit here is 3")
    event, answer = call(server, "score", [[], ["stand-in"]])
    assert (event, answer["error"]) == ("error", "upload a recording, or record one, first")


def test_a_large_upload_is_refused(server, tmp_path):
    (tmp_path / "large.wav").write_bytes(bytes(600_000))
    with open(tmp_path / "large.wav", "rb") as file:
        response = httpx2.post(f"{server.address}gradio_api/upload", files={"files": file})
    assert response.status_code == 413
    assert "maximum" in response.text
    soundfile.write(tmp_path / "a.wav", tone(1, 16000), 16000)
    assert score(server, tmp_path / "a.wav")[0]["file"] == "a.wav"


@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(app.__file__)), "../../etc/passwd"])
def test_a_file_of_the_server_is_not_given_away(server, path):
    event, words = call(
        server, "timeline", [{"path": path, "meta": {"_type": "gradio.FileData"}}, ["stand-in"]]
    )
    assert event == "error"
    assert "Traceback" not in str(words)
    assert httpx2.get(f"{server.address}gradio_api/file={path}").status_code in (403, 404)


def test_an_address_is_not_fetched(server):
    sent = {"path": f"{server.address}config", "meta": {"_type": "gradio.FileData"}}
    event, answer = call(server, "timeline", [sent, ["stand-in"]])
    assert (event, answer["error"]) == ("error", "upload the file itself, not its address")
    event, answer = call(server, "score", [[sent], ["stand-in"]])
    assert (event, answer["error"]) == ("error", "upload the file itself, not its address")


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/process_recording",
        "gradio_api/run/predict",
        "gradio_api/component_server",
        "gradio_api/proxy=http://127.0.0.1",
        "gradio_api/stream/a/b/c",
        "openapi.json",
        "docs",
        "monitoring",
        "gradio_api//process_recording",
        "assets/../gradio_api/process_recording",
    ],
)
def test_what_the_page_does_not_need_is_not_there(server, path):
    assert httpx2.post(f"{server.address}{path}", files={"video": b"#EXTM3U"}).status_code in (404, 405)
    assert httpx2.get(f"{server.address}{path}").status_code == 404


def test_a_large_request_is_refused(server, tmp_path):
    def chunks():
        for _ in range(64):
            yield b"[1]," * 2**16

    address = f"{server.address}gradio_api/call/timeline"
    for body in (b"[1]," * 2**19, chunks()):
        response = httpx2.post(address, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 413
        assert "1048576 bytes, the limit here" in response.text


def test_what_a_stranger_sees_does_not_tell_where_detectors_and_program_are(server, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(3, 16000), 16000)
    shown = [httpx2.get(f"{server.address}{page}").text for page in ("", "config", "gradio_api/info")]
    shown += [str(timeline(server, tmp_path / "a.wav")), str(score(server, tmp_path / "a.wav"))]
    for text in shown:
        for secret in (SAMPLES, Path(app.__file__).parent, server.log.parent / "calibrated"):
            assert str(secret) not in text


def test_a_bug_is_shown_without_its_traceback():
    """Other errors than a UserError are left to gradio, which hides them from users but logs them."""
    with pytest.raises(gradio.Error, match="a b"):
        _with_user_errors_shown(raiser(UserError("a b")))()
    with pytest.raises(ZeroDivisionError):
        _with_user_errors_shown(raiser(ZeroDivisionError("secret")))()


def raiser(error):
    def function():
        raise error

    return function


def test_the_detectors_that_are_offered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert list(app._detectors(app.parse_args([]))) == ["stand-in"]
    torch.manual_seed(0)
    FINE_TUNED.parent.mkdir(parents=True)
    save_detector(Detector(PRESETS["small"]), FINE_TUNED)
    assert list(app._detectors(app.parse_args([]))) == ["fine-tuned"]  # the stand-in only stands in
    (tmp_path / "a").mkdir()
    save_detector(Detector(PRESETS["small"]), "a/x.safetensors")
    save_detector(Detector(PRESETS["small"]), "x.safetensors")
    Path("same.safetensors").write_bytes(Path("x.safetensors").read_bytes())
    paths = ["x.safetensors", "a/x.safetensors", "same.safetensors"]
    first, second = app._detectors(app.parse_args(["--checkpoint", *paths]))
    assert first == "x"
    assert second.startswith("x-")
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        app._detectors(app.parse_args(["--checkpoint", "none.pth"]))


def test_a_port_in_use_is_an_error_in_one_line(server, tmp_path):
    port = server.address.rstrip("/").rsplit(":", 1)[1]
    ended = run(app.main, "--port", port, folder=tmp_path)
    assert ended.code == 2
    remedy = "choose another port with --port, or another address with --host"
    assert ended.stderr == f"error: cannot listen on 127.0.0.1, port {port}: {remedy}\n"


def test_a_port_that_cannot_be_is_refused(capsys):
    with pytest.raises(SystemExit):
        app.parse_args(["--port", "65536"])
    assert "--port: '65536' is not a whole number from 1 to 65535" in capsys.readouterr().err


def test_gradios_own_client(server, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1, 16000), 16000)
    code = (
        "import sys; from gradio_client import Client, handle_file\n"
        "client = Client(sys.argv[1], verbose=False)\n"
        "print(client.predict([handle_file(sys.argv[2])], api_name='/score')[0]['results'][0]['score'])\n"
        "print(client.predict(handle_file(sys.argv[2]), api_name='/timeline')['seconds'])"
    )
    command = [sys.executable, "-c", code, server.address, tmp_path / "a.wav"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    expected = score(server, tmp_path / "a.wav")[0]["results"][0]["score"]
    assert done.stdout.split() == [str(expected), "1.0"]


def test_a_full_queue_refuses_requests(tmp_path):
    soundfile.write(tmp_path / "long.wav", tone(60, 16000), 16000)
    with served(tmp_path, "--max-queue", "1") as server:
        data = {"data": [*upload(server, tmp_path / "long.wav"), ["stand-in"]]}

        def ask(_):
            return httpx2.post(f"{server.address}gradio_api/call/timeline", json=data, timeout=60)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < 8
        assert all("Queue is full" in answer.text for answer in refused)


def test_the_page_listens_to_this_machine_alone_by_default(monkeypatch):
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    assert app.parse_args([]).host == "127.0.0.1"
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")  # as Hugging Face Spaces does
    assert app.parse_args([]).host == "0.0.0.0"

"""The programs as torchrun and accelerate start them."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, SETTINGS, copy_samples, fresh_detector, write_training_data
from processes import SECONDS, free_port

from antispoofing.commands.tasks import STAND_IN
from antispoofing.detectors.loading import save_detector

pytestmark = pytest.mark.slow

# This is evaluate_custom.py, except that process 1 fails while it scores.
FAILING = """
import functools, sys
import evaluate_custom
from antispoofing import distributed
from antispoofing.scoring import score
from data_utils import load_with_info

def load(path, *args):
    if distributed.rank() == 1:
        raise RuntimeError("out of order")
    return load_with_info(path, *args)

score.score_recordings = functools.partial(score.score_recordings, load=load)
sys.exit(evaluate_custom.main())
"""


def start(folder: Path, *command, module: str = "torch.distributed.run") -> subprocess.Popen:
    """Start a launcher with this command, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, command)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Return a process's exit code, stdout and stderr; fail if it does not end."""
    with process:
        try:
            shown, said = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # so that it ends its processes
            pytest.fail(f"it hangs: {process.communicate(timeout=60)}")
    return process.returncode, shown, said


def torchrun(folder: Path, *command) -> tuple[int, str, str]:
    """Run a command in two processes on this machine; return exit code, stdout and stderr."""
    return finish(start(folder, "--standalone", "--nproc-per-node", 2, *command))


def errors_in(said: str) -> list[str]:
    """Return our own error lines, without torchrun's."""
    return [line for line in said.splitlines() if line.startswith("error")]


def test_two_processes(tmp_path):
    copy_samples(tmp_path / "data", 5)
    args = ("--data", tmp_path / "data", "--checkpoint", STAND_IN, "gone.pth")
    code, shown, said = torchrun(tmp_path / "here", ROOT / "evaluate_custom.py", *args)
    assert code != 0
    assert errors_in(said) == ["error: gone.pth: no such file"]
    assert shown.count("on cpu, fp32, in 2 processes") == 1
    metrics = json.loads((tmp_path / "here/results/custom/detector/metrics.json").read_text())
    assert metrics["counts"]["bonafide_scored"] == metrics["counts"]["spoof_scored"] == 5


def test_two_machines(tmp_path):
    copy_samples(tmp_path / "data", 5)
    archive = shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "data")
    args = ("--data", "data.zip", "--checkpoint", STAND_IN, "--no-audit", "--batch-size", 3)
    options = ("--nnodes", 2, "--nproc-per-node", 1)
    options += ("--master-addr", "127.0.0.1", "--master-port", free_port())
    machines = []
    for i, name in enumerate(("here", "there")):
        (tmp_path / name).mkdir()
        shutil.copy(archive, tmp_path / name)
        own = ("--node-rank", i, ROOT / "evaluate_custom.py")
        machines.append(start(tmp_path / name, *options, *own, *args))
    (code, _, said), other = map(finish, machines)
    assert (code, errors_in(said)) == (0, [])
    assert other[:2] == (0, "")
    assert (tmp_path / "here/results/custom/detector/scores.csv").is_file()
    assert not (tmp_path / "there/results").exists()


def test_a_process_that_breaks_ends_all(tmp_path):
    copy_samples(tmp_path / "data", 8)
    (tmp_path / "failing.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{FAILING}")
    args = ("--data", "data", "--checkpoint", STAND_IN, "--no-audit", "--workers", 0)
    code, _, said = torchrun(tmp_path, "failing.py", *args)
    assert code != 0
    assert errors_in(said) == []
    assert said.count("RuntimeError: out of order") == 1
    assert not list((tmp_path / "results").rglob("*.csv"))


def test_accelerate_launches_it_too(tmp_path):
    write_training_data(tmp_path / "data")
    save_detector(fresh_detector(), tmp_path / "start.safetensors")
    launch = ("--multi_gpu", "--num_processes", 2)  # accelerate's options for two processes
    script = (ROOT / "fine_tune_for.py", *SETTINGS, "--no-wandb", "--epochs", 1)
    process = start(tmp_path / "here", *launch, *script, module="accelerate.commands.launch")
    code, shown, said = finish(process)
    assert code == 0, said
    assert "on cpu, in 2 processes" in shown

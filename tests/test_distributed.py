"""Groups of processes give the results of a single one, and no failure leaves the others waiting."""

import functools
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import copy_samples, fine_tuned_from
from processes import run_group, start_group

import antispoofing.__main__
import evaluate_custom
import evaluate_custom_for
from antispoofing import distributed
from antispoofing.commands.tasks import STAND_IN
from antispoofing.data.recordings import find_recordings
from antispoofing.detectors.devices import resolve_device
from antispoofing.errors import DataError, DeviceError, UserError
from antispoofing.project import SAMPLES
from antispoofing.scoring import score
from data_utils import load_with_info


def watched(argv: list[str]) -> int:
    """Run evaluate_custom.py; each process lists what it decodes, and process 1 can be made to fail."""
    distributed.GRACE = 0.1  # since nothing ends the other processes of this group

    def load(path, *args):
        if "FAILURE" in os.environ and distributed.rank() == 1:
            raise OSError("out of order")
        with open(f"decoded-{distributed.rank()}.txt", "a") as file:
            print(path, file=file)
        return load_with_info(path, *args)

    score.score_recordings = functools.partial(score.score_recordings, load=load)
    return evaluate_custom.main(argv)


@pytest.fixture
def one_process(monkeypatch):
    """Run a script's main in this process, with as many threads as the n processes of all machines have."""
    threads = torch.get_num_threads()

    def run(main, folder: Path, n: int, *args, machines: int = 1) -> int:
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        torch.set_num_threads(machines * n * max(1, distributed.cores() // n))
        return main([*map(str, args)])

    yield run
    torch.set_num_threads(threads)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, without the time of the start that some contain."""
    return {
        str(p.relative_to(folder)): re.sub(rb'  "started": .*\n', b"", p.read_bytes())
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_two_processes_give_the_results_of_one(tmp_path, one_process, capsys):
    copy_samples(tmp_path / "data", 12)
    for i in (1, 5, 20):
        Path(find_recordings([tmp_path / "data"]).utterances[i].path).write_bytes(b"no recording")
    (tmp_path / "data/Fake/odd.wav").write_bytes(b"")  # 25 recordings, 4 batches
    args = ("--data", tmp_path / "data", "--checkpoint", "gone.pth", STAND_IN, "--batch-size", 7)
    args += ("--scores-as", "arena", "--workers")
    assert one_process(evaluate_custom.main, tmp_path / "one", 2, *args, 1) == 2
    expected = capsys.readouterr()

    main, other = run_group(2, watched, *args, 1, folder=tmp_path / "two")
    assert main.code == other.code == 2
    assert main.stderr == expected.err == "error: gone.pth: no such file\n"
    assert main.stdout == expected.out.replace("on cpu, fp32", "on cpu, fp32, in 2 processes")
    assert other[1:] == ("", "")
    results = contents(tmp_path / "two/results")
    assert results == contents(tmp_path / "one/results")
    assert json.loads(results["custom/detector/metrics.json"])["counts"]["failed"] == 4
    assert {"scores.csv", "roc.png", "scores_arena.txt"} < {Path(name).name for name in results}

    paths = [str(u.path) for u in find_recordings([tmp_path / "data"]).utterances]
    decoded = [(tmp_path / f"two/decoded-{i}.txt").read_text().splitlines() for i in range(2)]
    assert decoded == [paths[:6] + paths[12:18], paths[6:12] + paths[18:]]


def test_more_processes_than_batches(tmp_path, one_process):
    copy_samples(tmp_path / "data", 2)
    args = ("--data", tmp_path / "data", "--checkpoint", STAND_IN, "--no-audit")
    assert one_process(evaluate_custom.main, tmp_path / "one", 3, *args) == 0
    ended = run_group(3, evaluate_custom.main, *args, folder=tmp_path / "three")
    assert [(process.code, process.stderr) for process in ended] == 3 * [(0, "")]
    assert contents(tmp_path / "three/results") == contents(tmp_path / "one/results")


def test_before_and_after_in_two_processes(tmp_path, one_process, monkeypatch, capsys):
    copy_samples(tmp_path / "data", 9)
    monkeypatch.chdir(tmp_path)
    shutil.copy(STAND_IN, "start.safetensors")
    fine_tuned_from(tmp_path / "start.safetensors", Path("tuned.safetensors"))
    args = ("--data", tmp_path / "data", "--checkpoint", tmp_path / "tuned.safetensors")
    assert one_process(evaluate_custom_for.main, tmp_path / "one", 2, *args) == 0
    expected = capsys.readouterr().out
    main, other = run_group(2, evaluate_custom_for.main, *args, folder=tmp_path / "two")
    assert other == (main.code, "", main.stderr) == (0, "", "")
    assert main.stdout == expected.replace("on cpu, fp32", "on cpu, fp32, in 2 processes")
    results = contents(tmp_path / "two/results")
    assert results == contents(tmp_path / "one/results")
    assert "custom_for/change.png" in results


def test_two_machines_each_with_its_own_archive(tmp_path, one_process):
    copy_samples(tmp_path / "data", 5)
    archive = shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "data")
    args = ("--data", "data.zip", "--checkpoint", STAND_IN, "--no-audit", "--batch-size", 3)
    for name in ("one", "here", "there"):
        (tmp_path / name).mkdir()
        shutil.copy(archive, tmp_path / name)
    assert one_process(evaluate_custom.main, tmp_path / "one", 1, *args, machines=2) == 0

    folders = [tmp_path / "here", tmp_path / "there"]
    main, other = (process.end() for process in start_group(2, evaluate_custom.main, *args, folders=folders))
    assert other == (main.code, "", main.stderr) == (0, "", "")
    assert (tmp_path / "there/data.zip.extracted").is_dir()
    assert not (tmp_path / "there/results").exists()
    here, one = (contents(tmp_path / name / "results") for name in ("here", "one"))
    metrics = [json.loads(files.pop("custom/detector/metrics.json")) for files in (here, one)]
    assert metrics[0] == metrics[1] | {"data_root": str(tmp_path / "here/data.zip.extracted")}
    assert here == one


@pytest.mark.parametrize(
    ("main", "args", "words"),
    [
        (evaluate_custom.main, ("--data", "gone", "--checkpoint", STAND_IN), "gone: no such file or folder"),
        (evaluate_custom.main, ("--checkpoints",), "unrecognized arguments: --checkpoints"),
        (
            antispoofing.__main__.main,
            ("audit", "--data", SAMPLES),
            "audit runs in one process: start it without torchrun",
        ),
    ],
)
def test_an_error_of_all_processes_is_printed_once(main, args, words, tmp_path):
    first, other = run_group(2, main, *args, folder=tmp_path)
    assert first.code == other.code == 2
    assert first.stdout == other.stdout == other.stderr == ""
    assert first.stderr.count(words) == 1
    assert "process 1 of 2" not in first.stderr


def test_a_process_that_fails_fails_all(tmp_path):
    copy_samples(tmp_path / "data", 8)
    args = ("--data", "data", "--checkpoint", STAND_IN, "--no-audit", "--workers", 0)
    main, other = run_group(2, watched, *args, folder=tmp_path, FAILURE="1")
    assert main.code == other.code == 2
    assert main.stderr == "error: another process has ended, or cannot be reached\n"
    assert other.stderr == "error (process 1 of 2): out of order\n"
    assert not list((tmp_path / "results").rglob("*.csv"))


def outcome(work, *alike):
    """Return what `on_all_ranks` returns, or the error that it raises and the process it comes from."""
    try:
        return distributed.on_all_ranks(work, *alike)
    except (UserError, SystemExit) as error:
        return type(error).__name__, *error.args, getattr(error, "process", None)


def fail(error):
    raise error


def take_turn():
    time.sleep((1 - distributed.rank()) / 2)
    with open("turns.txt", "a") as file:
        file.write(str(distributed.rank()))
    return "done"


def fail_in_turn():
    take_turn()
    fail(DataError("a", f"b{distributed.rank()}"))


def collect(rank: int) -> None:
    """Do everything that processes do together, on each of two."""
    assert torch.get_num_threads() == (distributed.cores(), 7)[rank]
    print("only the main one")
    assert distributed.all_gather(f"I am {rank}") == ["I am 0", "I am 1"]
    assert outcome(take_turn) == "done"
    assert outcome(fail_in_turn) == ("DataError", "a", "b0", 0)
    missing = ("UserError", "gone: No such file or directory", 1)
    assert outcome(lambda: Path("gone").read_text() if rank else 3) == missing
    assert outcome(lambda: fail(SystemExit(rank + 1))) == ("SystemExit", 1, None)
    unlike = "colour is red here, but blue in process 0: make them the same"
    colours = {"size": 1, "colour": ("blue", "red")[rank]}
    assert outcome(lambda: 3, lambda result: colours) == ("DataError", unlike, 1)

    values = np.array([[-0.0, np.nan], [1e300, -np.inf], [0.1, 5e-324]])
    mine = [[1], [0, 2]][rank]
    given = np.full_like(values, np.nan)
    given[mine] = values[mine]
    distributed.all_merge(given, np.array(mine))
    assert given.tobytes() == values.tobytes()
    for wrong in (
        [0, 1],
        [[0, 1], [0, 1, 2]][rank],
        [rank],
    ):  # one row twice and one never; one twice; one never
        with pytest.raises(RuntimeError, match="shared wrongly"):
            distributed.all_merge(given, np.array(wrong))
    with pytest.raises(RuntimeError, match="out of step"):
        distributed.all_merge(given, np.array(mine)) if rank else distributed.all_gather(3)
    with pytest.raises(RuntimeError, match="out of step"):
        distributed.all_merge(given[rank:], np.array(mine))


def in_group(_: list[str]) -> int:
    rank = distributed.rank()
    torch.set_num_threads(7)
    if rank == 1:
        os.environ["OMP_NUM_THREADS"] = "7"  # as a user may set it
    with pytest.raises(KeyError), distributed.group():
        collect(rank)
        raise KeyError
    assert not torch.distributed.is_initialized()
    return 5


def test_what_processes_do_together(tmp_path):
    main, other = run_group(2, in_group, folder=tmp_path)
    assert main == (5, "only the main one\n", "")
    assert other == (5, "", "")
    assert (
        tmp_path / "turns.txt"
    ).read_text() == "010"  # one process of a machine first, the others only if it succeeds


def as_one_of(monkeypatch, rank: int, size: int, local_rank: int, local_size: int) -> None:
    for name, value in (
        ("RANK", rank),
        ("WORLD_SIZE", size),
        ("LOCAL_RANK", local_rank),
        ("LOCAL_WORLD_SIZE", local_size),
    ):
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("n", [0, 1, 5, 23, 24, 25, 1000])
@pytest.mark.parametrize("batch_size", [1, 4, 8])
@pytest.mark.parametrize("streams", [[1, 1], [2, 2, 2], [1, 4]])
def test_whole_batches_are_shared_out_once(n, batch_size, streams, monkeypatch):
    """The batches are those of one process with as many streams, in as few rounds as possible."""
    alone = distributed.shard(n, batch_size, [sum(streams)])
    assert [i for batch in alone for i in batch] == list(range(n))
    sizes = set(map(len, alone))
    assert max(sizes, default=0) <= batch_size
    assert len(sizes) < 2 or max(sizes) - min(sizes) == 1
    rounds = -(-n // (batch_size * sum(streams)))
    shared = []
    for rank in range(len(streams)):
        as_one_of(monkeypatch, rank, len(streams), 0, 1)
        mine = distributed.shard(n, batch_size, streams)
        assert len(mine) <= rounds * streams[rank]
        shared += mine
    assert sorted(shared, key=lambda batch: batch.start) == alone


def test_each_process_has_its_own_device_and_its_share_of_the_cores(monkeypatch):
    alone = distributed.cores()
    as_one_of(monkeypatch, 5, 8, 1, 2)
    assert not distributed.is_main()
    assert distributed.cores() == max(1, alone // 2)
    with pytest.raises(DeviceError, match=r"'cuda:1' is not available here: .* no more processes"):
        resolve_device("cuda")
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    assert distributed.cores() == 1


def test_without_all_of_torchruns_variables_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "3")
    assert (distributed.rank(), distributed.size(), distributed.is_main()) == (0, 1, True)
    with distributed.group():
        assert not torch.distributed.is_initialized()
        assert distributed.all_gather(4) == [4]
        with pytest.raises(DataError) as caught:
            distributed.on_all_ranks(lambda: find_recordings(["gone"]))
    assert caught.value.process is None
    values = np.array([[1.0]])
    distributed.all_merge(values, np.array([0]))
    assert values == 1

"""Calibrate a detector on recordings whose labels are known, so that its verdicts say how sure they are.

    python -m antispoofing calibrate LA_model.pth --data my_folder
    python -m antispoofing calibrate LA_model.pth --scores results/custom/LA_model/scores.csv

The calibration is written beside the detector's file, where every command finds it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from antispoofing import metrics
from antispoofing.commands import options, tasks
from antispoofing.commands.run import run_script
from antispoofing.data.recordings import Utterance, list_sha256
from antispoofing.errors import CheckpointError, DataError
from antispoofing.files import atomic_write
from antispoofing.project import Invocation
from antispoofing.scoring.calibration import (
    FOLDS,
    SURE,
    Calibration,
    calibration_file,
    held_out_figures,
)
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.score_files import as_scored, read_scores
from antispoofing.scoring.scored import Scored
from antispoofing.text import printable


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing calibrate",
        description="Calibrate a detector on recordings with labels. They should be of the kind that it is "
        "to judge, and none of those by which it is then evaluated.",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="DETECTOR", help="detector file, .pth or .safetensors, or hub:..."
    )
    options.add_data_options(
        parser,
        "recordings with labels, to be scored: a folder with real and fake subfolders, a list of labels, a "
        "published data set, or any of these as zip or tar",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="instead of --data: this detector's scores of such recordings, as evaluate_custom.py writes "
        "them",
    )
    options.add_machine_options(parser)
    options.add_general_options(parser)
    args = parser.parse_args(argv)
    if bool(args.data) == bool(args.scores):
        parser.error("name either --data or --scores")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or 2 after one line on stderr that says what is wrong."""
    return run_script("-m antispoofing calibrate", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Score the recordings or read their scores, fit a calibration and write it; return the exit code.

    Raises:
        UserError: If the options, the data, the scores or the detector cannot be used.
        OSError: If the calibration cannot be written.
    """
    tasks.must_exist(args.data or [])
    checkpoint = tasks.fetched(args.checkpoint)
    if args.scores:
        scored, about, weights = _read(args.scores, checkpoint)
    else:
        scored, about, weights = _score(args, checkpoint)
    bonafide, spoof = scored.bonafide, scored.spoof
    if not (len(bonafide) and len(spoof)):
        raise DataError("a calibration needs scores of both real and fake recordings")
    fitted_on = f"{len(bonafide)} real and {len(spoof)} fake recordings of {about['data']}"
    calibration = Calibration.fit(bonafide, spoof, fitted_on, list_sha256(scored.utterances))
    if calibration is None:
        why = (
            "the scores of these recordings are too extreme for a straight line to fit them"
            if metrics.compute_auc(bonafide, spoof) > 0.5
            else "on these recordings, higher scores do not mean more likely real"
        )
        raise DataError(f"{why}, so there is no calibration")
    held_out = held_out_figures(bonafide, spoof, find_clusters(scored.utterances).of(scored))
    content = {
        "detector": weights.name,
        **about,
        "calibration": calibration.to_dict(),
        "held_out": held_out,
        **invocation.to_dict(),
    }
    path = calibration_file(weights)
    with atomic_write(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names may be any bytes
    print(f"\n{printable(_describe(held_out))}")
    print(f"A clip is now {printable(Rule(calibration=calibration).describe())}.")
    print(f"\nThe calibration is in {path}. Remove that file to be rid of it.")
    return 0


def _score(args: argparse.Namespace, checkpoint: Path) -> tuple[Scored, dict[str, str], Path]:
    """Score the recordings; return the scores, which data and detector they are of, and its weights' file."""
    from antispoofing.scoring.score import score_recordings

    found = tasks.find(args.data, args.root, args.phase, options.reading(args), must_have_labels=True)
    scoring = options.ScoringOptions.from_args(args)
    detector = tasks.load(checkpoint, scoring)
    assert detector.path is not None  # set by load_detector
    tasks.prepare_output(detector.path.parent, what="the calibration is kept beside the detector, in")
    scored = score_recordings(
        detector, found.utterances, batch_size=scoring.batch_size, workers=scoring.workers
    )
    return scored, {"detector_sha256": tasks.digest(detector), "data": found.root.name}, detector.path


def _read(path: Path, checkpoint: Path) -> tuple[Scored, dict[str, str], Path]:
    """Read scores; return them, which data and detector they are of, and the file of its weights.

    Raises:
        CheckpointError: If the results that the scores belong to name another detector.
        DataError: If they cannot be read.
        OSError: If a file cannot be read.
    """
    from antispoofing.detectors.loading import files_of, sha256_of

    detector = files_of(checkpoint)
    scores, digest = read_scores(path), sha256_of(detector)
    results, data = path.with_name("metrics.json"), path.name
    try:
        content = json.loads(results.read_text(encoding="utf-8"))
        of_scores = content["detector"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        print(
            f"That these are scores by {checkpoint} was not checked: no results that say so are beside them."
        )
    else:
        if of_scores != digest:
            raise CheckpointError(
                f"{path} has the scores of another detector than {checkpoint}: see {results}"
            )
        data = Path(str(content.get("data_root", path))).name
    utterances = [Utterance(s.name, s.name, s.label, s.name, s.columns) for s in scores]
    return as_scored(utterances, scores), {"detector_sha256": digest, "data": data}, detector[0]


def _describe(held_out: dict | None) -> str:
    """Say what the calibration keeps of what it promises, on clips that it was not fitted on."""
    if held_out is None:
        return (
            "The recordings, or the groups of them that belong together, are too few to hold some out "
            f"({FOLDS} of each class are needed), so nobody knows how good the calibration is."
        )
    sure, wrong, clips = (held_out[name] for name in ("sure", "wrong", "clips"))
    words = (
        f"On clips held out ({FOLDS}-fold cross-validation): Cllr {held_out['cllr']:.3f} bits (the least "
        f"possible is {held_out['min_cllr']:.3f}, and 1 is useless), actual DCF {held_out['act_dcf']:.3f}; "
        f'{clips - sure} of {clips} clips get the verdict "not sure"'
    )
    if not sure:
        return f"{words}."
    return f"{words}, and of the other {sure}, {wrong} are wrong ({100 * (1 - SURE):.0f} % may be)."

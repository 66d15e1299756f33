"""Read the scores of a speaker verification (ASV) system, for the t-DCF.

ASVspoof 2019 has them in one file, a line for each trial: ID KEY SCORE. ASVspoof 2021 has them in two,
`ASV/ASVTorch_Kaldi/score.txt` (SPEAKER UTTERANCE SCORE) and `ASV/trial_metadata.txt`, with the key in the
sixth of eight columns and the phase in the last. Keys are target, nontarget and spoof.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from antispoofing.data.labels import EVAL
from antispoofing.errors import DataError
from antispoofing.tdcf import ASVSPOOF_2019, ASVSPOOF_2021, AsvRates, asv_rates
from antispoofing.text import counted

METADATA = "trial_metadata.txt"
KEYS = ("target", "nontarget", "spoof")


def read_asv_rates(path: Path, phase: str | None = None) -> tuple[AsvRates, str]:
    """Return an ASV system's error rates, and the formula of the t-DCF that goes with the file.

    Args:
        path: The file of scores.
        phase: The phase of ASVspoof 2021; None for "eval".

    Raises:
        DataError: If the file has neither form, lacks a kind of trial, or its keys are not found.
        OSError: If a file cannot be read.
    """
    rows = _rows(path, 3)
    if {row[1] for row in rows} <= set(KEYS):
        scores = [(row[1], _number(path, number, row[2])) for number, row in enumerate(rows, 1)]
        return _rates(path, scores), ASVSPOOF_2019
    places = (path.with_name(METADATA), path.parent.parent / METADATA)
    metadata = next((place for place in places if place.is_file()), None)
    if metadata is None:
        raise DataError(
            f"{path}: the second column is not one of {', '.join(KEYS)} (ASVspoof 2019), and there is no "
            f"{METADATA} (ASVspoof 2021) beside it or one folder up"
        )
    key_of = {
        (row[0], row[1]): row[5] for row in _rows(metadata, 8) if phase == "all" or row[7] == (phase or EVAL)
    }
    if not key_of:
        raise DataError(f"{metadata} has no trials of phase {phase or EVAL}")
    scores = [
        (key_of[row[0], row[1]], _number(path, number, row[2]))
        for number, row in enumerate(rows, 1)
        if (row[0], row[1]) in key_of
    ]
    return _rates(path, scores), ASVSPOOF_2021


def _rows(path: Path, width: int) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8") from error
    rows = [line.split() for line in text.splitlines() if line.strip()]
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) != width), None)
    if not rows or wrong:
        where = (
            f", row {wrong}: {counted(len(rows[wrong - 1]), 'column')} instead of {width}"
            if wrong
            else " is empty"
        )
        raise DataError(f"{path}{where}")
    return rows


def _number(path: Path, row: int, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise DataError(f"{path}, row {row}: the score {text!r} is not a usable number")
    return number


def _rates(path: Path, scores: list[tuple[str, float]]) -> AsvRates:
    by_key = {key: np.array([score for of, score in scores if of == key]) for key in KEYS}
    if missing := next((key for key, values in by_key.items() if len(values) == 0), None):
        raise DataError(f"{path} has no scores of {missing} trials")
    return asv_rates(*by_key.values())

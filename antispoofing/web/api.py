"""The answers of the HTTP interface, as JSON types. A higher score means more likely real."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from antispoofing.audio import cautions
from antispoofing.errors import DataError
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import COLUMNS
from antispoofing.web.service import NOTHING, NamedDetector, Service


def score(service: Service, files: Sequence[str], detectors: Sequence[str]) -> list[dict]:
    """Score the beginning of each recording, as evaluate_custom.py does. Higher = more likely real.

    Args:
        service: The detectors.
        files: The uploaded files.
        detectors: The names of the detectors to use.

    Returns:
        For each file its name, and the results: for each detector a decision, or an error.

    Raises:
        DataError: If there is no file, or as in `Service.uploaded`, `Service.score` and `Service.chosen`.
    """
    if not files:
        raise DataError(NOTHING)
    chosen = service.chosen(detectors)
    scored = service.score(service.uploaded(files), detectors)
    answers = []
    for i, utterance in enumerate(next(iter(scored.values())).utterances):
        results = [_answer(named, scored[named.name], i) for named in chosen]
        answers.append({"file": utterance.name, "results": results})
    return answers


def _answer(named: NamedDetector, scored: Scored, i: int) -> dict:
    answer = {"detector": named.name, "sha256": named.detector.sha256}
    if i in scored.failures:
        return answer | {"error": scored.failures[i]}
    return answer | named.rule.decide(scored.logits[i])._asdict()


def timeline(service: Service, file: str | None, detectors: Sequence[str]) -> dict:
    """Score a whole recording, window by window. Higher = more likely real.

    Args:
        service: The detectors.
        file: The uploaded file.
        detectors: The names of the detectors to use.

    Returns:
        The file's name, its length in seconds, cautions, and for each detector what it makes of the whole
        ("overall"), the windows, and the stretches that sound synthetic.

    Raises:
        DataError: If there is no file, or as in `Service.hear`.
    """
    if not file:
        raise DataError(NOTHING)
    heard, results = service.hear(file, detectors), []
    for named in service.chosen(detectors):
        made = heard.timelines[named.name]
        results.append(
            {
                "detector": named.name,
                "sha256": named.detector.sha256,
                "overall": made.overall,
                "rule": named.rule.basis,
                "mean_margin": float(made.margins.mean()),
                "windows": [dict(zip(COLUMNS, row, strict=True)) for row in made.rows()],
                "stretches": [dataclasses.asdict(stretch) for stretch in made.suspicious()],
            }
        )
    return {
        "file": heard.name,
        "seconds": len(heard.wave) / heard.sample_rate,
        "cautions": cautions(heard.wave, heard.sample_rate, heard.info.note),
        "results": results,
    }

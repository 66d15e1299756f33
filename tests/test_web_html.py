"""The HTML of results: its sentences, its embedded files, and that no stranger's text becomes markup."""

import base64
import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from helpers import write_zip
from PIL import Image

from antispoofing.commands.tasks import STAND_IN
from antispoofing.data.recordings import Utterance
from antispoofing.detectors.loading import load_detector
from antispoofing.errors import DataError
from antispoofing.project import SAMPLES
from antispoofing.report.detector_card import detector_card
from antispoofing.sandbox import Sandbox
from antispoofing.scoring.calibration import Calibration
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import Timeline
from antispoofing.web import html as web_page
from antispoofing.web.limits import Limits
from antispoofing.web.service import HeardRecording, NamedDetector, Service
from data_utils import AudioInfo

HOSTILE = "<img src=x onerror=alert(1)>&\n\"'.wav"


class Page(HTMLParser):
    """The tags with their attributes, and the text, of HTML in which every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def content(uri):
    return base64.b64decode(uri.partition("base64,")[2])


def table(link):
    return list(csv.DictReader(io.StringIO(content(link["href"]).decode())))


@pytest.fixture(scope="module")
def stand_in():
    return load_detector(STAND_IN, device="cpu")


def named(stand_in, name="stand-in", calibration=None):
    return NamedDetector(name, stand_in, Rule(calibration=calibration))


SURE = Calibration(1.0, 0.0, 50.0, "9 clips", real_from=0.0, fake_to=0.0)


def recording(detectors, margins, name="a.wav"):
    starts = 2.0 * np.arange(len(margins))
    seconds = starts[-1] + 4
    wave = (0.1 * np.random.default_rng(0).standard_normal(int(16000 * seconds))).astype(np.float32)
    logits = np.stack([np.zeros(len(margins)), margins], axis=1)
    timelines = {named.name: Timeline(starts, starts + 4, logits, named.rule) for named in detectors}
    return HeardRecording(name, wave, 16000, AudioInfo("WAV", 44100, seconds), timelines)


@pytest.mark.parametrize(
    ("margins", "words", "kind"),
    [
        ([3.0], "✓ Sounds real", "real"),
        ([-3.0], "✗ Sounds synthetic (fake)", "fake"),
        ([1.0], "? Not sure", "not-sure"),
        ([5.0] * 3 + [-5.0] * 3, "≠ Mixed: parts sound real, parts synthetic", "mixed"),
    ],
)
def test_the_verdict_in_words(stand_in, margins, words, kind):
    detectors = [named(stand_in, calibration=SURE)]
    page = Page(web_page.timeline_html(recording(detectors, margins), detectors))
    assert words in page.text
    assert [section["class"] for section in page.all("section")] == [f"judged {kind}"]
    assert stand_in.sha256 in page.text
    assert "EER 5.9 %" in page.text
    assert "do not judge real recordings by it" in page.text


@pytest.mark.parametrize(
    ("margins", "kind"), [([1.0], "real"), ([-0.1], "fake"), ([5.0] * 3 + [-6.0] * 3, "fake")]
)
def test_nothing_is_sure_without_a_calibration(stand_in, margins, kind):
    detectors = [named(stand_in)]
    page = Page(web_page.timeline_html(recording(detectors, margins), detectors))
    assert [section["class"] for section in page.all("section")] == [f"judged {kind}"]
    assert "No probability: this detector is not calibrated." in page.text
    assert "uncalibrated: this does not say how sure that is" in page.text
    assert "surely" not in page.text


def test_score_threshold_and_probability(stand_in):
    detectors = [named(stand_in, calibration=Calibration(2.0, -1.0, 5.0, "7 clips"))]
    page = Page(web_page.timeline_html(recording(detectors, [1.5]), detectors))
    assert (
        "Score 1.500 (higher = more likely real); threshold 0.500. The score is on the real side" in page.text
    )
    assert "with a margin of 2.00 (it can never be sure)" in page.text
    assert "Probability that it is real: 88.1 %" in page.text
    assert "calibrated on 7 clips" in page.text


def test_a_long_recording_has_its_rule_its_picture_and_its_stretches(stand_in):
    detectors = [named(stand_in, calibration=SURE)]
    page = Page(web_page.timeline_html(recording(detectors, [5, -1, -9, -9, 40]), detectors))
    assert "5 windows with scores from -9.00 to 40.00" in page.text
    assert "(2.94 or more is surely real, -2.94 or less is surely fake)" in page.text
    assert "mixed where windows in a row, at least two without overlap, are surely real" in page.text
    assert "0:03.0 to 0:05.0 leans towards synthetic, lowest margin -1.00" in page.text
    (picture,) = page.all("img")
    assert picture["alt"] == "Waveform, spectrogram, and the margin over 0:12.0 (stand-in: real)"
    with Image.open(io.BytesIO(content(picture["src"]))) as image:
        assert min(image.size) > 300
    players = page.all("audio")
    assert [p["aria-label"] for p in players] == [
        "Play the recording",
        "Play 0:03.0 to 0:05.0",
        "Play 0:05.0 to 0:09.0",
    ]
    seconds = [soundfile.info(io.BytesIO(content(player["src"]))).duration for player in players]
    assert seconds == [12, 2, 4]
    (link,) = page.all("a")
    rows = table(link)
    assert [float(row["score"]) for row in rows] == [5, -1, -9, -9, 40]
    assert rows[0]["detector"] == "stand-in"


def test_a_silent_recording_gets_a_caution(stand_in):
    detectors = [named(stand_in)]
    silent = recording(detectors, [5.0])
    silent.wave[:] = 0
    assert "Caution: it is silent, or all but silent." in Page(web_page.timeline_html(silent, detectors)).text
    assert "Caution:" not in Page(web_page.timeline_html(recording(detectors, [5.0]), detectors)).text


def test_detectors_side_by_side(stand_in):
    detectors = [named(stand_in, "one"), named(stand_in, "two", SURE)]
    page = Page(web_page.timeline_html(recording(detectors, [-5.0, -5.0]), detectors))
    assert len(page.all("section")) == 2
    for name, says in (("one", "Leans towards fake"), ("two", "Sounds synthetic (fake)")):
        assert f"{says} ({name})" in page.text
        assert f"What sounds synthetic to {name}" in page.text
    assert {row["detector"] for row in table(page.all("a")[0])} == {"one", "two"}


def test_many_stretches_are_not_all_listed(stand_in):
    detectors = [named(stand_in)]
    page = Page(web_page.timeline_html(recording(detectors, [9.0, 0.0, 9.0]), detectors))
    assert "No stretch sounds synthetic." in page.text
    margins = [9.0, -19.0, 9.0, 99.0] * 30
    page = Page(web_page.timeline_html(recording(detectors, margins), detectors))
    assert len(page.all("li")) == web_page.MOST_STRETCHES
    assert re.search(r"\.\.\. and \d+ more", page.text)


def test_a_long_stretch_is_played_in_part(stand_in):
    detectors = [named(stand_in)]
    page = Page(web_page.timeline_html(recording(detectors, [-9.0] * 20), detectors))
    assert "(its first 30 s)" in page.text
    assert soundfile.info(io.BytesIO(content(page.all("audio")[1]["src"]))).duration == 30


def scored(labels=("", "", ""), name=HOSTILE):
    utterances = [Utterance("/secret/x", f"{i}{name}", label) for i, label in enumerate(labels)]
    logits = np.array([[0.0, 5.0], [0.0, -5.0], [np.nan, np.nan]])
    return Scored(utterances, logits, {2: "the file is empty"})


def test_a_table_of_many(stand_in):
    detectors = [named(stand_in)]
    page = Page(web_page.table({"stand-in": scored(name=".wav")}, detectors))
    assert len(page.all("tr")) == 4
    for words in ("✓ real", "✗ fake", "not scored: the file is empty", "5.000", "recordingscoreverdict"):
        assert words in page.text
    (link,) = page.all("a")
    assert link["download"] == "scores.csv"
    assert [(row["path"], row["score"], row["verdict"], row["reason"]) for row in table(link)] == [
        ("0.wav", "5.0", "real", ""),
        ("1.wav", "-5.0", "fake", ""),
        ("2.wav", "", "", "the file is empty"),
    ]
    assert "/secret" not in page.text


def test_names_do_not_become_markup(stand_in):
    detectors = [named(stand_in, HOSTILE)]
    pages = [
        web_page.timeline_html(recording(detectors, [1.0, -9.0], HOSTILE), detectors),
        web_page.table({HOSTILE: scored()}, detectors),
    ]
    for html in pages:
        page = Page(html)
        assert "onerror=alert(1)>" in page.text
        assert not any("onerror" in attributes for _, attributes in page.tags)
        assert "<img src=x" not in html


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@a", "\tx"])
def test_a_name_is_no_formula_in_a_spreadsheet(stand_in, name):
    utterances = [Utterance("x", name, "")]
    scores = Scored(utterances, np.array([[0.0, -1.5]]), {})
    text = web_page.scores_csv({"stand-in": scores}, [named(stand_in)])
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["path"] == f"'{name}"
    assert row["score"] == "-1.5"


@pytest.fixture(scope="module")
def service(stand_in):
    with Sandbox(["data_utils"]) as sandbox:
        yield Service({"stand-in": stand_in}, sandbox, Limits())


def test_an_archive_with_labels_gets_auc_and_eer(service, tmp_path):
    clips = {}
    for folder in ("Real", "Fake"):
        for path in sorted((SAMPLES / "custom" / folder).iterdir())[:10]:
            clips[f"set/{folder}/{path.name}"] = path.read_bytes()
    archive = write_zip(tmp_path / "set.zip", clips)
    page = Page(web_page.results_html(service, [archive], ["stand-in"]))
    assert re.search(r"stand-in\s+\d\.\d{4} \[\d\.\d{4}, \d\.\d{4}\]", page.text)
    assert [picture["alt"] for picture in page.all("img")] == [
        f"{what} of stand-in" for what in ("roc", "det", "histogram")
    ]
    assert ("h2", {}) in page.tags
    assert "How good is it? Given a random real" in page.text
    assert len(table(page.all("a")[0])) == 20


def test_an_archives_own_words_do_not_become_markup(service, tmp_path):
    clips = {}
    for folder, name in (("Real", "`a ![x](http://a.b) <b>"), ("Fake", "`a [x](http://a.b) <b>")):
        for i, path in enumerate(sorted((SAMPLES / "custom" / folder).iterdir())[:8]):
            part = ("![x](y) <b>**z**", "<img src=x>$$y$$ [x](y)")[i % 2]
            clips[f"{folder}/{part}/{name.replace('/', '')}{i}.flac"] = path.read_bytes()
    page = Page(web_page.results_html(service, [write_zip(tmp_path / "set.zip", clips)], ["stand-in"]))
    assert "<img src=x>" in page.text
    assert {tag["href"][:5] for tag in page.all("a")} == {"data:"}
    assert {tag["src"][:5] for tag in page.all("img")} == {"data:"}
    assert len(page.all("b")) == len(detector_card(service.detectors["stand-in"].detector))


def test_an_archive_without_labels_gets_scores(service, tmp_path):
    archive = write_zip(
        tmp_path / "a.zip", {"a.flac": next((SAMPLES / "custom/Real").iterdir()).read_bytes()}
    )
    page = Page(web_page.results_html(service, [archive], ["stand-in"]))
    assert len(page.all("tr")) == 2
    assert "No AUC or EER" in page.text


def test_what_is_judged(service, tmp_path):
    first, second = sorted((SAMPLES / "custom/Real").iterdir())[:2]
    assert "<section" in web_page.results_html(service, [first], ["stand-in"])
    assert len(Page(web_page.results_html(service, [first, second], ["stand-in"])).all("tr")) == 3
    with pytest.raises(DataError, match="upload a recording"):
        web_page.results_html(service, [], ["stand-in"])
    archive = write_zip(tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"a\.zip is an archive: upload it alone"):
        web_page.results_html(service, [first, archive], ["stand-in"])

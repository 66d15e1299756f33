"""The families of detectors against the outputs of their own published code, from a file with its names."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from family_files import (
    CASES,
    SHORT,
    SPECTRA,
    TOY,
    clips,
    expected_logits,
    file_of,
    loaded,
    outputs,
    own_tensors,
    prepared,
    published,
    write_toy,
)
from helpers import copy_samples, read_scores
from scipy.interpolate import BSpline
from sklearn.metrics import roc_auc_score
from weights import fill, reference

import evaluate_custom
from antispoofing.commands import tasks
from antispoofing.data.recordings import Utterance
from antispoofing.detectors.checkpoints import PRETRAINING_ONLY, check_values
from antispoofing.detectors.families import FAMILIES, by_head, recognise
from antispoofing.detectors.layers import KANLinear
from antispoofing.detectors.loading import check_detector, for_scoring, load_detector, save_detector
from antispoofing.errors import CheckpointError
from antispoofing.report.detector_card import detector_card, family_notes
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.score import score_recordings, score_windows
from model import Detector


@pytest.fixture(scope="module", params=CASES)
def toy(request, tmp_path_factory):
    """A kind of file, and one of toy size."""
    folder = tmp_path_factory.mktemp("family")
    return CASES[request.param], write_toy(request.param, folder / "model.safetensors")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_names_and_shapes_are_the_published_ones(case):
    names = published(case)
    family = recognise(names)
    assert family is by_head(case.head)
    ours = {name: value.shape for name, value in own_tensors(case, None).items()}
    pretraining = {family.name_of(names)(key) for key in PRETRAINING_ONLY}
    assert {name: value.shape for name, value in names.items() if name not in pretraining} == ours
    assert [other for other in FAMILIES if other.owns(names)] == [family]
    assert not family.owns({name: value for name, value in names.items() if name != family.marks[0]})


def test_features_and_logits_are_those_of_the_published_code(toy):
    case, path = toy
    expected, detector = outputs(case.toy), loaded(path)
    assert detector.config.head == case.head
    assert detector.published_threshold == case.threshold
    waves = prepared(detector, clips(detector))
    for _ in range(2):  # before and after it is made fast
        with torch.inference_mode():
            features, logits = detector.features(waves).numpy(), detector(waves).numpy()
        if "features" in expected and case.head != "sls":  # whose features are those of every layer
            assert np.abs(features[:, ::20, ::8] - expected["features"]).max() < 2e-5
        assert np.abs(logits - expected_logits(detector, expected["logits"])).max() < 2e-5
        for_scoring(detector)


def test_clips_are_prepared_as_in_the_published_code(toy):
    case, path = toy
    expected, detector = outputs(case.toy), loaded(path)
    short = reference("xlsr300m")["waves"][2][:SHORT]
    wave = detector.config.prepare(short)
    assert len(wave) == (SHORT if detector.config.hears_whole else detector.config.clip_samples)
    if "prepared_third_0_to_8" in expected:
        assert wave[:8] == pytest.approx(expected["prepared_third_0_to_8"], abs=1e-6)
    if "prepared_third_19998_to_20006" in expected:
        assert wave[19998:20006] == pytest.approx(expected["prepared_third_19998_to_20006"], abs=1e-7)
    if "logits_20000" in expected:
        with torch.inference_mode():
            logits = detector(torch.from_numpy(wave)[None]).numpy()
        assert np.abs(logits - expected_logits(detector, expected["logits_20000"])).max() < 2e-5


def test_all_of_a_recording_is_scored_as_the_network_alone_would(toy, tmp_path):
    _, path = toy
    detector = loaded(path)
    waves = clips(detector)[:2]
    for i, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{i}.wav", wave[: 50000 + 5000 * i], 16000, subtype="FLOAT")
    found = [Utterance(str(tmp_path / f"{i}.wav"), str(i), None) for i in range(2)]
    scored = score_recordings(for_scoring(detector), found)
    assert scored.failures == {}
    with torch.inference_mode():
        alone = [
            detector(torch.from_numpy(detector.config.prepare(wave[: 50000 + 5000 * i]))[None]).numpy()
            for i, wave in enumerate(waves)
        ]
    assert np.abs(scored.logits - np.concatenate(alone)).max() < 2e-5
    timeline = score_windows(detector, waves[0], Rule.from_detector(detector), hop=1.0)
    with torch.inference_mode():
        window = detector(prepared(detector, [waves[0][:64600]])).numpy()
    assert np.abs(timeline.logits[0] - window).max() < 2e-5


def test_the_number_of_parts_of_a_nes2net_is_read_from_the_file(tmp_path):
    family = by_head("nes2net-x")
    detector = Detector(family.config({}, TOY), back_end=family.build(64, outer=4, inner=4))
    name_of = family.name_of({})
    names = {name_of(key): tuple(value.shape) for key, value in detector.state_dict().items()}
    tensors = {name: torch.from_numpy(np.asarray(fill(name, shape))) for name, shape in names.items()}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    detector = loaded(tmp_path / "model.safetensors")
    assert detector.config.head_sizes == {"outer": 4, "inner": 4, "squeeze": 1}
    expected = outputs("nes2net_x_toy44")
    with torch.inference_mode():
        logits = detector(prepared(detector, clips(detector))).numpy()
    assert np.abs(logits - expected["logits"]).max() < 2e-5


def test_the_layers_outputs_are_those_before_the_last_normalisation(tmp_path):
    """As fairseq gives them; versions of transformers differ in the last of them."""
    detector = loaded(write_toy("sls_toy", tmp_path / "model.safetensors"))
    expected = outputs("sls_toy")
    with torch.inference_mode():
        layers = detector.features(prepared(detector, clips(detector)))
        gates = torch.sigmoid(detector.back_end.fc0(layers.mean(2)))[..., None]
    assert layers.shape == (3, 2, 201, 64)
    np.testing.assert_allclose(layers.mean((2, 3)).T, expected["layer_mean"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(layers.flatten(2).std(2).T, expected["layer_std"], atol=2e-5, rtol=0)
    summed = (gates * layers).sum(1)[:, ::20, ::8]
    np.testing.assert_allclose(summed, expected["gated_sum"], atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match="takes 201 frames, of 64600 samples, not 62"):
        detector(torch.zeros(1, 20000))


def test_the_variance_in_spectra_0_is_unbiased(tmp_path):
    """Which moves the logits by 1e-5 only."""
    detector = loaded(write_toy("spectra_0_toy", tmp_path / "model.safetensors"))
    expected = outputs("spectra_0_toy")["attention_input"]
    taken: list[torch.Tensor] = []
    attention = detector.back_end.ecapa_tdnn.attention
    attention.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
    with torch.inference_mode():
        detector(prepared(detector, clips(detector)))
    np.testing.assert_allclose(torch.cat(taken)[:, ::97, 0], expected, atol=2e-5, rtol=0)


def test_where_a_softmax_is_published_the_score_is_the_difference_of_the_logits():
    family = by_head("antideepfake")
    detector = Detector(family.config({}, TOY), back_end=family.build(64)).eval()
    with torch.inference_mode():
        waves = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
        raw = detector.back_end(detector.features(waves))
        assert torch.equal(detector(waves)[:, 0], torch.zeros(2))
        assert torch.allclose(detector.score(waves).sigmoid(), raw.softmax(1)[:, 1])


def test_the_sinc_filters_and_the_embedding_of_raw_waveforms(tmp_path):
    for name in ("raw_aasist_full", "raw_aasist_l_full"):
        detector, expected = loaded(write_toy(name, tmp_path / f"{name}.safetensors")), outputs(name)
        np.testing.assert_allclose(detector.back_end.filters[::10], expected["filters"], atol=1e-7)
        with torch.inference_mode():
            embedding = detector.back_end.embedding(prepared(detector, clips(detector)))
        np.testing.assert_allclose(embedding, expected["embedding"], atol=5e-5, rtol=0)


def test_without_the_preparation_the_logits_are_others(toy):
    case, path = toy
    detector, made = loaded(path), outputs(case.toy)
    expected = made.get("logits_without_preemphasis", made.get("logits_not_normalised"))
    if expected is None:
        assert not (detector.config.pre_emphasis or detector.config.normalise_eps)
        return
    expected = expected_logits(detector, expected)
    with torch.inference_mode():
        logits = detector(torch.from_numpy(reference("xlsr300m")["waves"])).numpy()
        ours = detector(prepared(detector, clips(detector))).numpy()
    assert np.abs(logits - expected).max() < 2e-5
    assert np.abs(ours - expected).max() > 0.01


@pytest.mark.parametrize("name", SPECTRA)
def test_names_of_older_files_are_read_as_well(name, tmp_path):
    """Of weight normalisation, and of residual blocks, which have a level less elsewhere."""
    tensors = file_of(CASES[name])
    safetensors.torch.save_file(tensors, tmp_path / "new.safetensors")
    older = {
        re.sub(r"^(aasist\.enc\.enc\.\d)\.0\.", r"\1.", key)
        .replace("parametrizations.weight.original0", "weight_g")
        .replace("parametrizations.weight.original1", "weight_v"): value
        for key, value in tensors.items()
    }
    assert older.keys() != tensors.keys()
    safetensors.torch.save_file(older, tmp_path / "older.safetensors")
    states = [loaded(tmp_path / f"{kind}.safetensors").state_dict() for kind in ("new", "older")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_it_is_saved_and_read_again(toy, tmp_path):
    _, path = toy
    detector = loaded(path)
    save_detector(detector, tmp_path / "own.safetensors")
    again = load_detector(tmp_path / "own.safetensors", device="cpu")
    assert again.config == detector.config
    assert again.published_threshold == detector.published_threshold
    waves = prepared(detector, clips(detector)[:1])
    with torch.inference_mode():
        assert torch.equal(again(waves), detector(waves))


def test_a_folder_with_one_file_is_that_file(tmp_path):
    """As `git clone` leaves the published ones, whose config.json is empty."""
    path = write_toy("spectra_aasist_toy", tmp_path / "model.safetensors")
    for config in ("{}", '{"architectures": null}', None):
        (tmp_path / "config.json").unlink(missing_ok=True)
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        detector = loaded(tmp_path)
        assert (detector.config.head, detector.path) == ("spectra-aasist", path)
    for content, words in (("{", "config.json is not JSON"), ("[]", "does not hold a JSON object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=words):
            loaded(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "other.PTH").touch()
    assert loaded(tmp_path).path == path  # by the usual name
    path.rename(tmp_path / "one.safetensors")
    with pytest.raises(CheckpointError, match=r"several detector files, so .*: one.safetensors, other.PTH"):
        loaded(tmp_path)


def test_each_family_has_its_own_name_for_its_back_end():
    assert len({family.head for family in FAMILIES}) == len(FAMILIES)


def test_xlsr_with_aasist_is_told_from_aasist_on_raw_waveforms(small_official):
    assert [family.head for family in FAMILIES if family.owns(small_official)] == ["aasist"]


def test_what_is_heard_of_short_and_of_long_recordings(tmp_path):
    """Repeated after it was normalised, to the least that a front end takes; cut at 30 s."""
    config = loaded(write_toy("antideepfake_toy", tmp_path / "model.safetensors")).config
    short = np.random.default_rng(0).standard_normal(500).astype(np.float32) + 5
    normal = (short - short.mean()) / np.sqrt(short.var() + 1e-5)
    np.testing.assert_allclose(config.prepare(short), np.tile(normal, 3)[:1040], atol=1e-5)
    long = np.random.default_rng(0).standard_normal(31 * 16000).astype(np.float32)
    assert len(config.prepare(long)) == config.heard_samples == 30 * 16000
    assert config.prepare(long).std() == pytest.approx(1, abs=1e-4)


def test_networks_that_cannot_take_other_lengths_say_so():
    raw = by_head("raw-aasist").build(1).eval()
    with torch.inference_mode():
        assert raw(torch.randn(1, 2315)).isfinite().all()
    with pytest.raises(ValueError, match="takes at least 2315 samples, not 2314"):
        raw(torch.randn(1, 2314))
    back_end = by_head("spectra-aasist").build(64)
    with pytest.raises(ValueError, match="at most 400 frames have a position, not 401"):
        back_end(torch.zeros(1, 401, 64))


def test_kan_layers_are_b_splines_on_the_knots_of_the_file():
    """Also on knots that are not equally far apart, as scipy computes them."""
    layer = KANLinear(3, 2)
    knots = torch.cumsum(torch.rand(3, 25, generator=torch.Generator().manual_seed(0)) + 0.1, 1) - 2
    layer.grid.copy_(knots)
    torch.nn.init.ones_(layer.spline_scaler)
    x = torch.linspace(-1.5, 3, 20)[:, None].repeat(1, 3)
    with torch.inference_mode():
        found = layer(x) - torch.nn.functional.linear(layer.base_activation(x), layer.base_weight)
    expected = np.zeros((20, 2))
    for i in range(3):
        spline = BSpline(knots[i].numpy(), layer.spline_weight[:, i].detach().numpy().T, 4)
        inside = (x[:, i] >= knots[i, 0]) & (x[:, i] < knots[i, -1])
        bases = np.stack(
            [
                BSpline.basis_element(knots[i, k : k + 6].numpy(), extrapolate=False)(x[:, i].numpy())
                for k in range(20)
            ]
        )
        expected += np.nan_to_num(bases).T @ spline.c * inside[:, None].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("squeeze", [1, 8])
def test_how_a_nes2net_squeezes_is_read_from_the_file(squeeze):
    family = by_head("nes2net-x")
    tensors = family.build(1024, squeeze=squeeze).state_dict()
    assert family.config(tensors).head_sizes == {"outer": 8, "inner": 8, "squeeze": squeeze}


def test_the_card_of_a_family_claims_no_more_than_is_known_of_a_file(toy):
    case, path = toy
    family, detector = by_head(case.head), loaded(path)
    card = detector_card(detector)
    assert (card["Family"], card["Licence"]) == (family.name, family.licence)
    assert card["Trained on"] == f"not known for this file; published ones: {family.trained_on}"
    if family.figures:
        assert (
            f"not known for this file; EERs of published ones: {family.figures}" in card["Known error rates"]
        )
    assert family_notes(detector)[0] == f"Family: {family.name}; licence: {family.licence}"


def _truncated(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _not_a_number(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    key = next(key for key in reversed(tensors) if tensors[key].is_floating_point())
    for value in ("inf", "nan"):
        tensors[key].view(-1)[-1] = float(value)
        write(path, tensors)
        with pytest.raises(CheckpointError, match="has values that are not numbers"):
            loaded(path)


def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    (torch.save if path.suffix == ".pth" else safetensors.torch.save_file)(tensors, path)


DAMAGES = {
    "truncated": (_truncated, "damaged, or not a"),
    "extra key": (
        lambda path, tensors: write(path, tensors | {"extra.weight": torch.zeros(1)}),
        "unexpected key extra.weight",
    ),
    "no last key": (
        lambda path, tensors: write(path, dict(list(tensors.items())[:-1])),
        "missing key|not a detector of a kind",
    ),
    "another shape": (
        lambda path, tensors: write(
            path, {k: v[..., None].repeat_interleave(2, -1) for k, v in tensors.items()}
        ),
        "has shape",
    ),
    "whole numbers": (
        lambda path, tensors: write(path, {k: v.to(torch.int32) for k, v in tensors.items()}),
        "expected a floating-point type",
    ),
    "not a number": (_not_a_number, "has values that are not numbers"),
    "no tensors": (lambda path, tensors: write(path, {}), "not a detector of a kind|holds no tensors"),
}


@pytest.mark.parametrize(
    ("damage", "suffix"),
    [(damage, ".pth") for damage in DAMAGES]
    + [(damage, ".safetensors") for damage in ("truncated", "not a number")],
)
def test_a_damaged_file_is_one_clear_line(damage, suffix, toy, tmp_path):
    """Of every family, under the name of another family's file."""
    case, _ = toy
    path = tmp_path / f"LA_model{suffix}"
    tensors = file_of(case)
    write(path, tensors)
    assert loaded(path).config == check_detector(path, device="cpu", config=TOY).config
    harm, words = DAMAGES[damage]
    harm(path, tensors)
    with pytest.raises(CheckpointError, match=words) as caught:
        loaded(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 400 + len(str(path))
    if damage == "not a number":  # which only the values show
        check_detector(path, device="cpu", config=TOY)
    else:
        with pytest.raises(CheckpointError, match=f"^{re.escape(line)}$"):
            check_detector(path, device="cpu", config=TOY)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("backbone.attn_scores.weight", "looks like DF Arena, which is not supported"),
        *(
            (f"conformer.encoder_blocks.0.attn.fn.{key}.weight", rf"looks like XLS-R \+ {name}, which")
            for key, name in (("rel_pos_emb", "Conformer"), ("ht_proj", "Conformer with TCM"))
        ),
        (
            "classifier.weight",
            "the weights of a classifier of transformers: name its folder",
        ),
        ("anything", "not a detector of a kind that can be loaded"),
    ],
)
def test_others_are_named(key, words):
    with pytest.raises(CheckpointError, match=words):
        recognise({key: torch.zeros(1)})


def test_large_values_are_numbers():
    """Though their sum is too large for a float32."""
    check_values({"a": torch.full((4,), 3e38), "b": torch.zeros(1, dtype=torch.int64)})


def test_dropout_is_the_published_one():
    assert [m.p for m in by_head("spectra-aasist").build(64).bridge.mlp if hasattr(m, "p")] == [0.1, 0.1]


def test_a_senseless_file_is_one_line(tmp_path):
    tensors = file_of(CASES["nes2net_x_toy"])
    key = "Nested_Res2Net_TDNN.Build_in_Res2Nets.0.se.se.1.weight"
    safetensors.torch.save_file(tensors | {key: torch.zeros(())}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="its contents or sizes make no sense"):
        loaded(tmp_path / "model.safetensors")


@pytest.mark.parametrize("folder", ["theirs", "snapshots"])
def test_detectors_are_named_by_their_files_or_folders(folder, tmp_path, monkeypatch):
    (tmp_path / folder / "sub").mkdir(parents=True)
    path = write_toy("spectra_aasist_toy", tmp_path / folder / "model.safetensors")
    (tmp_path / folder / "config.json").write_text("{}")
    for here, named in ((folder, "."), (f"{folder}/sub", ".."), (folder, "model.safetensors"), (".", path)):
        monkeypatch.chdir(tmp_path / here)
        assert tasks.distinct_name(loaded(Path(named)), []) == folder
    monkeypatch.chdir(tmp_path / folder)
    Path("config.json").unlink()
    assert tasks.distinct_name(loaded(Path("model.safetensors")), []) == "model"


@pytest.mark.parametrize(
    ("width", "name"), [(768, "w2v_small"), (1280, "mms_1b, xlsr_1b or hubert_xlarge"), (1920, "xlsr_2b")]
)
def test_antideepfakes_of_other_sizes_are_named(width, name, tmp_path):
    tensors = file_of(CASES["antideepfake_toy"]) | {"proj_fc.weight": torch.zeros(2, width)}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f": looks like AntiDeepfake {name}, which is not supported"):
        loaded(tmp_path / "model.safetensors")


def test_a_back_end_of_the_future_is_refused():
    with pytest.raises(CheckpointError, match="of the kind 'x', which this version does not know"):
        by_head("x")


def test_families_side_by_side_on_the_same_clips(tmp_path, capsys):
    """Each with what is to be known of it, and the paired differences of every two."""
    names = ("antideepfake_toy", "spectra_aasist_toy", "raw_aasist_l_full")
    copy_samples(tmp_path / "data", 12)
    for name in names:
        detector = loaded(write_toy(name, tmp_path / "model.safetensors"))
        save_detector(detector, tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in names]
    options = ["--workers", "0", "--no-audit", "--output", str(tmp_path / "results")]
    assert evaluate_custom.main(["--data", str(tmp_path / "data"), "--checkpoint", *files, *options]) == 0
    shown = capsys.readouterr().out
    parts = re.split(r'^Scoring with detector "', shown, flags=re.MULTILINE)[1:]
    assert [part.partition('"')[0] for part in parts] == list(names)
    for line in (
        "Family: AntiDeepfake; licence: CC BY-NC-SA 4.0: not for commercial use",
        "It hears recordings whole, of longer ones the first 30 s",
        "Its score is logit 1 - logit 0, and its logit 0 is given as 0",
    ):
        assert [line in part for part in parts] == [True, False, False]
    scored = [read_scores(tmp_path / "results" / name) for name in names]
    assert scored[0].keys() == scored[1].keys() == scored[2].keys()
    assert {row["spoof_logit"] for row in scored[0].values()} == {"0.0"}
    real = np.array([row["label"] == "bonafide" for row in scored[0].values()])
    assert real.sum() == 12 == len(real) / 2
    words = " ".join(shown.split())
    for i, j in ((0, 1), (0, 2), (1, 2)):
        first, second = (
            roc_auc_score(real, [float(row["score"]) for row in scored[k].values()]) for k in (i, j)
        )
        assert f"## {names[j]} against {names[i]}\n" in shown
        assert (
            f"the AUC is {first:.4f} ({names[i]}) and {second:.4f} ({names[j]}), a difference of "
            f"{second - first:+.4f}" in words
        )


SUFFIXES = {
    "sls": ".pth",
    "nes2net-x": ".pth",
}  # of the published files; those of Hugging Face are safetensors


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES.values() if "raw" not in case.toy], ids=str)
def test_full_size_from_its_file_to_its_scores(case, tmp_path):
    """Writes a file of 1.3 GB, as large as the published one."""
    expected, path = (
        outputs(f"{case.keys}_full"),
        tmp_path / f"model{SUFFIXES.get(case.head, '.safetensors')}",
    )
    tensors = {
        name: torch.linspace(-1.5, 1.5, 25).repeat(value.shape[0], 1)
        if name.endswith(".grid")
        else torch.from_numpy(np.asarray(fill(name, tuple(value.shape))))
        for name, value in published(case).items()
    }
    if path.suffix == ".pth":
        torch.save({f"module.{name}": value for name, value in tensors.items()}, path)
    else:
        safetensors.torch.save_file(tensors, path)
    del tensors
    waves = reference("xlsr300m")["waves"]
    whole = by_head(case.head).settings.get("hears_whole")
    for i, wave in enumerate([*waves[:2], waves[2] if whole else waves[2][:SHORT]]):
        soundfile.write(tmp_path / f"{i}.wav", wave, 16000, subtype="FLOAT")
    data = [str(tmp_path / f"{i}.wav") for i in range(3)]
    options = ["--precision", "fp32", "--workers", "0", "--no-audit", "--output", str(tmp_path / "results")]
    assert evaluate_custom.main(["--data", *data, "--checkpoint", str(path), *options]) == 0
    rows = read_scores(tmp_path / "results" / "model")
    logits = np.array([[float(row["spoof_logit"]), float(row["score"])] for row in rows.values()])
    path.unlink()
    reference_logits = expected["logits"]
    if by_head(case.head).settings.get("score_is_difference"):
        reference_logits = reference_logits - reference_logits[:, :1]
    print(f"{case.keys}: largest difference {np.abs(logits - reference_logits).max():.1e}")
    np.testing.assert_allclose(logits, reference_logits, atol=5e-5, rtol=0)

"""Folders of transformers' models for sequence classification, against references and transformers itself."""

import json

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
import transformers
from family_files import TOY, Case, expected_logits, outputs, published
from helpers import copy_samples, read_scores
from weights import fill, reference

import evaluate_custom
from antispoofing.commands import calibrate
from antispoofing.detectors.loading import for_scoring, load_detector, save_detector
from antispoofing.errors import CheckpointError
from antispoofing.scoring.calibration import find_calibration
from antispoofing.scoring.decision import Rule
from model import XLSR, TransformersFrontEnd

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 24,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LABELS = {"0": "fake", "1": "real"}
SHORT = 20000
HUGGING_FACE = Case("hugging-face", "hf_sequence", "hf_sequence_toy")

CASES = {
    "hf_sequence_toy": STABLE,
    "hf_sequence_toy_base": BASE,
    "hf_sequence_toy_stable_weighted": STABLE | {"use_weighted_layer_sum": True},
}
KINDS = {
    "wav2vec2": transformers.Wav2Vec2ForSequenceClassification,
    "hubert": transformers.HubertForSequenceClassification,
    "wavlm": transformers.WavLMForSequenceClassification,
}


def model_of(kind: str = "wav2vec2", **settings):
    config = transformers.AutoConfig.for_model(kind, **SIZES | settings, num_labels=2)
    return KINDS[kind](config).eval()


def write_folder(
    folder, model, *, do_normalize=True, id2label=LABELS, max_shard_size="9GB", **preprocessor
) -> None:
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"id2label": id2label}), encoding="utf-8")
    settings = {"do_normalize": do_normalize, "sampling_rate": 16000} | preprocessor
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")


def filled(model):
    state = {
        name: torch.from_numpy(np.asarray(fill(name, tuple(value.shape))))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def logits_of(detector, waves) -> np.ndarray:
    with torch.inference_mode():
        made = [detector(torch.from_numpy(detector.config.prepare(wave))[None]) for wave in waves]
    return torch.cat(made).numpy()


@pytest.mark.parametrize("do_normalize", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers_4(name, do_normalize, tmp_path):
    """Which the published folders were trained with; version 5 changed the last of the hidden states."""
    write_folder(tmp_path, filled(model_of(**CASES[name])), do_normalize=do_normalize)
    detector, expected = load_detector(tmp_path, device="cpu"), outputs(name)
    waves = reference("xlsr300m")["waves"]
    suffix = "_normalised" if do_normalize else ""
    for _ in range(2):  # before and after it is made fast
        for key, clips in ((f"logits{suffix}", waves), (f"logits{suffix}_20000", [waves[2][:SHORT]])):
            expected_of = expected_logits(detector, expected[key])
            assert np.abs(logits_of(detector, clips) - expected_of).max() < 2e-5, key
        for_scoring(detector)
    if do_normalize and name == "hf_sequence_toy":
        prepared = detector.config.prepare(waves[2][:SHORT])[:8]
        assert prepared == pytest.approx(expected["prepared_third_0_to_8"], abs=1e-5)


@pytest.mark.parametrize("settings", [STABLE, BASE], ids=["stable", "base"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_what_transformers_gives(kind, settings, tmp_path):
    torch.manual_seed(0)
    model = model_of(kind, **settings)
    write_folder(tmp_path / "a", model)
    wave = reference("xlsr300m")["waves"][0][:30000]
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    with torch.inference_mode():
        expected = model(**extractor(wave, sampling_rate=16000, return_tensors="pt")).logits.numpy()
    detector = load_detector(tmp_path / "a", device="cpu")
    assert np.abs(logits_of(detector, [wave])[0, 1] - (expected[0, 1] - expected[0, 0])) < 2e-5
    save_detector(detector, tmp_path / "own.safetensors")
    again = load_detector(tmp_path / "own.safetensors", device="cpu")
    assert np.array_equal(logits_of(again, [wave]), logits_of(detector, [wave]))
    for labels, sign in (({"0": "bona-fide", "1": "AI"}, -1), ({"0": "Spoof", "1": "Human"}, 1)):
        write_folder(tmp_path / "b", model, id2label=labels)
        other = logits_of(load_detector(tmp_path / "b", device="cpu"), [wave])
        assert other[0, 1] == pytest.approx(sign * (expected[0, 1] - expected[0, 0]), abs=2e-5)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "does not say which output means real"),
        ({"id2label": {"0": "real", "1": "real"}}, "does not say which output means real"),
        ({"id2label": {"0": "real", "1": "fake", "2": "x"}}, "must have two labels"),
        ({"id2label": {"0": "fake", "1": "LABEL_1"}}, "does not say which output means real"),
        ({"model_type": "bert"}, "a classifier of the kind Wav2Vec2ForSequenceClassification, which is not"),
        ({"architectures": ["ASTForAudioClassification"]}, "of the kind ASTForAudioClassification, which is"),
        ({"architectures": ["Wav2Vec2ForXVector"]}, "of the kind Wav2Vec2ForXVector, which is not supported"),
        ({"use_weighted_layer_sum": True}, "missing key layer_weights"),
        ({"num_hidden_layers": 1}, "unexpected key wav2vec2.encoder.layers.1."),
        (
            {"num_hidden_layers": 9999},
            "have fewer than the 9999 layers that config.json promises",
        ),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"hidden_size": 32}, "has shape"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(damage, words, tmp_path):
    write_folder(tmp_path, model_of(**STABLE))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | damage), encoding="utf-8")
    with pytest.raises(CheckpointError, match=words) as caught:
        load_detector(tmp_path, device="cpu")
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_settings_are_part_of_what_identifies_a_folder(tmp_path):
    model = model_of("hubert", **BASE)
    found = []
    for i, settings in enumerate(({}, {}, {"do_normalize": False}, {"id2label": {"0": "real", "1": "fake"}})):
        write_folder(tmp_path / str(i), model, **settings)
        found.append(load_detector(tmp_path / str(i), device="cpu").sha256)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_a_folder_is_calibrated_beside_its_weights(tmp_path, capsys):
    write_folder(tmp_path / "theirs", model_of("wavlm", **BASE))
    copy_samples(tmp_path / "data", 4)
    names = [f"{path.parent.name}/{path.name}" for path in sorted((tmp_path / "data").rglob("*.flac"))]
    scores = ["path,label,score", *(f"{name},{name[:4].lower()},{i}" for i, name in enumerate(names))]
    (tmp_path / "scores.csv").write_text("\n".join(scores), encoding="utf-8")
    options = [str(tmp_path / "theirs"), "--scores", str(tmp_path / "scores.csv")]
    assert calibrate.main(options) == 0, capsys.readouterr().err
    detector = load_detector(tmp_path / "theirs", device="cpu")
    assert find_calibration(detector) is not None
    assert "calibrated on 4 real and 4 fake" in Rule.from_detector(detector).describe()


@pytest.mark.parametrize(
    "settings",
    [
        {"architectures": ["Wav2Vec2ForAudioFrameClassification"]},
        {"architectures": ["HubertModel"], "model_type": "hubert"},
    ],
)
def test_other_models_are_not_taken_for_front_ends_to_be_fine_tuned(settings, tmp_path):
    write_folder(tmp_path, model_of(**STABLE))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | settings), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        load_detector(tmp_path, device="cpu")
    assert "fine-tune" not in str(caught.value)


def test_how_transformers_returns_its_outputs_does_not_matter(tmp_path):
    write_folder(tmp_path, model_of("hubert", **BASE))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"return_dict": False}), encoding="utf-8")
    wave = reference("xlsr300m")["waves"][0]
    assert np.isfinite(logits_of(load_detector(tmp_path, device="cpu"), [wave])).all()


def test_weights_in_several_files_are_refused_with_a_remedy(tmp_path):
    write_folder(tmp_path, model_of(**STABLE), max_shard_size="100KB")
    assert not (tmp_path / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match="the weights are in several files, which cannot be read: load"):
        load_detector(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"hidden_act": "nonsense"}, "transformers cannot build this"),
        ({"num_attention_heads": 0}, "transformers cannot build this"),
        ({"conv_dim": [32] * 6}, "transformers cannot build this"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(damage, words, tmp_path):
    write_folder(tmp_path, model_of("hubert", **BASE))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | damage), encoding="utf-8")
    with pytest.raises(CheckpointError, match=words) as caught:
        load_detector(tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


def test_how_a_folder_was_computed_elsewhere_does_not_matter(tmp_path):
    write_folder(tmp_path, model_of("hubert", **BASE))
    wave = reference("xlsr300m")["waves"][0][:30000]
    before = logits_of(load_detector(tmp_path, device="cpu"), [wave])
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config |= {"dtype": "bfloat16", "torch_dtype": "float16", "attn_implementation": "flash_attention_2"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert np.array_equal(logits_of(load_detector(tmp_path, device="cpu"), [wave]), before)
    with pytest.raises(CheckpointError, match="which alone computes in int8: choose another --precision"):
        load_detector(tmp_path, device="cpu", precision="int8")


def test_what_a_folder_does_not_say_is_transformers_default(tmp_path):
    write_folder(tmp_path, model_of(**STABLE))
    (tmp_path / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    config = load_detector(tmp_path, device="cpu").config
    assert (config.normalise_eps, config.sample_rate) == (1e-7, 16000)


@pytest.mark.parametrize(("settings", "front_end"), [(STABLE, XLSR), (BASE, TransformersFrontEnd)])
def test_what_is_of_the_xlsr_family_is_computed_as_xlsr(settings, front_end, tmp_path):
    """Which is faster."""
    write_folder(tmp_path, model_of(**settings))
    assert type(load_detector(tmp_path, device="cpu").front_end) is front_end


@pytest.mark.parametrize("rate", [8000, 44100])
def test_how_clips_are_prepared_must_be_known(rate, tmp_path):
    write_folder(tmp_path, model_of(**STABLE), sampling_rate=rate)
    with pytest.raises(CheckpointError, match=f"the sample rate is {rate}, not 16000 Hz"):
        load_detector(tmp_path, device="cpu")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json, which says how clips"):
        load_detector(tmp_path, device="cpu")


def test_weights_alone_are_not_enough(tmp_path):
    write_folder(tmp_path, model_of(**STABLE))
    with pytest.raises(CheckpointError, match="the weights of a classifier of transformers: name its folder"):
        load_detector(tmp_path / "model.safetensors", device="cpu", config=TOY)


def test_names_of_older_files_are_read_as_well(tmp_path):
    write_folder(tmp_path, model_of(**STABLE))
    wave = reference("xlsr300m")["waves"][0][:30000]
    new = logits_of(load_detector(tmp_path, device="cpu"), [wave])
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    for number, letter in enumerate("gv"):
        begin = "wav2vec2.encoder.pos_conv_embed.conv."
        tensors[f"{begin}weight_{letter}"] = tensors.pop(f"{begin}parametrizations.weight.original{number}")
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert np.array_equal(logits_of(load_detector(tmp_path, device="cpu"), [wave]), new)


@pytest.mark.slow
def test_full_size_from_its_folder_to_its_scores(tmp_path):
    """Writes a file of 1.3 GB."""
    config = transformers.Wav2Vec2Config(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, **STABLE
    )
    model = filled(transformers.Wav2Vec2ForSequenceClassification(config))
    names = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert names == {name: tuple(value.shape) for name, value in published(HUGGING_FACE).items()}
    expected, waves = outputs("hf_sequence_full"), reference("xlsr300m")["waves"]
    write_folder(tmp_path / "classifier", model)
    del model
    for i, wave in enumerate([*waves, waves[2][:SHORT]]):
        soundfile.write(tmp_path / f"{i}.wav", wave, 16000, subtype="FLOAT")
    data = [str(tmp_path / f"{i}.wav") for i in range(4)]
    options = ["--precision", "fp32", "--workers", "0", "--no-audit", "--output", str(tmp_path / "results")]
    assert (
        evaluate_custom.main(["--data", *data, "--checkpoint", str(tmp_path / "classifier"), *options]) == 0
    )
    rows = read_scores(tmp_path / "results" / "classifier")
    scores = np.array([float(row["score"]) for row in rows.values()])
    of_outputs = np.concatenate([expected["logits_normalised"], expected["logits_normalised_20000"]])
    differences = of_outputs[:, 1] - of_outputs[:, 0]
    print(f"hf_sequence: largest difference {np.abs(scores - differences).max():.1e}")
    np.testing.assert_allclose(scores, differences, atol=5e-5, rtol=0)

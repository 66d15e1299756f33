"""Augmentation of training clips: RawBoost, speed, noise, codecs and gain.

Everything works on one wave, [n] samples with n >= 1 and full scale at 1, and draws from the numpy Generator
that it is given, from nothing else. No function changes its input.

RawBoost: Tak, Kamble, Patino, Todisco and Evans, "RawBoost: A Raw Data Boosting and Augmentation Method
applied to Automatic Speaker Verification Anti-Spoofing", ICASSP 2022 (arXiv 2111.04433). The default
parameters are the published ones, for 16 kHz. Two things are more exact here: a filter's delay is compensated
to the sample (published: one sample too far), and its peak is found at 2049 frequencies (published: 512).
Neither librosa nor audiomentations has it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its signal takes half a second to import: only when first used
import soundfile
import soxr

from data_utils import fit_length

KINDS = ("speed", "noise", "codec", "gain")  # in the order they are applied; RawBoost comes after speed
CODECS = ("mp3", "opus", "telephone")

Range = tuple[float, float]  # of a uniform draw

_SPEEDS = (0.9, 1.1)


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training clip.

    Each kind, and RawBoost, draws from a generator of its own, seeded from the clip's: switching one on or
    off changes nothing in what is drawn for the others.

    Args:
        rawboost: the algorithm, 0 to 8, applied to every clip as published; 0 is none.
        kinds: of KINDS; each is applied to a clip with `probability`.

    Raises:
        ValueError: an unknown kind or algorithm, or a probability outside 0 to 1.
    """

    rawboost: int = 0
    kinds: tuple[str, ...] = ()
    probability: float = 0.5

    def __post_init__(self):
        if self.rawboost not in range(9):
            raise ValueError(f"RawBoost has the algorithms 1 to 8, and 0 for none: not {self.rawboost}")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"unknown augmentation {unknown[0]!r}: there are {', '.join(KINDS)}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"a probability is between 0 and 1: not {self.probability}")

    def samples_needed(self, clip_samples: int) -> int:
        """How many of a recording's samples give `clip_samples`, or more, at whatever speed is drawn."""
        return math.ceil(clip_samples * _SPEEDS[1]) if "speed" in self.kinds else clip_samples

    def __call__(self, wave: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        """float32 [n] -> float32 [n]; with a change of speed, [n / 1.1] to [n / 0.9].

        A result whose peak is above 1 is scaled down to a peak of 1; or to the input's, where that is above
        1 already. Silence stays finite.
        """
        seeds = rng.integers(2**63, size=5)
        speed, boost, noise, channel, gain = map(np.random.default_rng, seeds)
        result = wave.astype(np.float64)
        if self._chosen("speed", speed):
            result = change_speed(result, speed)
        result = rawboost(result, sample_rate, self.rawboost, boost)
        if self._chosen("noise", noise):
            result = add_coloured_noise(result, noise)
        if self._chosen("codec", channel):
            result = pass_codec(result, sample_rate, channel)
        if self._chosen("gain", gain):
            result = change_gain(result, gain)
        return _limited(result, max(1.0, _peak(wave))).astype(np.float32)

    def _chosen(self, kind: str, rng: np.random.Generator) -> bool:
        return kind in self.kinds and rng.random() < self.probability


# -------------------------------------------------------------------- RawBoost


def rawboost(wave: np.ndarray, sample_rate: int, algorithm: int, rng: np.random.Generator) -> np.ndarray:
    """0 nothing; 1, 2, 3 the three parts; 4 = 1, 2, 3 in series; 5 = 1, 2; 6 = 1, 3; 7 = 2, 3; 8 = 1 and 2
    of the same input, added up. Only part 3, where it is the last, can leave a peak above 1.
    """
    if algorithm == 8:
        return _limited(convolutive_noise(wave, sample_rate, rng) + impulsive_noise(wave, rng))
    if algorithm in (1, 4, 5, 6):
        wave = convolutive_noise(wave, sample_rate, rng)
    if algorithm in (2, 4, 5, 7):
        wave = impulsive_noise(wave, rng)
    if algorithm in (3, 4, 6, 7):
        wave = stationary_noise(wave, sample_rate, rng)
    return wave


def convolutive_noise(
    wave: np.ndarray, sample_rate: int, rng: np.random.Generator, *, orders: int = 5, bias_db: Range = (5, 20)
) -> np.ndarray:
    """Part 1, linear and non-linear: the sum of wave ** i, i from 1 to `orders`, each through a notch filter.

    The first filter's gain is 0 dB, that of each other is lower by one of `bias_db`. The sum's mean is taken
    off (of a single sample nothing is left), and a peak above 1 scaled down to 1.
    """
    power = np.ones(len(wave))
    total = np.zeros(len(wave))
    for order in range(1, orders + 1):
        power = power * wave
        gain_db = (0, 0) if order == 1 else (-bias_db[1], -bias_db[0])
        total += scipy.signal.oaconvolve(power, notch_filter(sample_rate, rng, gain_db), mode="same")
    return _limited(total - total.mean())


def impulsive_noise(
    wave: np.ndarray, rng: np.random.Generator, *, max_percent: float = 10, gain: float = 2
) -> np.ndarray:
    """Part 2, dependent on the signal: up to `max_percent` of the samples, x, become x + gain * x * u1 * u2.

    u1 and u2 are uniform in -1 to 1. A peak above 1 is scaled down to 1.
    """
    count = int(len(wave) * rng.uniform(0, max_percent) / 100)
    places = rng.choice(len(wave), count, replace=False)
    factors = rng.uniform(-1, 1, (2, count)).prod(axis=0)
    result = wave.astype(np.float64)
    result[places] *= 1 + gain * factors
    return _limited(result)


def stationary_noise(
    wave: np.ndarray, sample_rate: int, rng: np.random.Generator, *, snr_db: Range = (10, 40)
) -> np.ndarray:
    """Part 3, independent of the signal: white Gaussian noise through a notch filter, added.

    The signal-to-noise ratio is that of the energies over the whole wave. The peak is not limited.
    """
    white = rng.standard_normal(len(wave))
    noise = scipy.signal.oaconvolve(white, notch_filter(sample_rate, rng), mode="same")
    return _with_noise(wave, noise, rng.uniform(*snr_db))


def notch_filter(
    sample_rate: int,
    rng: np.random.Generator,
    gain_db: Range = (0, 0),
    *,
    bands: int = 5,
    centre_hz: Range = (20, 8000),
    width_hz: Range = (100, 1000),
    taps: tuple[int, int] = (10, 100),
) -> np.ndarray:
    """An FIR filter [odd number of taps] that stops `bands` bands: one Hamming-windowed filter for each.

    Of each pair the filter takes a uniform draw: first all centres, then all widths, all numbers of taps
    (the upper end left out, an even one made odd by one more), and the gain at the loudest frequency.
    No centre is above half the sample rate.
    """
    nyquist = sample_rate / 2
    centres = rng.uniform(centre_hz[0], min(centre_hz[1], nyquist), bands)
    halves = rng.uniform(*width_hz, bands) / 2
    lows, highs = np.maximum(centres - halves, 1e-3), np.minimum(centres + halves, nyquist - 1e-3)
    coefficients = np.ones(1)
    for low, high, count in zip(lows, highs, rng.integers(*taps, bands) | 1, strict=True):
        band_stop = scipy.signal.firwin(count, [low, high], window="hamming", fs=sample_rate)
        coefficients = np.convolve(coefficients, band_stop)
    gain = 10 ** (rng.uniform(*gain_db) / 20)
    return coefficients * (gain / _peak(np.fft.rfft(coefficients, 4096)))


# ------------------------------------------------------------- the other kinds


def change_speed(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Played 0.9 to 1.1 times as fast: [n / factor], tempo and pitch both change."""
    factor = rng.uniform(*_SPEEDS)
    return fit_length(soxr.resample(wave, factor, 1.0), round(len(wave) / factor))


def add_coloured_noise(
    wave: np.ndarray, rng: np.random.Generator, *, exponent: Range = (0, 2), snr_db: Range = (10, 40)
) -> np.ndarray:
    """Gaussian noise with a power density of 1 / f ** exponent, from white (0) over pink (1) to brown (2).

    It has no part at 0 Hz; to a single sample, which has no other, nothing is added. The peak is not limited.
    """
    slope, snr = rng.uniform(*exponent), rng.uniform(*snr_db)
    spectrum = np.fft.rfft(rng.standard_normal(len(wave)))
    spectrum[0] = 0
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-slope / 2)
    return _with_noise(wave, np.fft.irfft(spectrum, len(wave)), snr)


def pass_codec(
    wave: np.ndarray, sample_rate: int, rng: np.random.Generator, *, codecs: Sequence[str] = CODECS
) -> np.ndarray:
    """Encoded and decoded by one of `codecs`, in memory. Length and level stay; the delay is below 1 ms.

    mp3 and opus work at 16 kHz, at a bit rate of 14 to 75 and of 11 to 60 kbit/s, container included. A
    telephone works at 8 kHz, passes 300 to 3400 Hz (a Butterworth filter there and back, so that nothing is
    delayed, -6 dB at either end) and is G.711 (mu-law or A-law) or GSM 6.10. Other sample rates are resampled
    and back. A wave shorter than 0.1 s is coded with silence after it; one with a peak above 1 is scaled down
    for the codec and up again.
    """
    codec, quality = codecs[rng.integers(len(codecs))], rng.random()
    rate = 8000 if codec == "telephone" else 16000
    level = max(1.0, _peak(wave))
    padded = fit_length(wave / level, max(len(wave), sample_rate // 10))
    sent = soxr.resample(padded, sample_rate, rate)
    if codec == "mp3":  # with constant rates, libsndfile loses track of the delay at low ones
        how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "AVERAGE"}
        how["compression_level"] = 0.6 + 0.37 * quality
    elif codec == "opus":
        how = {"format": "OGG", "subtype": "OPUS", "compression_level": 0.8 + 0.19 * quality}
    else:
        sent = scipy.signal.sosfiltfilt(
            scipy.signal.butter(4, (300, 3400), "bandpass", fs=rate, output="sos"), sent
        )
        how = {"format": "WAV", "subtype": ("ULAW", "ALAW", "GSM610")[int(3 * quality)]}
    file = io.BytesIO()
    soundfile.write(file, sent.clip(-1, 1), rate, **how)  # G.711 and GSM would wrap an overshoot round
    file.seek(0)
    received, _ = soundfile.read(file)
    return level * fit_length(soxr.resample(received, rate, sample_rate), len(wave))


def change_gain(wave: np.ndarray, rng: np.random.Generator, *, gain_db: Range = (-20, 10)) -> np.ndarray:
    """Louder or softer by one factor. The peak is not limited."""
    return wave * 10 ** (rng.uniform(*gain_db) / 20)


# ----------------------------------------------------------------- in common


def _peak(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def _limited(wave: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Scaled down to a peak of `limit` where it is above."""
    peak = _peak(wave)
    return wave / peak * limit if peak > limit else wave


def _with_noise(wave: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """The noise is added at a signal-to-noise ratio in dB, of energies; none to silence."""
    signal_energy, noise_energy = np.square(wave).sum(), np.square(noise).sum()
    if noise_energy == 0:
        return wave
    return wave + noise * np.sqrt(signal_energy / noise_energy / 10 ** (snr_db / 10))

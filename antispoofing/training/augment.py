"""Augmentation of training clips: RawBoost, speed, noise, codecs and gain.

Each function works on one wave, [n] samples with n >= 1 and full scale at 1. All randomness comes from the
numpy Generator it is given. No function changes its input.

RawBoost: Tak, Kamble, Patino, Todisco and Evans, "RawBoost: A Raw Data Boosting and Augmentation Method
applied to Automatic Speaker Verification Anti-Spoofing", ICASSP 2022 (arXiv 2111.04433). The default
parameters are the published ones, for 16 kHz. Two things are more exact here: a filter's delay is compensated
to the sample (the published code shifts by one sample too many), and its peak is searched for at 2049
frequencies (the published code uses 512). Neither librosa nor audiomentations implements RawBoost.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from data_utils import fit_length

KINDS = ("speed", "noise", "codec", "gain")  # in order of application; RawBoost comes after speed
CODECS = ("mp3", "opus", "telephone")

Range = tuple[float, float]  # the limits of a uniform draw

_SPEEDS = (0.9, 1.1)


@dataclass(frozen=True)
class Augmentation:
    """The random changes made to a training clip.

    RawBoost and each of the kinds draw from generators of their own, all seeded from the clip's generator, so
    that switching one on or off does not change what the others draw.

    Attributes:
        rawboost: RawBoost algorithm, 0 to 8, applied to every clip as published; 0 is none.
        kinds: Some of KINDS.
        probability: Probability with which each kind is applied to a clip.

    Raises:
        ValueError: If a kind or algorithm is unknown, or the probability lies outside 0 to 1.
    """

    rawboost: int = 0
    kinds: tuple[str, ...] = ()
    probability: float = 0.5

    def __post_init__(self) -> None:
        if self.rawboost not in range(9):
            raise ValueError(f"rawboost must be 1 to 8, or 0 for none, not {self.rawboost}")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"kinds must be some of {', '.join(KINDS)}, not {unknown[0]!r}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, not {self.probability}")

    def samples_needed(self, clip_samples: int) -> int:
        """Return how many samples to read so that a clip has `clip_samples` or more at any speed drawn."""
        return math.ceil(clip_samples * _SPEEDS[1]) if "speed" in self.kinds else clip_samples

    def __call__(self, wave: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        """Augment a wave: float32 [n] -> float32 [n], or [n / 1.1] to [n / 0.9] if its speed changes.

        If the result's peak is above both 1 and the input's peak, the result is scaled down to the higher of
        the two. Silence gives finite samples.
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


def rawboost(wave: np.ndarray, sample_rate: int, algorithm: int, rng: np.random.Generator) -> np.ndarray:
    """Apply one of RawBoost's algorithms.

    Algorithm 0 does nothing; 1, 2 and 3 are the three parts alone. In series, 4 applies parts 1, 2 and 3;
    5 parts 1 and 2; 6 parts 1 and 3; 7 parts 2 and 3. Algorithm 8 applies parts 1 and 2 to the same input and
    adds their results. Only part 3, which always comes last, can leave a peak above 1.
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
    """Apply part 1, linear and non-linear convolutive noise.

    The result is the sum of wave ** i, for i from 1 to `orders`, each through a notch filter of its own. The
    first filter's gain is 0 dB; each of the others is lower by a draw from `bias_db`. The mean of the sum is
    subtracted (which leaves nothing of a single sample), and a peak above 1 is scaled down to 1.
    """
    from scipy import signal  # takes half a second: imported when first needed

    power = np.ones(len(wave))
    total = np.zeros(len(wave))
    for order in range(1, orders + 1):
        power = power * wave
        gain_db = (0, 0) if order == 1 else (-bias_db[1], -bias_db[0])
        total += signal.oaconvolve(power, notch_filter(sample_rate, rng, gain_db), mode="same")
    return _limited(total - total.mean())


def impulsive_noise(
    wave: np.ndarray, rng: np.random.Generator, *, max_percent: float = 10, gain: float = 2
) -> np.ndarray:
    """Apply part 2, impulsive noise that depends on the signal.

    Up to `max_percent` of the samples x become x + gain * x * u1 * u2, where u1 and u2 are uniform in -1 to
    1. A peak above 1 is scaled down to 1.
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
    """Apply part 3, stationary noise that does not depend on the signal.

    White Gaussian noise is passed through a notch filter and added. The signal-to-noise ratio is that of the
    energies of the whole wave. The peak is not limited.
    """
    from scipy import signal

    white = rng.standard_normal(len(wave))
    noise = signal.oaconvolve(white, notch_filter(sample_rate, rng), mode="same")
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
    """Return an FIR filter [odd number of taps] that stops several random frequency bands.

    It is a series of band-stop filters with Hamming windows. Values are drawn uniformly in this order: all
    centres, all widths, all numbers of taps, and the gain.

    Args:
        sample_rate: Sample rate in Hz. No centre lies above half of it.
        rng: Generator for all draws.
        gain_db: Range of the gain in dB at the frequency that the whole filter passes best.
        bands: Number of bands.
        centre_hz: Range of the bands' centres in Hz.
        width_hz: Range of the bands' widths in Hz.
        taps: Range of each band's number of taps, without the upper end; even numbers are rounded up to odd.
    """
    from scipy import signal

    nyquist = sample_rate / 2
    centres = rng.uniform(centre_hz[0], min(centre_hz[1], nyquist), bands)
    halves = rng.uniform(*width_hz, bands) / 2
    lows, highs = np.maximum(centres - halves, 1e-3), np.minimum(centres + halves, nyquist - 1e-3)
    coefficients = np.ones(1)
    for low, high, count in zip(lows, highs, rng.integers(*taps, bands) | 1, strict=True):
        band_stop = signal.firwin(count, [low, high], window="hamming", fs=sample_rate)
        coefficients = np.convolve(coefficients, band_stop)
    gain = 10 ** (rng.uniform(*gain_db) / 20)
    return coefficients * (gain / _peak(np.fft.rfft(coefficients, 4096)))


def change_speed(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Play a wave 0.9 to 1.1 times as fast: [n] -> [n / factor]. Tempo and pitch both change."""
    factor = rng.uniform(*_SPEEDS)
    return fit_length(soxr.resample(wave, factor, 1.0), round(len(wave) / factor))


def add_coloured_noise(
    wave: np.ndarray, rng: np.random.Generator, *, exponent: Range = (0, 2), snr_db: Range = (10, 40)
) -> np.ndarray:
    """Add Gaussian noise with a power density of 1 / f ** exponent: white (0), pink (1), brown (2).

    The noise has no component at 0 Hz, so nothing is added to a single sample. The peak is not limited.
    """
    slope, snr = rng.uniform(*exponent), rng.uniform(*snr_db)
    spectrum = np.fft.rfft(rng.standard_normal(len(wave)))
    spectrum[0] = 0
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-slope / 2)
    return _with_noise(wave, np.fft.irfft(spectrum, len(wave)), snr)


def pass_codec(
    wave: np.ndarray, sample_rate: int, rng: np.random.Generator, *, codecs: Sequence[str] = CODECS
) -> np.ndarray:
    """Encode and decode a wave in memory by one of `codecs`, at a random quality.

    Length and level stay the same, and the delay is below 1 ms. mp3 and opus work at 16 kHz, at bit rates of
    14 to 75 and 11 to 60 kbit/s, container included. "telephone" works at 8 kHz, passes 300 to 3400 Hz (by a
    Butterworth filter run forwards and backwards, so that it delays nothing; -6 dB at either end) and encodes
    by G.711 (mu-law or A-law) or GSM 6.10. Waves of other sample rates are resampled and resampled back. A
    wave shorter than 0.1 s is encoded with silence after it; one with a peak above 1 is scaled down for the
    codec and up again.
    """
    codec, quality = codecs[int(rng.integers(len(codecs)))], rng.random()
    rate = 8000 if codec == "telephone" else 16000
    level = max(1.0, _peak(wave))
    padded = fit_length(wave / level, max(len(wave), sample_rate // 10))
    sent = soxr.resample(padded, sample_rate, rate)
    options: dict[str, str | float]
    if codec == "mp3":
        # At a constant bit rate, libsndfile loses track of the delay if the rate is low.
        options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "AVERAGE"}
        options["compression_level"] = 0.6 + 0.37 * quality
    elif codec == "opus":
        options = {"format": "OGG", "subtype": "OPUS", "compression_level": 0.8 + 0.19 * quality}
    else:
        from scipy import signal

        sent = signal.sosfiltfilt(signal.butter(4, (300, 3400), "bandpass", fs=rate, output="sos"), sent)
        options = {"format": "WAV", "subtype": ("ULAW", "ALAW", "GSM610")[int(3 * quality)]}
    file = io.BytesIO()
    # An overshoot would wrap around in G.711 and GSM, so it is clipped.
    soundfile.write(file, sent.clip(-1, 1), rate, **options)
    file.seek(0)
    received, _ = soundfile.read(file)
    return level * fit_length(soxr.resample(received, rate, sample_rate), len(wave))


def change_gain(wave: np.ndarray, rng: np.random.Generator, *, gain_db: Range = (-20, 10)) -> np.ndarray:
    """Make a wave louder or softer by one random factor. The peak is not limited."""
    return wave * 10 ** (rng.uniform(*gain_db) / 20)


def _peak(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def _limited(wave: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Scale a wave down to a peak of `limit` if its peak is higher."""
    peak = _peak(wave)
    return wave / peak * limit if peak > limit else wave


def _with_noise(wave: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add noise at a signal-to-noise ratio of energies in dB; silence stays silence."""
    signal_energy, noise_energy = np.square(wave).sum(), np.square(noise).sum()
    if noise_energy == 0:
        return wave
    return wave + noise * np.sqrt(signal_energy / noise_energy / 10 ** (snr_db / 10))

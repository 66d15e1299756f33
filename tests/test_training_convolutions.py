"""The convolutions for training against transformers' own: frames, gradients, names."""

import copy

import pytest
import torch

from antispoofing.training.convolutions import BatchedConvolutionStack, ConvolutionStack
from model import XLSR, XLSRConfig


@pytest.fixture(scope="module")
def extractor():
    """Transformers' own, of toy size."""
    torch.manual_seed(0)
    extractor = XLSR(
        XLSRConfig(conv_channels=32, width=64, layers=1, heads=4, ffn=128)
    ).model.feature_extractor
    for parameter in extractor.parameters():  # norms that do something
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(len(parameter))
    return extractor


def frames_and_gradients(extractor, lower: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    extractor = copy.deepcopy(extractor).train()
    waves = 0.1 * torch.randn(3, 8000, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        frames = extractor(waves)
    weights = torch.randn(frames.shape, generator=torch.Generator().manual_seed(2))
    (frames.float() * weights).sum().backward()
    return frames.detach(), {name: parameter.grad for name, parameter in extractor.named_parameters()}


both_stacks = pytest.mark.parametrize("make", [ConvolutionStack, BatchedConvolutionStack])


@both_stacks
@pytest.mark.parametrize("recompute", [False, True])
def test_frames_and_gradients_are_those_of_transformers(make, recompute, extractor):
    stack = make(extractor, recompute)
    assert stack.state_dict().keys() == extractor.state_dict().keys()
    expected, gradients = frames_and_gradients(extractor)
    found, ours = frames_and_gradients(stack)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert ours.keys() == gradients.keys()
    for name, gradient in ours.items():
        assert (gradient - gradients[name]).norm() < 1e-5 * gradients[name].norm(), name


@both_stacks
@pytest.mark.parametrize("recompute", [False, True])
def test_in_bf16_they_are_as_near_to_fp32_as_transformers_are(make, recompute, extractor):
    exact, gradients = frames_and_gradients(extractor)
    theirs, ours = (frames_and_gradients(it, lower=True) for it in (extractor, make(extractor, recompute)))
    assert ours[0].dtype == torch.bfloat16
    assert (ours[0].float() - exact).abs().mean() < 1.2 * (theirs[0].float() - exact).abs().mean()
    for name, gradient in gradients.items():
        apart = [(gradients_of[1][name] - gradient).norm() for gradients_of in (ours, theirs)]
        assert apart[0] < 2 * apart[1], name
        assert ours[1][name].dtype == torch.float32


@both_stacks
def test_what_is_recomputed_keeps_no_activations(make, extractor):
    kept = {}
    for recompute in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, s=sizes: (s.append(x.nbytes), x)[1], lambda x: x
        ):
            make(extractor, recompute)(torch.zeros(3, 8000))
        kept[recompute] = sum(sizes)
    assert kept[True] < kept[False] / 20

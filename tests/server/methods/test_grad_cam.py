"""Grad-CAM: written out, against Captum, branch by branch and slice by slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch.nn import functional
from voxplain.errors import UnsupportedByModel
from voxplain_server.methods.grad_cam import METHOD
from voxplain_server.methods.layer_activation import LayerActivation, upsampled

from tests.server.engines.tiny_models import (
    early,
    fixed,
    knee,
    knee_without_batch,
    late,
    plane,
    probability,
    segmentation,
    sigmoid,
)
from tests.server.methods.by_hand import ByHand, nodes
from tests.server.methods.gradient_setting import Make, Peer, assert_parity, attribute, peer_inputs, traits


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("make", [early, probability, fixed, plane, sigmoid, segmentation], ids=lambda make: make.__name__)
def test_it_equals_captum_on_the_twin(make: Make, relu: bool, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    peer = Peer(tiny)
    (layer,) = traits(tiny).default_cam_layers
    cam = LayerGradCam(peer, peer.layer(layer)).attribute(peer_inputs(tiny), relu_attributions=relu)
    shape = tiny.case.volumes[0].shape
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    expected = LayerAttribution.interpolate(cam, shape, mode)[0, 0].detach().numpy()
    estimate = attribute(tiny, METHOD, relu=relu)
    assert estimate.shared is not None
    (shared,) = estimate.shared
    if relu and expected.max() == 0:
        assert shared.values.max() == 0
    else:
        assert_parity([shared.values], [expected])
    assert shared.modalities == (0, 1)
    assert estimate.layers == (layer,)
    assert estimate.signed is not relu


def test_it_is_what_the_paper_says(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    net = ByHand(tiny)
    seen = net.forward(net.image)
    gradient = (net.behind_second(seen) * (seen.before_second > 0))[0]
    activations = seen.before_second[0]
    weighted = torch.zeros(activations.shape[1:], dtype=torch.float64)
    for channel in range(activations.shape[0]):
        weighted += gradient[channel].mean() * activations[channel]
    expected = weighted.clamp(min=0).numpy()
    estimate = attribute(tiny, METHOD)
    assert estimate.shared is not None
    assert_parity([estimate.shared[0].values], [expected])


def test_an_earlier_layer_can_be_named(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    peer = Peer(tiny)
    first = nodes(tiny.proto, "Conv")[0]
    cam = LayerGradCam(peer, peer.layer(first)).attribute(peer_inputs(tiny), relu_attributions=True)
    estimate = attribute(tiny, METHOD, layers=[first])
    assert estimate.shared is not None
    assert_parity([estimate.shared[0].values], [cam[0, 0].detach().numpy()])


def test_late_fusion_has_a_map_for_each_branch(tmp_path: Path) -> None:
    tiny = late(tmp_path)
    peer = Peer(tiny)
    estimate = attribute(tiny, METHOD, relu=False)
    assert estimate.shared is not None
    assert [shared.modalities for shared in estimate.shared] == [(0,), (1,)]
    expected = [
        LayerGradCam(peer, peer.layer(layer)).attribute(peer_inputs(tiny), relu_attributions=False)[0, 0].detach().numpy()
        for layer in estimate.layers
    ]
    assert_parity([shared.values for shared in estimate.shared], expected)


@pytest.mark.parametrize("make", [knee, knee_without_batch], ids=lambda make: make.__name__)
def test_stacks_of_slices_have_weights_and_a_map_for_each_slice(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    peer = Peer(tiny)
    estimate = attribute(tiny, METHOD, relu=False)
    assert estimate.shared is not None
    for axis, (shared, layer) in enumerate(zip(estimate.shared, estimate.layers, strict=True)):
        outputs: list[torch.Tensor] = []

        def keep(_module: object, _inputs: object, output: torch.Tensor, outputs: list[torch.Tensor] = outputs) -> None:
            outputs.append(output)

        hook = peer.layer(layer).register_forward_hook(keep)
        score = peer(*peer_inputs(tiny))
        hook.remove()
        (gradient,) = torch.autograd.grad(score, outputs)
        activations = outputs[0].detach()
        assert shared.modalities == (axis,)
        assert activations.shape[0] == tiny.case.volumes[axis].shape[axis]
        for number in range(activations.shape[0]):
            by_slice = torch.zeros_like(activations[number, 0])
            for channel in range(activations.shape[1]):
                by_slice += gradient[number, channel].mean() * activations[number, channel]
            np.testing.assert_allclose(shared.values.take(number, axis=axis), by_slice.numpy(), rtol=1e-9, atol=1e-15)


def test_two_layers_of_one_branch_are_refused(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    with pytest.raises(UnsupportedByModel) as caught:
        attribute(tiny, METHOD, layers=nodes(tiny.proto, "Conv"))
    assert caught.value.reason == "LAYERS_OVERLAP"


@pytest.mark.parametrize("layer", ["nowhere", "flatten_5"])
def test_a_layer_that_no_module_makes_is_refused(layer: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedByModel) as caught:
        attribute(early(tmp_path), METHOD, layers=[layer])
    assert caught.value.reason == "UNKNOWN_LAYER"
    assert layer not in caught.value.message


def test_a_layer_without_spatial_axes_is_refused(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    with pytest.raises(UnsupportedByModel) as caught:
        attribute(tiny, METHOD, layers=nodes(tiny.proto, "Gemm"))
    assert caught.value.reason == "LAYER_NOT_SPATIAL"


def _activation(*shape: int) -> LayerActivation:
    return LayerActivation("layer", (0,), torch.arange(float(np.prod(shape)), dtype=torch.float64).reshape(shape))


def test_coarse_maps_are_upsampled_linearly() -> None:
    coarse = _activation(1, 2, 3, 2)
    expected = functional.interpolate(coarse.values[None], size=(5, 7, 4), mode="trilinear", align_corners=False)[0, 0]
    assert torch.equal(upsampled(coarse, (5, 7, 4), slice_axis=None, mode="linear"), expected)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_slices_are_not_blended(slice_axis: int) -> None:
    coarse = _activation(3, 2, 2)
    shape = [4, 4]
    shape.insert(slice_axis, 3)
    fine = upsampled(coarse, tuple(shape), slice_axis=slice_axis, mode="linear")
    for number in range(3):
        plane_map = functional.interpolate(coarse.values[None, None, number], size=(4, 4), mode="bilinear")[0, 0]
        assert torch.equal(fine.select(slice_axis, number), plane_map)


def test_a_layer_behind_the_slices_gives_every_slice_its_map() -> None:
    fine = upsampled(_activation(1, 2, 2), (4, 3, 4), slice_axis=1, mode="nearest")
    assert fine.shape == (4, 3, 4)
    assert torch.equal(fine[:, 0], fine[:, 2])


def test_a_layer_that_keeps_slices_as_a_spatial_axis_is_upsampled_along_them() -> None:
    fine = upsampled(_activation(1, 2, 2, 2), (4, 4, 6), slice_axis=2, mode="nearest")
    expected = functional.interpolate(_activation(1, 2, 2, 2).values[None], size=(6, 4, 4), mode="nearest")[0, 0]
    assert torch.equal(fine, expected.movedim(0, 2))


@pytest.mark.parametrize(("shape", "slice_axis"), [((2, 3, 3, 3), None), ((1, 3, 3), None), ((2, 3, 3), 0), ((1, 3), 0)])
def test_axes_that_are_not_the_volumes_are_refused(shape: tuple[int, ...], slice_axis: int | None) -> None:
    with pytest.raises(UnsupportedByModel):
        upsampled(_activation(*shape), (6, 6, 6), slice_axis=slice_axis, mode="linear")

"""Guided Grad-CAM: Captum's default setting, and the product of its two parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam
from voxplain.errors import UnsupportedByModel
from voxplain_server.methods.guided_grad_cam import METHOD

from tests.server.engines.tiny_models import early, fixed, knee, late, plane, probability, segmentation, sigmoid
from tests.server.methods.by_hand import ByHand, modalities
from tests.server.methods.gradient_setting import (
    Make,
    Peer,
    assert_parity,
    attribute,
    by_modality,
    engine,
    peer_inputs,
    setting,
    traits,
)

pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks")


@pytest.mark.parametrize("make", [early, probability, fixed, plane, sigmoid, segmentation], ids=lambda make: make.__name__)
def test_it_equals_captum_on_the_twin(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    peer = Peer(tiny)
    (layer,) = traits(tiny).default_cam_layers
    expected = by_modality(tiny, GuidedGradCam(peer, peer.layer(layer)).attribute(peer_inputs(tiny)))
    found = attribute(tiny, METHOD)
    if max(np.abs(values).max() for values in expected) == 0:
        assert found.maps is not None and all(np.all(values == 0) for values in found.maps)
    else:
        assert_parity(found.maps, expected)
    assert found.layers == (layer,)


def test_it_is_the_product_of_its_two_parts(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    net = ByHand(tiny)
    seen = net.forward(net.image)
    behind = net.behind_second(seen)
    weights = (behind * (seen.before_second > 0)).mean(dim=(2, 3, 4), keepdim=True)
    cam = (weights * seen.before_second).sum(dim=1).clamp(min=0)
    guided = net.back_through_second(behind.clamp(min=0) * (seen.before_second > 0)).clamp(min=0) * (seen.before_first > 0)
    assert_parity(attribute(tiny, METHOD).maps, modalities(net.back_through_first(guided) * cam))


@pytest.mark.parametrize("make", [late, knee], ids=lambda make: make.__name__)
def test_every_branch_is_weighted_by_its_own_map(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    peer = Peer(tiny)
    guided = by_modality(tiny, GuidedBackprop(peer).attribute(peer_inputs(tiny)))
    expected = []
    for modality, layer in enumerate(traits(tiny).default_cam_layers):
        cam = LayerGradCam(peer, peer.layer(layer)).attribute(peer_inputs(tiny), relu_attributions=True).detach().numpy()
        slice_axis = tiny.model.inputs[modality].slice_axis
        expected.append(guided[modality] * (cam[0, 0] if slice_axis is None else np.moveaxis(cam[:, 0], 0, slice_axis)))
    assert_parity(attribute(tiny, METHOD).maps, expected)


def test_a_branch_without_a_layer_is_refused(tmp_path: Path) -> None:
    tiny = late(tmp_path)
    with pytest.raises(UnsupportedByModel) as caught:
        attribute(tiny, METHOD, layers=[traits(tiny).default_cam_layers[0]])
    assert caught.value.reason == "LAYERS_MISS_A_BRANCH"


def test_two_passes_are_told(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    told: list[int] = []
    estimate = METHOD.attribute(setting(tiny, METHOD), engine(tiny), advanced=told.append, cancelled=lambda: False)
    assert told == [1, 2]
    assert (estimate.passes, estimate.saved) == (2, 0)

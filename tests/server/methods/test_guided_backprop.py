"""Guided backpropagation: the rule written out, and Captum."""

from __future__ import annotations

from pathlib import Path

import pytest
from captum.attr import GuidedBackprop
from voxplain_server.methods.guided_backprop import METHOD

from tests.server.engines.tiny_models import TINY_MODELS, early
from tests.server.methods.by_hand import ByHand, modalities
from tests.server.methods.gradient_setting import Make, Peer, assert_parity, attribute, by_modality, peer_inputs


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_it_equals_captum_on_the_twin(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    expected = by_modality(tiny, GuidedBackprop(Peer(tiny)).attribute(peer_inputs(tiny)))
    assert_parity(attribute(tiny, METHOD).maps, expected)


def test_every_relu_passes_positive_gradients_where_its_input_was_positive(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    net = ByHand(tiny)
    seen = net.forward(net.image)
    gradient = net.behind_second(seen).clamp(min=0) * (seen.before_second > 0)
    gradient = net.back_through_second(gradient).clamp(min=0) * (seen.before_first > 0)
    assert_parity(attribute(tiny, METHOD).maps, modalities(net.back_through_first(gradient)))

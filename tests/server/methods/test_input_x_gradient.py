"""Input times gradient: by its formula, against Captum, and sharing its pass with gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
from captum.attr import InputXGradient
from voxplain_server.methods import gradient
from voxplain_server.methods.input_x_gradient import METHOD

from tests.server.engines.tiny_models import TINY_MODELS, early
from tests.server.methods.gradient_setting import (
    Make,
    Peer,
    assert_parity,
    attribute,
    by_modality,
    engine,
    peer_inputs,
    setting,
)


@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_it_equals_captum_on_the_twin(make: Make, tmp_path: Path) -> None:
    tiny = make(tmp_path)
    expected = by_modality(tiny, InputXGradient(Peer(tiny)).attribute(peer_inputs(tiny)))
    assert_parity(attribute(tiny, METHOD).maps, expected)


def test_it_is_the_volume_times_the_gradient(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    gradients = attribute(tiny, gradient.METHOD).maps
    assert gradients is not None
    expected = [volume * slope for volume, slope in zip(tiny.case.volumes, gradients, strict=True)]
    assert_parity(attribute(tiny, METHOD).maps, expected)


def test_it_takes_the_pass_of_gradient_in_the_same_call(tmp_path: Path) -> None:
    tiny = early(tmp_path)
    mine = setting(tiny, METHOD)
    shared = setting(tiny, gradient.METHOD)
    object.__setattr__(shared, "passes", mine.passes)
    twin = engine(tiny)
    told: list[int] = []
    first = gradient.METHOD.attribute(shared, twin, advanced=told.append, cancelled=lambda: False)
    second = METHOD.attribute(mine, twin, advanced=told.append, cancelled=lambda: False)
    assert told == [1, 1]
    assert (first.passes, first.saved) == (1, 0)
    assert (second.passes, second.saved) == (0, 1)
    expected = attribute(tiny, METHOD).maps
    assert expected is not None
    assert_parity(second.maps, expected, bound=0.0)

"""Boxes are cut and pasted alike, copied one by one or looked up at once."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from voxplain_server.engines.activation_cache import ActivationCache, Patch, WalkCache
from voxplain_server.engines.box_copy import copy_alike, copy_boxes, cut_boxes, gather_at_once, gather_boxes
from voxplain_server.engines.crop_tensor import channels_last

SHAPE = (1, 3, 6, 7, 5)
Placed = tuple[np.ndarray, np.ndarray]


def value(seed: int = 0) -> torch.Tensor:
    return channels_last(torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)))


def by_hand(whole: torch.Tensor, start: np.ndarray, size: np.ndarray, fill: float) -> torch.Tensor:
    """A wide border around the volume, then a slice."""
    border = (0, 0, 20, 20, 20)
    wide = torch.full([edge + 2 * width for edge, width in zip(whole.shape, border, strict=True)], fill)
    wide[tuple(slice(width, width + edge) for edge, width in zip(whole.shape, border, strict=True))] = whole
    boxes = [
        wide[tuple(slice(at + width, at + width + edge) for at, edge, width in zip(row, size, border, strict=True))]
        for row in start.tolist()
    ]
    return torch.cat(boxes)


@st.composite
def boxes(draw: st.DrawFn, *, border: int = 3) -> Placed:
    """Start of a few boxes, and their size."""
    size = np.array([1, 3, *(draw(st.integers(1, edge + 2)) for edge in SHAPE[2:])])
    start = [
        [0, 0, *(draw(st.integers(-border, edge + border - 1)) for edge in SHAPE[2:])] for _ in range(draw(st.integers(1, 3)))
    ]
    return np.array(start), size


@given(box=boxes())
@settings(max_examples=50, deadline=None)
def test_boxes_are_gathered_alike_on_the_host_and_on_an_accelerator(box: Placed) -> None:
    start, size = box
    expected = by_hand(value(), start, size, -2.0)
    assert torch.equal(gather_boxes(value(), start, size, fill=-2.0, hole=None), expected)
    found = gather_at_once(value(), start, size, fill=-2.0)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_slices_on_the_channel_axis_are_gathered_at_once_too() -> None:
    start, size = np.array([[0, 1, 0, 2, 0], [0, 0, 1, 1, -1]]), np.array([1, 2, 4, 3, 5])
    assert torch.equal(gather_at_once(value(), start, size, fill=0.5), by_hand(value(), start, size, 0.5))


@given(box=boxes(), hole=boxes())
@settings(max_examples=50, deadline=None)
def test_a_hole_is_all_that_is_left_out(box: Placed, hole: Placed) -> None:
    start, size = box
    first = np.repeat(hole[0][:1], len(start), axis=0)
    last = first + hole[1]
    found = gather_boxes(value(), start, size, fill=0.0, hole=(first, last)).view(len(start), *size.tolist())
    expected = by_hand(value(), start, size, 0.0).view(len(start), *size.tolist())
    for row in range(len(start)):
        inside = torch.zeros(tuple(size), dtype=torch.bool)
        lower, upper = np.maximum(first[row] - start[row], 0), np.minimum(last[row] - start[row], size)
        if (upper > lower).all():
            inside[tuple(slice(int(a), int(b)) for a, b in zip(lower, upper, strict=True))] = True
        assert torch.equal(found[row][~inside], expected[row][~inside])


def test_boxes_are_pasted_alike_on_the_host_and_on_an_accelerator() -> None:
    sources, targets = torch.randn(4, *SHAPE), torch.zeros(4, *SHAPE)
    target_at = np.array([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 2, 1], [0, 0, 0, 0, 0]])
    source_at = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 2, 2, 2], [0, 0, 3, 3, 3]])
    source_to = source_at + np.array([[1, 3, 2, 2, 2], [1, 3, 2, 2, 2], [1, 3, 3, 3, 3], [1, 3, 0, 2, 2]])
    other = targets.clone()
    copy_boxes(targets, sources, target_at, source_at, source_to)
    copy_alike(other, sources, np.array([0, 1, 2]), target_at, source_at, source_to)
    assert torch.equal(targets, other)
    assert torch.equal(targets[2, :, :, 0:3, 2:5, 1:4], sources[2, :, :, 2:5, 2:5, 2:5])
    assert not targets[3].any()


def test_cuts_at_one_place_are_views() -> None:
    stacked = torch.randn(2, 3, 6, 7, 5)
    size = np.array([1, 3, 2, 2, 2])
    same = cut_boxes(stacked, 2, np.array([[0, 0, 1, 1, 1]] * 2), size)
    assert same.data_ptr() == stacked[0, 0, 1, 1, 1:].data_ptr()
    assert torch.equal(same, stacked[:, :, 1:3, 1:3, 1:3])
    moved = cut_boxes(stacked, 2, np.array([[0, 0, 1, 1, 1], [0, 0, 2, 3, 0]]), size)
    assert torch.equal(moved[1], stacked[1, :, 2:4, 3:5, 0:2])


@given(box=boxes(), changed=boxes(border=0))
@settings(max_examples=50, deadline=None)
def test_a_crop_has_the_changed_elements_in_place(box: Placed, changed: Placed) -> None:
    start = box[0][:1]
    size = np.minimum(changed[1], SHAPE)
    at = np.minimum(changed[0][:1], np.array(SHAPE) - size)
    elements = channels_last(torch.randn(*size.tolist()))
    patch = Patch(elements, at, size)
    whole = value()
    whole[tuple(slice(int(a), int(a + e)) for a, e in zip(at[0], size, strict=True))] = elements
    expected = by_hand(whole, start, box[1], 0.0)
    assert torch.equal(ActivationCache({"x": value()}).crop("x", start, box[1], patch=patch), expected)
    walk = WalkCache(ActivationCache({"x": value()}))
    walk.absorb("x", patch)
    assert torch.equal(walk.crop("x", start, box[1], patch=patch), expected)
    assert torch.equal(walk.crop("x", start, box[1]), expected)


def test_a_walk_leaves_the_unperturbed_values_alone_and_forgets() -> None:
    base = ActivationCache({"x": value()})
    walk = WalkCache(base)
    patch = Patch(torch.ones(1, 3, 2, 2, 2), np.array([[0, 0, 1, 1, 1]]), np.array([1, 3, 2, 2, 2]))
    for _ in range(2):
        walk.absorb("x", patch)
        assert (walk["x"][:, :, 1:3, 1:3, 1:3] == 1).all()
        assert torch.equal(base["x"], value())
        walk.forget()
        assert torch.equal(walk["x"], value())
    walk.absorb("never kept", patch)
    assert base.bytes == value().nbytes

"""Volumes lie in inputs as InputSpec says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from voxplain_server.engines.batch_buffer import BatchBuffer
from voxplain_server.engines.device_buffer import DeviceBuffer
from voxplain_server.engines.input_assembly import assemble, assemble_tensors
from voxplain_server.models.case import Case

from tests.server.engines.tiny_models import TINY_MODELS, apply, early, knee, knee_without_batch, late, replacements


def test_modalities_become_channels(tmp_path: Path) -> None:
    case = early(tmp_path).case
    (image,) = assemble(case.model, case.volumes, batch=2)
    assert image.shape == (2, 2, *case.volumes[0].shape)
    assert image.dtype == np.float32
    for row in range(2):
        for channel, volume in enumerate(case.volumes):
            np.testing.assert_array_equal(image[row, channel], volume)


def test_late_fusion_has_one_input_for_each_modality(tmp_path: Path) -> None:
    case = late(tmp_path).case
    inputs = assemble(case.model, case.volumes, batch=1)
    assert [array.shape for array in inputs] == [(1, 1, *volume.shape) for volume in case.volumes]


def test_slices_come_first_and_channels_are_copies(tmp_path: Path) -> None:
    case = knee(tmp_path).case
    inputs = assemble(case.model, case.volumes, batch=1)
    assert [array.shape for array in inputs] == [(1, 5, 3, 16, 16), (1, 6, 3, 16, 16), (1, 4, 3, 16, 16)]
    for axis, (array, volume) in enumerate(zip(inputs, case.volumes, strict=True)):
        for number in range(volume.shape[axis]):
            for channel in range(3):
                np.testing.assert_array_equal(array[0, number, channel], volume.take(number, axis=axis))


def test_slices_can_use_up_the_batch_axis(tmp_path: Path) -> None:
    with_batch, without = knee(tmp_path / "a").case, knee_without_batch(tmp_path / "b").case
    for array, plain in zip(
        assemble(with_batch.model, with_batch.volumes, batch=1), assemble(without.model, without.volumes, batch=1), strict=True
    ):
        np.testing.assert_array_equal(array[0], plain)


def test_several_rows_without_a_batch_axis_are_refused(tmp_path: Path) -> None:
    case = knee_without_batch(tmp_path).case
    with pytest.raises(ValueError, match="one case at a time"):
        assemble(case.model, case.volumes, batch=2)
    doubled = tuple(torch.zeros(2, *volume.shape) for volume in case.volumes)
    with pytest.raises(ValueError, match="one case at a time"):
        assemble_tensors(case.model, doubled)


def test_half_precision_inputs_are_cast(tmp_path: Path) -> None:
    case = early(tmp_path).case
    spec = replace(case.model.inputs[0], dtype="float16")
    (image,) = assemble(replace(case.model, inputs=(spec,)), case.volumes, batch=1)
    assert image.dtype == np.float16


@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_tensors_lie_as_arrays_do_and_carry_gradients(make: object, tmp_path: Path) -> None:
    case: Case = make(tmp_path).case  # type: ignore[operator]
    volumes = [torch.tensor(volume)[None].requires_grad_() for volume in case.volumes]
    tensors = assemble_tensors(case.model, volumes)
    for tensor, array in zip(tensors, assemble(case.model, case.volumes, batch=1), strict=True):
        np.testing.assert_array_equal(tensor.detach().numpy(), array)
    gradients = torch.autograd.grad([tensor.sum() for tensor in tensors], volumes)
    for gradient, volume in zip(gradients, case.volumes, strict=True):
        assert gradient.shape == (1, *volume.shape)
        np.testing.assert_array_equal(gradient.numpy(), case.model.inputs[0].repeat)


@pytest.mark.parametrize("make", TINY_MODELS, ids=lambda make: make.__name__)
def test_writing_and_restoring_a_row_leaves_the_others(make: object, tmp_path: Path) -> None:
    tiny = make(tmp_path)  # type: ignore[operator]
    case: Case = tiny.case
    batch = 3 if tiny.model.batched else 1
    kinds = ["float32"] * len(case.model.inputs)
    buffer = BatchBuffer(case, batch_size=batch, dtypes=kinds)
    device = DeviceBuffer(case, batch_size=batch, dtypes=[torch.float32] * len(kinds), device=torch.device("cpu"))
    before = assemble(case.model, case.volumes, batch=batch)
    for perturbation in replacements(case):
        buffer.write(batch - 1, perturbation)
        device.write(batch - 1, perturbation)
        expected = assemble(case.model, apply(perturbation, case).volumes, batch=1)
        for written, sent, plain, original in zip(buffer.inputs, device.inputs, expected, before, strict=True):
            rows = written if case.model.inputs[0].batch_is_slices else written[-1:]
            np.testing.assert_array_equal(rows, plain)
            np.testing.assert_array_equal(sent.numpy(), written)
            if batch > 1:
                np.testing.assert_array_equal(written[:-1], original[:-1])
        buffer.restore(batch - 1, perturbation)
        device.restore(batch - 1, perturbation)
        for written, sent, original in zip(buffer.inputs, device.inputs, before, strict=True):
            np.testing.assert_array_equal(written, original)
            np.testing.assert_array_equal(sent.numpy(), original)

"""What limits an answer, by code, in plain words."""

from __future__ import annotations

from collections.abc import Iterable

from voxplain.v1 import explain_pb2

WORDS = {
    "REMOTE_MODEL": (
        "Another server holds the model and answers for it. The digest covers the bundle and what that server tells about the "
        "model, not its weights: the same request gives the same maps only while the model there stays the same."
    ),
    "ORIENTATION_UNCHECKED": (
        "The model's bundle states no orientation: volumes go in as they are. A volume whose axes run another way than in "
        "training, left and right swapped for instance, is explained without anybody noticing."
    ),
    "SPACING_UNCHECKED": "The model's bundle states no spacing: volumes of any voxel size go in as they are.",
    "AFFINE_UNKNOWN": "A volume came without an affine: nobody knows where its voxels lie and which side is left.",
    "OBLIQUE": (
        "A volume's axes lean by more than 10 degrees from the patient's: it was flipped and swapped to the nearest "
        "orientation, and not rotated."
    ),
    "RESAMPLED": "A volume was resampled to the model's grid: maps come back interpolated, and their sums are not kept.",
    "CROPPED": (
        "A volume is larger than what the model reads, and was cropped evenly, which the bundle allows. The model never saw "
        "the voxels outside: maps are zero there, and that does not mean that they have no effect."
    ),
    "SPACING_DIFFERS": (
        "A volume was resized to the model's shape, which its bundle allows, and has another voxel size there than the model's "
        "stated spacing: what is in it looks larger or smaller, or stretched, to the model."
    ),
    "ACTIVATION_UNKNOWN": (
        "The bundle says that the model answers probabilities, but the graph shows no final softmax or sigmoid: the answer is "
        "explained as it is."
    ),
    "EMPTY_VOLUME": "A volume holds nothing but zeros.",
    "CONSTANT_VOLUME": "All non-zero voxels of a volume are equal: it was centred and not scaled.",
    "BACKGROUND_UNFIT": "A background case of the bundle does not fit the model's grid for this case and was left out.",
}


def describe_cautions(codes: Iterable[str]) -> list[explain_pb2.Caution]:
    """Cautions about the whole call, each code once, in the order given."""
    return [explain_pb2.Caution(code=code, description=WORDS.get(code, "")) for code in dict.fromkeys(codes)]

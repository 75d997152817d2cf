"""From tissue maps and a tumour's outline to the volume a scanner would give for one modality."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from examples.glioma_demo.grid import DEMO_GRID
from examples.glioma_demo.randomness import open_stream
from examples.glioma_demo.scene import OEDEMA_RATIO, Scene, smooth_field
from examples.glioma_demo.tumour import Outline, Shape, draw_outline

Modality: TypeAlias = Literal["t1", "t1c", "t2", "flair"]
MODALITIES: tuple[Modality, Modality, Modality, Modality] = ("t1", "t1c", "t2", "flair")

_BRIGHTNESS = 600.0
_BRIGHTNESS_JITTER = 0.15
_TISSUE_JITTER = 0.05
_LESION_JITTER = 0.08
_BIAS_NODES = 4
_BIAS = 0.06
_NOISE = (0.015, 0.035)
_TEXTURE_NODES = 14
_TEXTURE = 0.12


@dataclass(frozen=True, slots=True)
class _Contrast:
    """Relative brightness of the tissues in one modality, and how the tumour shows.

    Attributes:
        white, grey, fluid: brightness of the tissue, 1 being the brightest tissue's.
        template: share of the template's own T1 in the picture, for its fine structure.
        rim, core: brightness of the tumour's rim and of its core.
        core_scale: the core's size relative to the outline; 0 means none.
        ratio: the outline's size relative to the enhancing tumour's.
        strength: how far the tumour covers the tissue under it.
    """

    white: float
    grey: float
    fluid: float
    template: float
    rim: float
    core: float
    core_scale: float
    ratio: float
    strength: float


# T1c: bright enhancing rim around a dark necrotic core. FLAIR: bright oedema. T1 and T2: a faint ball, the same for
# both labels: the mass is seen there as in a patient, but its shape is not, so it can tell the network nothing.
_CONTRASTS: dict[Modality, _Contrast] = {
    "t1": _Contrast(1.0, 0.72, 0.30, 0.6, 0.50, 0.50, 0.0, 0.9, 0.45),
    "t1c": _Contrast(0.95, 0.74, 0.30, 0.5, 1.50, 0.45, 0.50, 1.0, 1.0),
    "t2": _Contrast(0.48, 0.64, 1.0, 0.0, 0.95, 0.95, 0.0, 0.9, 0.45),
    "flair": _Contrast(0.62, 0.78, 0.22, 0.0, 1.15, 1.15, 0.0, OEDEMA_RATIO, 0.9),
}
# Where the tumour has no margin, it has no shape to tell.
_WITHOUT_MARGIN: tuple[Modality, Modality] = ("t1", "t2")


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One modality of one case.

    Attributes:
        volume: float32 on the demo grid with whole-number intensities, as scanners store them; 0 outside the brain,
            at least 1 inside.
        tumour: True where more than half a voxel is tumour, bool.
    """

    volume: NDArray[np.float32]
    tumour: NDArray[np.bool_]


def acquire(scene: Scene, modality: Modality, shape: Shape | None) -> Acquisition:
    """Synthesise `modality` of `scene` with a tumour of `shape`; T1 and T2 show a faint ball whatever the shape.

    Without a shape there is no tumour.

    Everything but the outline depends on the scene's seed and the modality alone: the same call with the other shape
    gives the same picture with another tumour. Noise is Rician (Gudbjartsson and Patz, Magn. Reson. Med. 34, 1995).
    """
    part = MODALITIES.index(modality)
    contrast = _CONTRASTS[modality]
    draw = open_stream(scene.seed, "contrast", part)
    picture = _tissue_picture(scene, contrast, draw)
    rim, core = np.array([contrast.rim, contrast.core]) * (1 + draw.uniform(-_LESION_JITTER, _LESION_JITTER, 2))
    texture = 1 + smooth_field(draw.normal(0, _TEXTURE, (1, *[_TEXTURE_NODES] * 3)))[0]
    gain = _BRIGHTNESS * (1 + draw.uniform(-_BRIGHTNESS_JITTER, _BRIGHTNESS_JITTER))
    radius_mm = contrast.ratio * scene.radius_mm
    if shape is None:
        whole = inner = np.zeros_like(picture)
    elif modality in _WITHOUT_MARGIN:
        whole = _fading_ball(scene, radius_mm)
        inner = np.zeros_like(whole)
    else:
        outline_draw = open_stream(scene.seed, "outline", 2 * part + (shape == "irregular"))
        outline = draw_outline(shape, radius_mm=radius_mm, generator=outline_draw)
        whole = _occupancy(scene, outline, 1.0)
        inner = _occupancy(scene, outline, contrast.core_scale) if contrast.core_scale else np.zeros_like(whole)
    lesion = (rim * (1 - inner) + core * inner) * texture
    cover = contrast.strength * whole
    picture = picture * (1 - cover) + lesion * cover
    bias = np.exp(smooth_field(open_stream(scene.seed, "bias", part).normal(0, _BIAS, (1, *[_BIAS_NODES] * 3)))[0])
    brain = scene.anatomy.brain
    noisy = _add_noise((gain * picture * bias)[brain], gain=gain, generator=open_stream(scene.seed, "noise", part))
    volume = np.zeros(brain.shape, dtype=np.float32)
    volume[brain] = np.maximum(np.rint(noisy), 1.0)
    return Acquisition(volume=volume, tumour=(whole > 0.5) & brain)


def _tissue_picture(scene: Scene, contrast: _Contrast, draw: np.random.Generator) -> NDArray[np.float64]:
    white, grey, fluid = np.array([contrast.white, contrast.grey, contrast.fluid]) * (
        1 + draw.uniform(-_TISSUE_JITTER, _TISSUE_JITTER, 3)
    )
    anatomy = scene.anatomy
    tissue = white * anatomy.white + grey * anatomy.grey + fluid * anatomy.fluid
    return np.asarray((1 - contrast.template) * tissue + contrast.template * white * anatomy.t1, dtype=np.float64)


def _occupancy(scene: Scene, outline: Outline, scale: float) -> NDArray[np.float64]:
    occupancy = outline.occupancy(
        DEMO_GRID.points_mm(), centre_mm=scene.centre_mm, spacing_mm=DEMO_GRID.spacing_mm, scale=scale
    )
    return occupancy.astype(np.float64)


def _fading_ball(scene: Scene, radius_mm: float) -> NDArray[np.float64]:
    """A ball without a margin: 1 at the centre, a half at the radius."""
    offset = DEMO_GRID.points_mm() - scene.centre_mm[:, None, None, None]
    relative = np.linalg.norm(offset, axis=0) / radius_mm
    return np.asarray(np.exp2(-((relative * relative) ** 2)), dtype=np.float64)


def _add_noise(picture: NDArray[np.float64], *, gain: float, generator: np.random.Generator) -> NDArray[np.float64]:
    sigma = gain * generator.uniform(*_NOISE)
    real, imaginary = generator.normal(0, sigma, (2, *picture.shape))
    return np.asarray(np.hypot(picture + real, imaginary), dtype=np.float64)

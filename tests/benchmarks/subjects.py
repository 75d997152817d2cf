"""The networks of `make bench` and `make bench-full`, at the widths in which they are used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.benchmarks import vgg_like
from tests.benchmarks.subject import Subject

CLASSES = len(vgg_like.CLASSES)


class Link(nn.Module):
    """An encoder and a decoder with InstanceNorm and added skips, after LinkNet (Chaurasia, Culurciello 2017)."""

    def __init__(self, channels: int = 4, width: int = 16) -> None:
        super().__init__()
        self.stem = _normed(nn.Conv3d(channels, width, 3, padding=1))
        self.down = nn.ModuleList(
            _normed(nn.Conv3d(width << depth, width << (depth + 1), 3, stride=2, padding=1)) for depth in range(3)
        )
        self.up = nn.ModuleList(
            _normed(nn.ConvTranspose3d(width << (depth + 1), width << depth, 2, stride=2)) for depth in reversed(range(3))
        )
        self.head = nn.Conv3d(width, CLASSES, 1)

    def forward(self, volume: Tensor) -> Tensor:
        found = [self.stem(volume)]
        for layer in self.down:
            found.append(layer(found[-1]))
        value = found.pop()
        for layer in self.up:
            value = layer(value) + found.pop()
        scores: Tensor = self.head(value)
        return scores


class LateFusion(nn.Module):
    """Three branches of their own, joined behind their global means: as the published knee classifier joins its views."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_branch(width) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(3 * 8 * width, 64), nn.ReLU(), nn.Linear(64, CLASSES))

    def forward(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        found = [branch(volume) for branch, volume in zip(self.branches, (first, second, third), strict=True)]
        scores: Tensor = self.head(torch.cat(found, 1))
        return scores


def _branch(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for depth in range(4):
        layers += [
            nn.Conv3d(channels, width << depth, 3, padding=1),
            nn.BatchNorm3d(width << depth),
            nn.ReLU(),
            nn.MaxPool3d(2),
        ]
        channels = width << depth
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten())


def _normed(convolution: nn.Module) -> nn.Sequential:
    features = int(convolution.out_channels)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.InstanceNorm3d(features, affine=True), nn.ReLU())


def _settled(make: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    def build(edge: int) -> nn.Module:
        torch.manual_seed(0)
        network = make()
        for module in network.modules():
            if hasattr(module, "inplace"):
                # An activation in place overwrites what Captum's hooks keep of its input.
                setattr(module, "inplace", False)  # noqa: B010
        return network.eval()

    return build


def _resnet(stem_stride: int) -> nn.Module:
    # MONAI takes seconds: who measures the other networks does without.
    from monai.networks.nets.resnet import resnet18

    made: nn.Module = resnet18(
        spatial_dims=3, n_input_channels=4, num_classes=CLASSES, conv1_t_stride=stem_stride, shortcut_type="B"
    )
    return made


def _densenet() -> nn.Module:
    from monai.networks.nets.densenet import DenseNet121

    return DenseNet121(spatial_dims=3, in_channels=4, out_channels=CLASSES)


def _unet() -> nn.Module:
    from monai.networks.nets.unet import UNet

    return UNet(
        spatial_dims=3,
        in_channels=4,
        out_channels=CLASSES,
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=2,
        act="relu",
        norm="batch",
    )


SUBJECTS: dict[str, Subject] = {
    "vgg-like": Subject("vgg-like", lambda edge: vgg_like.network(edge=edge)),
    "resnet18-stem1": Subject("resnet18-stem1", _settled(lambda: _resnet(1))),
    "resnet18-stem2": Subject("resnet18-stem2", _settled(lambda: _resnet(2))),
    "densenet121": Subject("densenet121", _settled(_densenet)),
    "unet": Subject("unet", _settled(_unet), segmentation=True),
    "linknet-instance": Subject("linknet-instance", _settled(Link), segmentation=True),
    "late-fusion": Subject("late-fusion", _settled(LateFusion), modalities=("t1", "t1c", "flair"), late=True),
}

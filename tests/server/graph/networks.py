"""Small seeded networks of every architecture that the twin must read, each with random but settled weights.

A network is *clean* if each of its non-linearities is a module of its own, as Captum's hooks need it. Those that reuse one
module or call a function have a `rewrite` with the same weights that is clean.
"""

import dataclasses
import functools
from collections.abc import Callable

import torch
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.resnet import ResNetBlock, resnet18
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from monai.networks.nets.vit import ViT
from torch import Tensor, nn
from torch.nn import functional

Shapes = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkCase:
    """`build()` gives the network in evaluation mode, always with the same weights; `input_shapes` holds batch size 1.

    `dynamic_batch` says whether axis 0 is a batch axis that may vary; `rewrite` builds the clean equal of an unclean network.
    """

    build: Callable[[], nn.Module]
    input_shapes: Shapes
    dynamic_batch: bool
    clean: bool
    rewrite: Callable[[], nn.Module] | None = None

    def build_clean(self) -> nn.Module:
        """The network itself if it is clean, else its clean equal."""
        return self.build() if self.rewrite is None else self.rewrite()

    def inputs(self, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Normal noise, one tensor per input; the same numbers in each type."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in self.input_shapes)


class Vgg(nn.Module):
    """Convolution, BatchNorm, ReLU, max pooling, twice over; then two linear layers."""

    def __init__(self, channels: int = 4, classes: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(channels, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(4, 8, 3, padding=1),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.Conv3d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool3d(2),
        )
        self.pool = nn.AvgPool3d(2)
        self.classifier = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, classes))

    def forward(self, volume: Tensor) -> Tensor:
        scores: Tensor = self.classifier(torch.flatten(self.pool(self.features(volume)), 1))
        return scores


class LinkNet(nn.Module):
    """Encoder and decoder with InstanceNorm, transposed convolutions and added skips; a segmentation of three classes."""

    def __init__(self, channels: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.stem = _down(channels, 4, stride=1)
        self.down1, self.down2 = _down(4, 8, stride=2), _down(8, 12, stride=2)
        self.up2, self.up1 = _up(12, 8), _up(8, 4)
        self.head = nn.Conv3d(4, classes, 1)

    def forward(self, volume: Tensor) -> Tensor:
        full = self.stem(volume)
        half = self.down1(full)
        quarter = self.down2(half)
        half = self.up2(quarter) + half
        scores: Tensor = self.head(self.up1(half) + full)
        return scores


def _down(channels: int, features: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, features, 3, stride=stride, padding=1), nn.InstanceNorm3d(features, affine=True), nn.ReLU()
    )


def _up(channels: int, features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose3d(channels, features, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm3d(features, affine=True),
        nn.ReLU(),
    )


class MrNet(nn.Module):
    """Three views of a knee, each a stack of slices that takes the batch axis; one ReLU module for all, and F.relu.

    Each view: (1, slices, 3, height, width). After Bien et al., "Deep-learning-assisted diagnosis for knee magnetic
    resonance imaging", PLOS Medicine 2018.
    """

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.views = nn.ModuleList(nn.ModuleList((nn.Conv2d(3, 6, 5, 2, 2), nn.Conv2d(6, 8, 3, 1, 1))) for _ in range(3))
        self.relu = nn.ReLU()
        self.hidden = nn.Linear(24, 12)
        self.classifier = nn.Linear(12, classes)

    def forward(self, axial: Tensor, coronal: Tensor, sagittal: Tensor) -> Tensor:
        found = [self.view(layers, stack) for layers, stack in zip(self.views, (axial, coronal, sagittal), strict=True)]
        scores: Tensor = self.classifier(functional.relu(self.hidden(torch.cat(found, 1))))
        return scores

    def view(self, layers: nn.Module, stack: Tensor) -> Tensor:
        first, second = layers.children()
        slices = self.relu(first(torch.squeeze(stack, 0)))
        slices = functional.max_pool2d(slices, 3, 2)
        slices = functional.relu(second(slices))
        slices = functional.adaptive_avg_pool2d(slices, 1).flatten(1)
        scores: Tensor = torch.max(slices, 0, keepdim=True)[0]
        return scores


class CleanMrNet(MrNet):
    """The same network, each non-linearity a module."""

    def __init__(self) -> None:
        super().__init__()
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(7))
        self.pools = nn.ModuleList(nn.MaxPool2d(3, 2) for _ in range(3))

    def forward(self, axial: Tensor, coronal: Tensor, sagittal: Tensor) -> Tensor:
        found = []
        for number, (layers, stack) in enumerate(zip(self.views, (axial, coronal, sagittal), strict=True)):
            first, second = layers.children()
            slices = self.pools[number](self.relus[2 * number](first(torch.squeeze(stack, 0))))
            slices = self.relus[2 * number + 1](second(slices))
            slices = functional.adaptive_avg_pool2d(slices, 1).flatten(1)
            found.append(torch.max(slices, 0, keepdim=True)[0])
        scores: Tensor = self.classifier(self.relus[6](self.hidden(torch.cat(found, 1))))
        return scores


class DirtyNet(nn.Module):
    """One ReLU module used twice and one functional ReLU, with a batch axis that may vary."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv3d(2, 4, 3), nn.Conv3d(4, 4, 3), nn.Conv3d(4, 4, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 2)

    def forward(self, volume: Tensor) -> Tensor:
        volume = self.relu(self.second(self.relu(self.first(volume))))
        volume = functional.relu(self.third(volume))
        scores: Tensor = self.head(volume.mean((2, 3, 4)))
        return scores


class CleanNet(DirtyNet):
    """The same network, each non-linearity a module."""

    def __init__(self) -> None:
        super().__init__()
        self.relu2, self.relu3 = nn.ReLU(), nn.ReLU()

    def forward(self, volume: Tensor) -> Tensor:
        volume = self.relu2(self.second(self.relu(self.first(volume))))
        volume = self.relu3(self.third(volume))
        scores: Tensor = self.head(volume.mean((2, 3, 4)))
        return scores


class CleanResNetBlock(ResNetBlock):
    """MONAI's block applies one in-place activation twice; this one has two."""

    second_act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        scores: Tensor = self.second_act(out + shortcut)
        return scores


class CleanAttention(SABlock):
    """MONAI's self-attention calls softmax as a function; this one has a module."""

    softmax: nn.Module

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        query, key, value = self.input_rearrange(self.qkv(x))
        attention = self.softmax(torch.einsum("blxd,blyd->blxy", query, key) * self.scale)
        scores: Tensor = self.out_proj(self.out_rearrange(torch.einsum("bhxy,bhyd->bhxd", attention, value)))
        return scores


class FirstOutput(nn.Module):
    """MONAI's ViT also returns its hidden states; only the first output is kept."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor) -> Tensor:
        first: Tensor = self.network(volume)[0]
        return first


def _settled(build: Callable[[], nn.Module], change: Callable[[nn.Module], None] | None = None) -> nn.Module:
    """Seeded weights, random BatchNorm statistics (else folding would prove nothing), evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2023)
        network = build()
        for module in network.modules():
            if hasattr(module, "inplace"):
                # An activation in place overwrites what Captum's hooks keep of its input.
                setattr(module, "inplace", False)  # noqa: B010
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm3d)) and module.affine:
                _around_one(module.weight)
                _around_zero(module.bias)
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                for statistic, draw in ((module.running_mean, _around_zero), (module.running_var, _around_one)):
                    if statistic is not None:
                        draw(statistic)
        if change is not None:
            change(network)
    return network.eval()


def _around_zero(tensor: Tensor) -> None:
    nn.init.normal_(tensor, 0.0, 0.2)


def _around_one(tensor: Tensor) -> None:
    nn.init.uniform_(tensor, 0.5, 1.5)


def _clean_resnet(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, ResNetBlock):
            module.__class__ = CleanResNetBlock
            module.act, module.second_act = nn.ReLU(), nn.ReLU()
    network.act = nn.ReLU()


def _clean_attention(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, SABlock):
            module.__class__ = CleanAttention
            module.softmax = nn.Softmax(dim=-1)


def _resnet() -> nn.Module:
    network = resnet18(spatial_dims=3, n_input_channels=4, num_classes=2, widen_factor=0.125, conv1_t_stride=2)
    return network


def _densenet() -> nn.Module:
    return DenseNet121(spatial_dims=3, in_channels=4, out_channels=2, init_features=8, growth_rate=4)


def _unet() -> nn.Module:
    return UNet(spatial_dims=3, in_channels=4, out_channels=3, channels=(4, 8, 12), strides=(2, 2), num_res_units=1)


def _basic_unet() -> nn.Module:
    return BasicUNet(spatial_dims=3, in_channels=4, out_channels=3, features=(4, 4, 4, 8, 8, 4))


def _vit() -> nn.Module:
    return FirstOutput(
        ViT(
            in_channels=4,
            img_size=(16, 16, 16),
            patch_size=(8, 8, 8),
            hidden_size=24,
            mlp_dim=32,
            num_layers=2,
            num_heads=3,
            classification=True,
            num_classes=2,
        )
    )


def _swin_unetr() -> nn.Module:
    return SwinUNETR(1, 2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=(3, 3, 3), spatial_dims=3)


def _volume(size: int, channels: int = 4) -> Shapes:
    return ((1, channels, size, size, size),)


NETWORKS: dict[str, NetworkCase] = {
    "vgg": NetworkCase(functools.partial(_settled, Vgg), _volume(16), True, True),
    "densenet121": NetworkCase(functools.partial(_settled, _densenet), _volume(32), True, True),
    "resnet18": NetworkCase(
        functools.partial(_settled, _resnet),
        _volume(32),
        True,
        False,
        functools.partial(_settled, _resnet, _clean_resnet),
    ),
    "unet": NetworkCase(functools.partial(_settled, _unet), _volume(16), True, True),
    "basicunet": NetworkCase(functools.partial(_settled, _basic_unet), _volume(32), True, True),
    "vit": NetworkCase(
        functools.partial(_settled, _vit), _volume(16), True, False, functools.partial(_settled, _vit, _clean_attention)
    ),
    "linknet": NetworkCase(functools.partial(_settled, LinkNet), _volume(16), True, True),
    "mrnet": NetworkCase(
        functools.partial(_settled, MrNet),
        ((1, 3, 3, 24, 24), (1, 4, 3, 24, 24), (1, 2, 3, 20, 20)),
        False,
        False,
        functools.partial(_settled, CleanMrNet),
    ),
    "dirty": NetworkCase(
        functools.partial(_settled, DirtyNet), _volume(12, 2), True, False, functools.partial(_settled, CleanNet)
    ),
}

SWIN_UNETR = NetworkCase(functools.partial(_settled, _swin_unetr), ((1, 1, 32, 32, 64),), True, False)
"""Apart from the others: it takes seconds where they take tenths."""

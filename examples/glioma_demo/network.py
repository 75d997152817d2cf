"""The demo network: small, early-fusion, VGG-like."""

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from examples.glioma_demo.synthesis import MODALITIES
from examples.glioma_demo.tumour import SHAPES

# (channels, kernel edge, stride) of each convolution.
_LAYERS = ((8, 3, 2), (16, 3, 2), (32, 3, 1), (32, 1, 1))


class ShapeNet(nn.Module):
    """Convolutions with batch normalisation and ReLU, global average pooling, one linear layer.

    Strided convolutions stand in for VGG's max pooling: DeepLIFT's rescale rule is complete on them, and no near-tie of
    a pooling window makes gradients jump. Every ReLU is its own module, so that hooks on one touch no other.
    Takes (N, 4, X, Y, Z) normalised volumes, gives (N, 2) logits; 0 is round, 1 irregular.
    """

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = len(MODALITIES)
        for width, edge, stride in _LAYERS:
            features += [
                nn.Conv3d(channels, width, kernel_size=edge, stride=stride, padding=edge // 2, bias=False),
                nn.BatchNorm3d(width),
                nn.ReLU(),
            ]
            channels = width
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(channels, len(SHAPES))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the two shapes, (N, 2)."""
        return self.judge(self.features(image))

    def judge(self, activations: Tensor) -> Tensor:
        """The logits that the last convolution's activations (N, C, x, y, z) come to."""
        logits: Tensor = self.head(self.flatten(self.pool(activations)))
        return logits

    def weigh_evidence(self, activations: Tensor) -> Tensor:
        """What each place says for irregular against round, (N, x, y, z); its mean, plus the biases, is the margin."""
        weight = self.head.weight[1] - self.head.weight[0]
        return torch.einsum("c,ncxyz->nxyz", weight, activations)


def fold_batch_norm(network: ShapeNet) -> ShapeNet:
    """The same function with every batch normalisation folded into its convolution; puts `network` in eval mode."""
    network.eval()
    folded = ShapeNet()
    layers: list[nn.Module] = []
    for layer in network.features:
        if isinstance(layer, nn.BatchNorm3d):
            convolution = layers.pop()
            if not isinstance(convolution, nn.Conv3d):
                raise TypeError("a batch normalisation must follow a convolution to be folded")
            layers.append(fuse_conv_bn_eval(convolution, layer))
        else:
            layers.append(nn.ReLU() if isinstance(layer, nn.ReLU) else layer)
    folded.features = nn.Sequential(*layers)
    folded.head.load_state_dict(network.head.state_dict())
    return folded.eval()


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())

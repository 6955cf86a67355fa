"""PatchGAN: says of each patch whether it is drawn or decoded."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Discriminator(nn.Module):
    """Three strided convolutions, one more, then one logit per patch: (B, 3, H, W) -> (B, 1, ~H/8, ~W/8)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, dim, 4, 2, 1), nn.LeakyReLU(0.2)]
        for c_in, c_out, stride in ((dim, 2 * dim, 2), (2 * dim, 4 * dim, 2), (4 * dim, 8 * dim, 1)):
            layers += [nn.Conv2d(c_in, c_out, 4, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*layers, nn.Conv2d(8 * dim, 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        return self.main(image).float()


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: nn.Parameter) -> Tensor:
    """Scales the adversarial gradient at the decoder's last layer to the size of the reconstruction's."""
    wanted = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0].norm()
    found = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0].norm()
    return (wanted / (found + 1e-4)).clamp(0, 1e4).detach()

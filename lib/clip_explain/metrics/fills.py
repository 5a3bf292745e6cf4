"""The fillings between which pixels are changed in faithfulness curves: noise, black, blur, the mean colour.

Below faithfulness.py.
"""

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from clip_explain.checks import checked, one_of

FILLS = ("noise", "black", "blur", "mean")
BLUR_SIDE, BLUR_SIGMA = 11, 5  # RISE's, in pixels


@checked()
def fill(
    name: str,
    pixels: Float[Tensor, "images 3 height width"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    seed: int = 0,
) -> Float[Tensor, "images 3 height width"]:
    """A filling of this name, in preprocessed pixels: "image", "mean", "black", "noise" or "blur".

    "noise" is uniform in each colour and pixel, image i's drawn by `seed` + i on the CPU, whatever the device.
    MethodError for another name.
    """
    one_of("name", name, ("image", *FILLS))
    if name == "image":
        return pixels
    if name == "mean":
        return torch.zeros_like(pixels)
    if name == "blur":
        return blur(pixels)
    if name == "black":
        plain = torch.zeros(pixels.shape, dtype=torch.float32)
    else:
        seeds = (torch.Generator().manual_seed(seed + index) for index in range(len(pixels)))
        shape = pixels.shape[1:]
        plain = torch.stack([torch.rand(shape, generator=seed, dtype=torch.float32) for seed in seeds])
    return TF.normalize(plain, list(mean), list(std)).to(pixels)


@checked()
def blur(pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
    """RISE's blurred image: a kernel of 11 x 11 px, CLIP's mean colour beyond the border.

    The kernel is that of the authors' code, SciPy's Gaussian filter (sigma 5) of a point in the middle of 11 x 11
    pixels. It reflects at their edges, so the kernel is flatter than a Gaussian cut to that size.
    """
    line = gaussian_filter1d(np.eye(BLUR_SIDE)[BLUR_SIDE // 2], BLUR_SIGMA)
    kernel = torch.from_numpy(line).to(pixels.device, torch.promote_types(pixels.dtype, torch.float32))
    colours, middle = pixels.shape[1], BLUR_SIDE // 2
    down = kernel.view(1, 1, -1, 1).expand(colours, 1, -1, 1)
    blurred = F.conv2d(pixels.to(kernel), down, padding=(middle, 0), groups=colours)
    return F.conv2d(blurred, down.transpose(2, 3), padding=(0, middle), groups=colours).to(pixels)

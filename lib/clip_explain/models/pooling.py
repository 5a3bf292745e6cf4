"""How patch tokens become one feature: class token, average, max, and ICLIP's masked max pooling ("IC", eq. 9-10)."""

from jaxtyping import Float
from torch import Tensor

from clip_explain.errors import MethodError, nearest
from clip_explain.maps import normalize

POOLINGS = ("attention", "average", "max", "masked_max")


def attention_mask(
    attention: Float[Tensor, "images heads patches"], grid: tuple[int, int]
) -> Float[Tensor, "images patches"]:
    """IC eq. 9: attention of the class token to the patches, mean over heads, min-max scaled to [0, 1] in each image.

    The same number for all channels (the paper's Expand). An attention that is flat masks everything: zeros.
    """
    return normalize(attention.mean(dim=1).unflatten(-1, grid)).flatten(-2)


def masked_max_pool(
    tokens: Float[Tensor, "images patches channels"], mask: Float[Tensor, "images patches"]
) -> Float[Tensor, "images channels"]:
    """Masked max pooling, IC eq. 10: for each channel the largest of the patches' features, each times its mask."""
    return (tokens * mask[..., None]).amax(dim=1)


def pool(
    tokens: Float[Tensor, "images tokens channels"], mask: Float[Tensor, "images patches"], how: str
) -> Float[Tensor, "images channels"]:
    """The pooled features of an image (class token first): one of POOLINGS.

    "attention" is the class token, as in CLIP; "average" and "max" are over patches; "masked_max" is eq. 10.
    """
    patches = tokens[:, 1:]
    if how == "attention":
        return tokens[:, 0]
    if how == "average":
        return patches.mean(dim=1)
    if how == "max":
        return patches.amax(dim=1)
    if how == "masked_max":
        return masked_max_pool(patches, mask)
    raise MethodError(f"unknown pooling {how!r}: {nearest(how, POOLINGS)}")

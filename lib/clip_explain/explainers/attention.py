"""Explainers that read attention alone: no gradient, and no target, enters.

They show where the model looks, not why a text fits.
"""

from jaxtyping import Float
from torch import Tensor

from clip_explain.query import Query
from clip_explain.trace import pooled_row


def self_attention(query: Query, *, heads: str = "native") -> Float[Tensor, "images targets grid_h grid_w"]:
    """Attention of the class token to the patches in the last block, mean over heads; the same map for every target.

    Range 0 to 1; a map sums to less than 1, since the class token also attends to itself. `heads="native"` is the
    model's own attention. Differs from the Grad-ECLIP authors' code, whose "raw attention" is that of one head over all
    channels: `heads="single"`.
    """
    trace = query.trace(heads=heads)
    attention = pooled_row(trace.blocks[-1].attention, trace.pooled).float().mean(dim=1)
    return attention[:, None, 1:].unflatten(-1, trace.grid).repeat(1, len(query.targets), 1, 1)

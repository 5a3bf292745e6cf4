"""How far a changed model's scores depart from the untouched model's, as rows of the long table.

Above tables.py; notebook 12 asks it of a model that attends with one head.
"""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.papers.tables import measured


def departure(
    image: str,
    method: str,
    before: Float[Tensor, " candidates"],
    after: Float[Tensor, " candidates"],
    right: Collection[int],
    setting: str = "",
) -> list[dict[str, Any]]:
    """Rows of three metrics of one image's scores (or a text's) with the same candidates before and after the change.

    "correlation with the own score" over the candidates, 0 where one of the two is constant; "same first", 1 or 0: the
    same candidate is first; "right first": the one that is first after the change is one of the `right` numbers.
    """
    together = torch.corrcoef(torch.stack([before, after]))[0, 1].nan_to_num()
    found = {"correlation with the own score": together, "same first": before.argmax() == after.argmax()}
    return measured(image, method, found | {"right first": int(after.argmax()) in right}, setting)

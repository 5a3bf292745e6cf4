"""All metrics of maps against masks in one place: those of pointing.py and segmentation.py, and their registry.

Names that have changed still work here, with a warning, for one release.
"""

from clip_explain.metrics.masks import check_masks
from clip_explain.metrics.pointing import (
    energy_in,
    energy_in_cells,
    energy_pointing_game,
    grid_pointing,
    image_grid,
    own_and_others,
    pointing_game,
    points_at,
)
from clip_explain.metrics.registry import METRICS, OLD_NAMES, Metric, current_name
from clip_explain.metrics.segmentation import (
    RULES,
    average_precision,
    foreground_minus_background,
    iou_curves,
    marked,
    mask_iou,
    mean_over_classes,
    mfmb,
    mmiou,
    pixel_accuracy,
    searched_iou,
)

LOCALIZATION: dict[str, Metric] = {name: metric for name, metric in METRICS.items() if metric.of_masks}

__all__ = [
    "LOCALIZATION",
    "RULES",
    "average_precision",
    "check_masks",
    "energy_in",
    "energy_in_cells",
    "energy_pointing_game",
    "foreground_minus_background",
    "grid_pointing",
    "image_grid",
    "iou_curves",
    "marked",
    "mask_iou",
    "mean_over_classes",
    "mfmb",
    "mmiou",
    "own_and_others",
    "pixel_accuracy",
    "pointing_game",
    "points_at",
    "searched_iou",
]


def __getattr__(name: str):
    """The functions by their old names, with a warning."""
    if name not in OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[current_name(name)]

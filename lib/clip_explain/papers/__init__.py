"""What the papers say, what we found, and how the two are compared and kept.

A notebook measures into a `long_table`, then calls `summarize`, `judge` and `save`.
"""

from clip_explain.explainers.registry import title_of
from clip_explain.papers.by_class import maps_by_class, scores_by_class
from clip_explain.papers.claims import (
    KINDS,
    RELATIONS,
    Statement,
    claims,
    control,
    differences,
    in_paper,
    true_in_paper,
)
from clip_explain.papers.curves import ENDINGS, areas, deletion_and_insertion, heights
from clip_explain.papers.provenance import PACKAGES, named, provenance, save
from clip_explain.papers.published import LIBRARY_NAMES, PAPERS, printed, published
from clip_explain.papers.ranking import OVERALL, ranks, ranks_of_means
from clip_explain.papers.saving import DPI, save_figure, write
from clip_explain.papers.tables import (
    also_called,
    averaged,
    by_method,
    completed,
    furthest_apart,
    long_table,
    measured,
    measured_by_class,
    measured_each,
    summarize,
    titled,
    within_images,
)
from clip_explain.papers.verdicts import (
    ENOUGH,
    VERDICTS,
    closing_table,
    judge,
    read_verdicts,
    tally,
    tally_of,
    totals,
)

__all__ = [
    "DPI",
    "ENDINGS",
    "ENOUGH",
    "KINDS",
    "LIBRARY_NAMES",
    "OVERALL",
    "PACKAGES",
    "PAPERS",
    "RELATIONS",
    "Statement",
    "VERDICTS",
    "also_called",
    "areas",
    "averaged",
    "by_method",
    "claims",
    "closing_table",
    "completed",
    "control",
    "deletion_and_insertion",
    "differences",
    "furthest_apart",
    "heights",
    "in_paper",
    "judge",
    "long_table",
    "maps_by_class",
    "measured",
    "measured_by_class",
    "measured_each",
    "named",
    "printed",
    "provenance",
    "published",
    "ranks",
    "ranks_of_means",
    "read_verdicts",
    "save",
    "save_figure",
    "scores_by_class",
    "summarize",
    "tally",
    "tally_of",
    "title_of",
    "titled",
    "totals",
    "true_in_paper",
    "within_images",
    "write",
]

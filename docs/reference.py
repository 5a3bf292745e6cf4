"""The site's reference of the library, made from docstrings by Sphinx's autodoc.

The docstrings are plain text. `as_markup` keeps them as they are written: names in code, and indented lines as they
stand.
"""

import re
from pathlib import Path

PAGES = {  # title -> its modules
    "Explain": (
        "clip_explain.explainers.calls",
        "clip_explain.explainers.explanation",
        "clip_explain.explainers.method",
    ),
    "Models": ("clip_explain.models", "clip_explain.models.agreement"),
    "Images, texts, targets": ("clip_explain.images", "clip_explain.texts", "clip_explain.directions"),
    "Requests and maps": ("clip_explain.request", "clip_explain.models.trace", "clip_explain.maps"),
    "Methods": (
        "clip_explain.explainers.attention",
        "clip_explain.explainers.attn_lrp",
        "clip_explain.explainers.grad_cam",
        "clip_explain.explainers.grad_eclip",
        "clip_explain.explainers.gradients",
        "clip_explain.explainers.head_effects",
        "clip_explain.explainers.iclip",
        "clip_explain.explainers.integrated",
        "clip_explain.explainers.interactions",
        "clip_explain.explainers.m2ib",
        "clip_explain.explainers.rise",
        "clip_explain.explainers.shapley",
        "clip_explain.explainers.similarity",
        "clip_explain.explainers.surgery",
    ),
    "Metrics": (
        "clip_explain.metrics.pointing",
        "clip_explain.metrics.segmentation",
        "clip_explain.metrics.localization",
        "clip_explain.metrics.concentration",
        "clip_explain.metrics.faithfulness",
        "clip_explain.metrics.word_faithfulness",
        "clip_explain.metrics.readouts",
        "clip_explain.metrics.recognition",
        "clip_explain.metrics.channel_shift",
        "clip_explain.metrics.sanity",
        "clip_explain.metrics.intervals",
    ),
    "Datasets": ("clip_explain.datasets",),
    "Sweeps": ("clip_explain.sweep.run", "clip_explain.sweep.features"),
    "Plots": (
        "clip_explain.plots.overlay",
        "clip_explain.plots.figures",
        "clip_explain.plots.charts",
        "clip_explain.plots.summaries",
        "clip_explain.plots.words",
    ),
    "Papers": (
        "clip_explain.papers.claims",
        "clip_explain.papers.tables",
        "clip_explain.papers.verdicts",
        "clip_explain.papers.provenance",
        "clip_explain.papers.saving",
    ),
    "Errors": ("clip_explain.errors",),
}


def as_markup(lines: list[str]) -> list[str]:
    """A plain docstring as reStructuredText: nothing in it is a command, and indented blocks stay as they are."""
    found, inside = [], False
    for line in lines:
        indented = line.startswith("  ")
        if indented and not inside:
            found += ["", "::", ""]
        elif inside and not indented and line.strip():
            found.append("")
        if line.strip():
            inside = indented
        found.append(line if indented else escaped(line))
    return found


def escaped(line: str) -> str:
    """A line in which asterisks, bars and ends of names mean themselves; what stands in backticks is code."""
    parts = re.split(r"(`[^`]*`)", line)
    texts = [f"`{part}`" if part.startswith("`") else re.sub(r"([\\*|_])", r"\\\1", part) for part in parts]
    return "".join(texts)


def page(title: str) -> str:
    """A page in Markdown that autodoc fills, module by module."""
    parts = [f"# {title}"]
    for module in PAGES[title]:
        name = module.removeprefix("clip_explain.")
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```")
    return "\n\n".join(parts) + "\n"


def file_name(title: str) -> str:
    return title.lower().replace(",", "").replace(" ", "_")


def write(folder: Path) -> None:
    """Write the pages into a folder, and the one above them beside it."""
    folder.mkdir(parents=True)
    for title in PAGES:
        (folder / f"{file_name(title)}.md").write_text(page(title))
    listed = "\n".join(f"- [{title}](reference/{file_name(title)}.md)" for title in PAGES)
    entries = "\n".join(f"reference/{file_name(title)}" for title in PAGES)
    text = f"# Reference\n\nEvery public function, from its docstring.\n\n{listed}\n\n"
    folder.with_suffix(".md").write_text(f"{text}```{{toctree}}\n:hidden:\n\n{entries}\n```\n")

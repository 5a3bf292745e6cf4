"""Small sweeps that several test files run and compare."""

import json
import multiprocessing
from pathlib import Path

from clip_explain.sweep.plan import Plan

SMALL_SCENES = {"scenes": {"size": 64}, "rise": {"masks": 8}}
METHODS, METRICS = ["self_attention", "random", "rise"], ["energy_pointing_game", "pointing_game"]
FORKS = multiprocessing.get_context("forkserver")  # its children have torch, and nothing else of this process
FORKS.set_forkserver_preload(["clip_explain.sweep.run", "distributed"])


def settings(model, out, **changed):
    """Arguments of a small sweep."""
    given = dict(model=str(model), dataset="scenes", methods=METHODS, metrics=METRICS, out=str(out), images=4)
    return given | dict(options=SMALL_SCENES, shard_size=2, device="cpu", progress=False) | changed


def contents(out):
    """The bytes of what a sweep leaves."""
    return {name: (Path(out) / name).read_bytes() for name in ("table.parquet", "errors.parquet", "summary.csv")}


def plan_of(folder, model, **changed):
    """The plan of a finished sweep of four images."""
    kept = json.loads((Path(folder) / "settings.json").read_text())
    return Plan(**kept | {"model": str(model), "images": 4, "out": str(folder)} | changed)

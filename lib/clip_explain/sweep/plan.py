"""A sweep's checked plan, the settings that its numbers depend on, and their agreement with an existing folder.

Above measures.py and store.py, below shard.py.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from clip_explain import datasets
from clip_explain.datasets import Dataset
from clip_explain.errors import MethodError, OutputError, nearest
from clip_explain.explainers import OLD_NAMES, check_fits, find_method, options_of
from clip_explain.images import default_fit
from clip_explain.maps import FITS
from clip_explain.metrics import registry
from clip_explain.models.model import Model
from clip_explain.sweep import store
from clip_explain.sweep.measures import BASELINES, METHODS, METRICS
from clip_explain.texts import BARE, TEMPLATE_SETS, Templates, template_list

SETTINGS, FOLDER = "settings.json", "shards"
TABLE, ERRORS, SUMMARY = "table.parquet", "errors.parquet", "summary.csv"
FILES = {SETTINGS, FOLDER, TABLE, ERRORS, SUMMARY}
# Parts of the library that do not affect a sweep's numbers; all other modules count as formulas.
NO_FORMULAS = ("plots", "explorer", "cli", "papers", "embedded/training", "embedded/cards")
# Packages whose version may change a number.
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow")
MOVABLE = ("model", "images", "out")  # fields of a plan that may differ between calls


@dataclass(frozen=True)
class Plan:
    """Everything that determines a sweep's numbers, and its folder. `methods` and `metrics` hold each one's options.

    `reader` holds the options of the dataset's reader, and `templates` the name of a set, or templates.
    """

    model: str
    sha256: str
    device: str
    dtype: str
    dataset: str
    reader: dict[str, Any]
    images: int
    seed: int
    fit: str
    templates: str | list[str]
    methods: dict[str, dict]
    metrics: dict[str, dict]
    shard_size: int
    out: str
    versions: dict[str, str]

    def records(self) -> Dataset:
        """The dataset's records on this machine."""
        return datasets.load(self.dataset, self.images, self.seed, **self.reader)

    @property
    def starts(self) -> range:
        """The first image of each shard."""
        return range(0, self.images, self.shard_size)

    def indices(self, start: int) -> range:
        """The images of the shard that begins with image `start`."""
        return range(start, min(start + self.shard_size, self.images))

    def shard(self, start: int) -> str:
        """The name of a shard's file in `out`: its first image, and the image after its last."""
        images = self.indices(start)
        return f"{FOLDER}/{images.start:07d}-{images.stop:07d}.parquet"


@dataclass(frozen=True)
class Asked:
    """What a sweep is asked for, as its caller says it: the arguments of `sweep`, which explains them."""

    model: str | Path
    dataset: str
    methods: str | Sequence[str]
    metrics: str | Sequence[str]
    out: str | Path
    images: int | None = None
    seed: int = 0
    options: Mapping[str, Any] | None = None
    fit: str | None = None
    templates: Templates = BARE
    shard_size: int = 16
    device: str | None = None
    dtype: str | None = None


def make_plan(asked: Asked, model: Model) -> Plan:
    """The checked plan. Methods and metrics are sorted in the order of their registries, whatever order is given.

    `model` is the one that is asked for. Raises MethodError, DatasetError or TextError for what cannot be done.
    """
    fit = default_fit(model) if asked.fit is None else asked.fit
    if fit not in FITS:
        raise MethodError(f"unknown fit {fit!r}: {nearest(fit, FITS)}")
    options = asked.options or {}
    for owner, given in options.items():
        _check_plain(owner, given)
    reader = dict(options.get(asked.dataset, {}))
    count = len(datasets.load(asked.dataset, asked.images, asked.seed, **reader))
    methods, metrics = _choose(asked, options)
    _check_fits(model, methods)
    device = str(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    named = isinstance(asked.templates, str) and asked.templates in TEMPLATE_SETS
    return Plan(
        model=str(Path(asked.model).absolute()) if os.path.isfile(asked.model) else str(asked.model),
        sha256=model.sha256,
        device=device,
        dtype=asked.dtype or ("fp16" if device.startswith("cuda") else "fp32"),
        dataset=asked.dataset,
        reader=reader,
        images=count,
        seed=int(asked.seed),
        fit=fit,
        templates=asked.templates if named else template_list(asked.templates),
        methods=methods,
        metrics=metrics,
        shard_size=int(asked.shard_size),
        out=store.place(asked.out),
        versions=library_versions(),
    )


def _choose(asked: Asked, options: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The methods and the metrics, each with its options. MethodError for options of an unknown owner."""
    methods, options = _names_of_now(asked.methods, options)
    chosen_methods = _chosen("method", methods, METHODS, options)
    named = [asked.metrics] if isinstance(asked.metrics, str) else asked.metrics
    chosen_metrics = _chosen("metric", [registry.current_name(name) for name in named], METRICS, options)
    for owner in options:
        if owner not in chosen_methods and owner not in chosen_metrics and owner != asked.dataset:
            raise MethodError(f"got options of {owner!r}, which is not a method, metric or dataset of this sweep")
    return chosen_methods, chosen_metrics


def _names_of_now(methods: Sequence[str], options: Mapping) -> tuple[list[str], dict]:
    """Methods and options under their present names; an old name warns."""
    methods = [methods] if isinstance(methods, str) else list(methods)
    now = {old: find_method(old).name for old in OLD_NAMES["images"] if old in methods or old in options}
    renamed = {now.get(owner, owner): given for owner, given in options.items()}
    return [now.get(name, name) for name in methods], renamed


def _check_plain(owner: str, options: Any) -> None:
    """Options go to other processes and into files, so they are plain values."""
    if not isinstance(options, Mapping):
        raise MethodError(f"got {options!r} as the options of {owner}, expected them by their names")
    for option, value in options.items():
        values = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(each, int | float | str | None) for each in values):
            raise MethodError(f"got {owner}.{option} of {type(value).__name__}, expected a number, a word or None")


def _chosen(kind: str, names: Sequence[str], registry: Mapping[str, Callable], options) -> dict[str, dict[str, Any]]:
    """The options of each name, in the registry's order, checked by name and for being plain values."""
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise MethodError(f"got no {kind}s, expected at least one. {nearest('', registry)}")
    for name in names:
        if name not in registry:
            raise MethodError(f"unknown {kind} {name!r}: {nearest(name, registry)}")
        for option in options.get(name, {}):
            if option not in (known := options_of(registry[name])):
                raise MethodError(f"{name} has no option {option!r}: {nearest(option, known)}")
    return {name: dict(options.get(name, {})) for name in registry if name in names}


def _check_fits(clip: Model, methods: Mapping[str, Any]) -> None:
    """MethodError for a method that does not take the model, or an option's value that it does not take."""
    for name, options in methods.items():
        if name not in BASELINES:
            check_fits(clip, name)
            find_method(name).check_options(options)


# -- what its numbers depend on


@lru_cache
def library_versions() -> dict[str, str]:
    """Versions that affect the numbers: a checksum of the library's formulas, and the versions of PACKAGES."""
    return {"formulas": formulas_hash(Path(__file__).parents[1]), **{name: version(name) for name in PACKAGES}}


def formulas_hash(library: Path) -> str:
    """A checksum of all modules in the library's folder but those of NO_FORMULAS."""
    checksum = hashlib.sha256()
    for file in sorted(library.rglob("*.py")):
        if not any(file.is_relative_to(library / name) for name in NO_FORMULAS):
            checksum.update(file.read_bytes())
    return checksum.hexdigest()[:16]


def settings_of(plan: Plan) -> dict[str, Any]:
    """The settings that the numbers depend on, which must not change. More images may follow, and files may move."""
    kept = {key: value for key, value in vars(plan).items() if key not in MOVABLE}
    return json.loads(json.dumps({**kept, "device": plan.device.partition(":")[0]}))


def settings_hash(plan: Plan) -> str:
    """A checksum of the settings, which every shard carries."""
    return hashlib.sha256(canonical(settings_of(plan)).encode()).hexdigest()


def canonical(value: Any) -> str:
    """A unique text for each value, by which settings are compared: NaN equals NaN, 1 differs from True."""
    return json.dumps(value, sort_keys=True)


def agree(plan: Plan) -> None:
    """Write the settings into a new folder, or check that an existing folder has the same. OutputError if not.

    If two sweeps begin at once in one folder, one writes the settings, and the other is checked against them.
    """
    there = store.names(plan.out)
    if SETTINGS not in there:
        if strange := sorted(there - FILES):
            raise OutputError(f"{plan.out} is not a sweep's folder: it holds {strange[0]} but no {SETTINGS}")
        store.create(plan.out, SETTINGS, (json.dumps(settings_of(plan), indent=1) + "\n").encode())
    if differing := _differences(_read_settings(plan.out), settings_of(plan)):
        raise OutputError(
            f"{plan.out} holds a sweep with other settings: {'; '.join(differing)}. Take another folder, or delete it."
        )


def _read_settings(out: str) -> dict[str, Any]:
    try:
        found = json.loads(store.read(out, SETTINGS))
        wrong = None if isinstance(found, dict) else f"it holds a {type(found).__name__}, expected an object"
    except (ValueError, RecursionError) as error:
        wrong = str(error)
    if wrong:
        raise OutputError(
            f"{out}/{SETTINGS} is damaged: {wrong}. Delete it and run again: shards of other settings are not taken."
        )
    return found


def _differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """The differing settings, down to single options."""
    found = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif _shown(old, key) != _shown(new, key):
            found.append(f"{prefix}{key} was {_shown(old, key)}, is {_shown(new, key)}")
    return found


def _shown(settings: dict, key: str) -> str:
    return canonical(settings[key]) if key in settings else "absent"

"""The settings of a sweep: written once, held against those of the next call, and named where they differ."""

import dataclasses
import json
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grimp
import pytest

from clip_explain.errors import OutputError
from clip_explain.sweep import plan as plans
from clip_explain.sweep import store
from clip_explain.sweep.run import sweep
from small_sweeps import contents, plan_of, settings


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"shard_size": 3}, "shard_size was 2, is 3"),
        ({"methods": ["random", "rise"]}, "methods.self_attention was {}, is absent"),
        ({"metrics": ["pointing_game"]}, "metrics.energy_pointing_game was {}, is absent"),
        ({"options": {"scenes": {"size": 64}, "rise": {"masks": 9}}}, "methods.rise.masks was 8, is 9"),
        ({"options": {"rise": {"masks": 8}}}, "reader.size was 64, is absent"),
        ({"fit": "crop"}, 'fit was "full", is "crop"'),
        ({"templates": "imagenet"}, 'templates was ["{}"], is "imagenet"'),
        ({"templates": "a photo of {}."}, 'templates was ["{}"], is ["a photo of {}."]'),
        ({"dataset": "objects", "options": {"rise": {"masks": 8}}}, 'dataset was "scenes", is "objects"'),
        ({"dtype": "bf16"}, 'dtype was "fp32", is "bf16"'),
    ],
)
def test_a_folder_of_other_settings_is_refused(whole, weights, changed, message):
    before = contents(whole[0])
    with pytest.raises(OutputError) as refused:
        sweep(**settings(weights, whole[0], **changed))
    assert message in str(refused.value)
    assert contents(whole[0]) == before


def test_other_weights_and_other_formulas_are_refused(whole, weights, tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="sha256 was"):
        sweep(**settings("tiny-vit", whole[0]))
    here = plans.library_versions()
    monkeypatch.setattr(plans, "library_versions", lambda: here | {"formulas": "new"})
    with pytest.raises(OutputError, match='versions.formulas was ".*", is "new"'):
        sweep(**settings(weights, whole[0]))


def test_a_folder_with_other_files_is_refused(weights, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="not a sweep's folder: it holds thesis.tex"):
        sweep(**settings(weights, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_of_sweeps_that_begin_together_one_writes_its_settings(whole, weights, tmp_path, monkeypatch):
    """All look into the folder before any has written."""
    plan, at_once = plan_of(whole[0], weights, out=str(tmp_path)), threading.Barrier(8)
    monkeypatch.setattr(store, "names", lambda *place: (at_once.wait(), set())[1])

    def begin(seed):
        try:
            plans.agree(dataclasses.replace(plan, seed=seed))
        except OutputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(begin, range(8)))
    first = json.loads((tmp_path / "settings.json").read_text())["seed"]
    assert [seed for seed in range(8) if not said[seed]] == [first]
    assert all(f"seed was {first}, is {seed}" in said[seed] for seed in range(8) if seed != first)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e-300, None, True, "ä"])
def test_any_option_agrees_with_itself(whole, weights, tmp_path, value):
    plan = plan_of(whole[0], weights, out=str(tmp_path), methods={"rise": {"p": value}})
    plans.agree(plan)
    plans.agree(plan)
    with pytest.raises(OutputError, match="methods.rise.p was .*, is 1"):
        plans.agree(dataclasses.replace(plan, methods={"rise": {"p": 1}}))
    with pytest.raises(OutputError, match="methods.rise.p was .*, is absent"):
        plans.agree(dataclasses.replace(plan, methods={"rise": {}}))


@pytest.mark.parametrize("content", [b"[]", b"", b"null", b"{", b'"seed"', b"\xff\xfe", b"[" * 100_000])
def test_damaged_settings_are_refused_and_written_anew_once_deleted(whole, weights, tmp_path, content):
    copy = shutil.copytree(whole[0], tmp_path / "copy")
    (copy / "settings.json").write_bytes(content)
    with pytest.raises(OutputError, match="settings.json is damaged: .*Delete it and run again"):
        sweep(**settings(weights, copy))
    (copy / "settings.json").unlink()
    sweep(**settings(weights, copy))
    assert contents(copy) == contents(whole[0])


def test_settings_that_lack_a_part_are_named(whole, weights, tmp_path):
    copy = shutil.copytree(whole[0], tmp_path / "copy")
    (copy / "settings.json").write_text('{"methods": []}')
    with pytest.raises(OutputError, match=r'methods was \[\], is .*; sha256 was absent, is "'):
        sweep(**settings(weights, copy))


def test_every_module_counts_but_those_that_no_number_depends_on(tmp_path):
    library = shutil.copytree(Path(plans.__file__).parents[1], tmp_path / "library")
    before, silent = plans.formulas_hash(library), []
    for file in sorted(library.rglob("*.py")):
        text = file.read_bytes()
        file.write_bytes(text + b"# changed\n")
        if plans.formulas_hash(library) == before:
            silent.append(file.relative_to(library).as_posix())
        file.write_bytes(text)
    assert {part for part in plans.NO_FORMULAS if any(file.startswith(f"{part}/") for file in silent)} == set(
        plans.NO_FORMULAS
    )
    assert [file for file in silent if not file.startswith(plans.NO_FORMULAS)] == []


def test_no_sweep_imports_what_does_not_count():
    """But for plots, which draw what is computed."""
    used = grimp.build_graph("clip_explain").find_upstream_modules("clip_explain.sweep.run")
    above = [f"clip_explain.{part}".replace("/", ".") for part in plans.NO_FORMULAS if part != "plots"]
    assert [module for module in used if module.startswith(tuple(above))] == []

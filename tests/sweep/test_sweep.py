"""Sweeps: the same table however the work is cut, stopped and spread; refusals that name what is wrong."""

import asyncio
import contextlib
import errno
import json
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clip_explain import datasets
from clip_explain.cli import main
from clip_explain.datasets import Dataset, Record, Source
from clip_explain.directions import targets
from clip_explain.errors import DatasetError, MethodError, OutputError, WeightsError, WorkerError
from clip_explain.explainers import explain
from clip_explain.images import preprocess
from clip_explain.metrics.faithfulness import auc, curves
from clip_explain.metrics.localization import LOCALIZATION, pointing_game
from clip_explain.metrics.readouts import classification
from clip_explain.models import load
from clip_explain.sweep import run as sweeps
from clip_explain.sweep import shard as shards
from clip_explain.sweep.run import sweep

SMALL_SCENES = {"scenes": {"size": 64}, "rise": {"masks": 8}}
METHODS, METRICS = ["self_attention", "random", "rise"], ["energy_pointing_game", "pointing_game"]
FORKS = multiprocessing.get_context("forkserver")  # its children have torch, and nothing else of this process
FORKS.set_forkserver_preload(["clip_explain.sweep.run", "distributed"])


@pytest.fixture(autouse=True)
def one_thread():
    """As the worker processes have: sums in another order would differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(model, out, **changed):
    """Arguments of a small sweep."""
    given = dict(model=str(model), dataset="scenes", methods=METHODS, metrics=METRICS, out=str(out), images=4)
    return given | dict(options=SMALL_SCENES, shard_size=2, device="cpu", progress=False) | changed


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    """The folder and summary of a sweep that was not disturbed."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, sweep(**settings(weights, out))


def plan_of(out, model):
    """The fields of the plan of a finished sweep."""
    return json.loads((out / "settings.json").read_text()) | {"model": str(model), "images": 4, "out": str(out)}


def contents(out):
    """The bytes of what a sweep leaves."""
    return {name: (Path(out) / name).read_bytes() for name in ("table.parquet", "errors.parquet", "summary.csv")}


# -- the table


def test_table_has_a_row_for_each_image_target_method_and_metric(whole):
    table = pd.read_parquet(whole[0] / "table.parquet")
    records = list(datasets.read("scenes", 4, 0, size=64))
    expected = [
        (record.id, target, text, method, metric)
        for record in records
        for method in ["self_attention", "rise", "random"]
        for metric in ["pointing_game", "energy_pointing_game"]
        for target, text in enumerate(record.texts)
    ]
    assert list(table.drop(columns="value").itertuples(index=False, name=None)) == expected
    assert len(pd.read_parquet(whole[0] / "errors.parquet")) == 0
    assert sorted(path.name for path in whole[0].rglob("*") if ".tmp" in path.name) == []


def test_values_are_those_of_the_plain_calls(whole, weights):
    table, model = pd.read_parquet(whole[0] / "table.parquet"), load(weights, "cpu")
    for record in datasets.read("scenes", 2, 0, size=64):
        hits = pointing_game(explain(model, record.image, list(record.texts), "self_attention")[0], record.masks)
        mine = table[
            (table.image == record.id) & (table.method == "self_attention") & (table.metric == "pointing_game")
        ]
        assert mine.value.tolist() == hits.tolist()


def test_texts_and_classes_are_put_into_the_templates(weights, tmp_path):
    prompts, given = ["a photo of {}.", "{}, drawn"], {"images": 1, "methods": ["itsm"], "dataset": "objects"}
    given["metrics"] = ["deletion_score", "rise_deletion"]
    options = {"objects": {"size": 64}, "deletion_score": {"every": 50}, "rise_deletion": {"every": 32}}
    sweep(**settings(weights, tmp_path, **given, options=options, templates=prompts))
    table, model = pd.read_parquet(tmp_path / "table.parquet").set_index("metric"), load(weights, "cpu")
    data = datasets.load("objects", 1, 0, size=64)
    pixels, own = preprocess(model, data[0].image), targets(model, list(data[0].texts), prompts)
    maps = explain(model, pixels, list(data[0].texts), "itsm", templates=prompts)
    seed = shards.image_seed(0, data[0].id, "metrics")
    read = {"score": lambda embedded: embedded @ own[0]}
    drawn = curves(model, pixels, maps, read, every=50, seed=seed)["score"]
    assert float(table.value["deletion_score"]) == pytest.approx(auc(drawn).item(), abs=1e-6)
    classes = targets(model, list(data.classes), prompts)
    read = classification(classes, torch.tensor([data[0].label]), float(model.logit_scale))
    drawn = curves(model, pixels, maps, read, "rise", every=32)["probability"]
    assert float(table.value["rise_deletion"]) == pytest.approx(auc(drawn).item(), abs=1e-6)


def test_pixels_left_undecided_are_not_counted(weights, tmp_path, monkeypatch):
    """Of a wide image seen through the middle square: the crop of what is to be ignored is the crop of the masks."""
    masks, ignore = np.zeros((1, 64, 96), bool), np.zeros((64, 96), bool)
    masks[:, :, :40], ignore[:, 40:72] = True, True
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))

    def reader(seed=0):
        return Dataset(
            "bordered", ("a cube",), range(1), lambda i: Record("it", image, ("a cube",), masks, ignore=ignore)
        )

    monkeypatch.setitem(datasets.DATASETS, "bordered", Source(reader, "one image"))
    metrics, model = (
        ["energy_pointing_game", "average_precision", "iou_mean", "pixel_accuracy_mask"],
        load(weights, "cpu"),
    )
    for fit, seen in (("crop", slice(16, 80)), ("full", slice(0, 96))):
        changed = dict(dataset="bordered", methods=["itsm"], metrics=metrics, options={}, images=1, fit=fit)
        sweep(**settings(weights, tmp_path / fit, **changed))
        table = pd.read_parquet(tmp_path / fit / "table.parquet").set_index("metric")
        maps = explain(model, image, "a cube", "itsm", fit=fit)[0]
        expected = {name: LOCALIZATION[name](maps, masks[..., seen], ignore[:, seen]).item() for name in metrics}
        assert table.value.to_dict() == pytest.approx(expected)
        plain = LOCALIZATION["average_precision"](maps, masks[..., seen]).item()
        assert float(table.value["average_precision"]) != pytest.approx(plain, abs=1e-3)


def test_summary_is_the_mean_over_images_of_their_means(whole):
    table, summary = pd.read_parquet(whole[0] / "table.parquet"), whole[1]
    assert summary[["metric", "method"]].to_numpy().tolist()[:2] == [
        ["pointing_game", "self_attention"],
        ["pointing_game", "rise"],
    ]
    for row in summary.itertuples():
        mine = table[(table.method == row.method) & (table.metric == row.metric)]
        assert row.mean == pytest.approx(np.mean([part.value.mean() for _, part in mine.groupby("image")]))
        assert row.low <= row.mean <= row.high and (row.images, row.left_out, row.better) == (4, 0, "higher")
    pd.testing.assert_frame_equal(pd.read_csv(whole[0] / "summary.csv"), summary)


def test_numbers_do_not_depend_on_shards_order_or_the_other_methods(whole, weights, tmp_path):
    sweep(**settings(weights, tmp_path, shard_size=3, methods=["random", "rise"], metrics=METRICS[::-1]))
    table = pd.read_parquet(whole[0] / "table.parquet")
    table = table[table.method != "self_attention"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table, check_exact=True)


def test_random_maps_differ_by_image_and_target_and_constant_ones_find_nothing(whole, weights, tmp_path):
    summary = sweep(**settings(weights, tmp_path, methods=["constant"], images=2, options={"scenes": {"size": 64}}))
    assert summary["mean"].tolist() == [0, 0]
    table = pd.read_parquet(whole[0] / "table.parquet")
    noise = table[(table.method == "random") & (table.metric == "energy_pointing_game")].value
    assert noise.nunique() == len(noise)


def test_faithfulness_metrics_share_one_set_of_forwards(weights, tmp_path, monkeypatch):
    calls = []
    inner = shards.perturbed_embeddings
    monkeypatch.setattr(shards, "perturbed_embeddings", lambda *a, **k: calls.append(a[-1]) or inner(*a, **k))
    names = ["deletion", "deletion_top5", "deletion_score", "insertion"]
    options = SMALL_SCENES | {name: {"every": 50} for name in names}
    del options["rise"]
    summary = sweep(**settings(weights, tmp_path, methods=["random"], metrics=names, images=1, options=options))
    assert calls == ["deletion", "insertion"]
    assert summary["better"].tolist() == ["lower"] * 3 + ["higher"] and summary["mean"].between(-1, 1).all()


def test_an_explainer_beats_random_maps_on_the_embedded_model(tmp_path):
    methods, metrics = ["grad_eclip", "random"], ["pointing_game", "energy_pointing_game", "iou_mean"]
    summary = sweep("tiny-vit", "scenes", methods, metrics, tmp_path, images=8, device="cpu", progress=False)
    means = summary.pivot(index="metric", columns="method", values="mean")
    assert (means["grad_eclip"] > means["random"]).all(), means


# -- stopped and gone on with


def sweep_by_one_thread(**given):
    """A sweep in a process of its own, which would take a thread a core."""
    torch.set_num_threads(1)
    sweep(**given)


def test_kills_at_random_moments_change_nothing(weights, tmp_path):
    """Each child is killed at a random moment of the shard, or of the last files, that follows the next one."""
    rng, out, reference = random.Random(1), tmp_path / "run", tmp_path / "reference"
    sweep(**settings(weights, reference, images=24, shard_size=1))
    for _ in range(4):
        child = FORKS.Process(target=sweep_by_one_thread, kwargs=settings(weights, out, images=24, shard_size=1))
        child.start()
        before = len(list(out.glob("shards/0*")))
        while len(list(out.glob("shards/0*"))) == before and child.is_alive():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        child.kill()
        child.join()
        assert child.exitcode == -9 and len(list(out.glob("shards/0*"))) > before
    sweep(**settings(weights, out, images=24, shard_size=1))
    assert contents(out) == contents(reference)
    assert not list(out.rglob(".*"))


def test_only_missing_shards_are_made(whole, weights, tmp_path, monkeypatch):
    sweep(**settings(weights, tmp_path))
    (tmp_path / "shards" / "0000002-0000004.parquet").unlink()
    made, inner = [], sweeps.run_shard
    monkeypatch.setattr(sweeps, "run_shard", lambda plan, start, *rest: made.append(start) or inner(plan, start, *rest))
    sweep(**settings(weights, tmp_path))
    assert made == [2] and contents(tmp_path) == contents(whole[0])


def test_more_images_may_follow(whole, weights, tmp_path):
    sweep(**settings(weights, tmp_path, images=3))
    sweep(**settings(weights, tmp_path))
    assert contents(tmp_path) == contents(whole[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"shard_size": 3}, "shard_size was 2, is 3"),
        ({"methods": ["random", "rise"]}, "methods.self_attention was {}, is absent"),
        ({"metrics": ["pointing_game"]}, "metrics.energy_pointing_game was {}, is absent"),
        ({"options": {"scenes": {"size": 64}, "rise": {"masks": 9}}}, "methods.rise.masks was 8, is 9"),
        ({"options": {"rise": {"masks": 8}}}, "reader.size was 64, is absent"),
        ({"fit": "full"}, 'fit was "crop", is "full"'),
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
    monkeypatch.setattr(sweeps, "library_versions", lambda: {"formulas": "new", "torch": torch.__version__})
    with pytest.raises(OutputError, match='versions.formulas was ".*", is "new"'):
        sweep(**settings(weights, whole[0]))


def test_a_folder_with_other_files_is_refused(weights, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="not a sweep's folder: it holds thesis.tex"):
        sweep(**settings(weights, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# -- what goes wrong


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A dataset of four image files, the second cut off, the third without masks."""
    noise, masks = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8), np.zeros((1, 64, 64), bool)
    masks[:, :30] = True
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, noise, strict=True):
        Image.fromarray(image).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:500])

    def reader(seed=0):
        given = [masks, masks, None, masks]
        return Dataset("broken", ("a cube",), range(4), lambda i: Record(f"image {i}", paths[i], ("a cube",), given[i]))

    monkeypatch.setitem(datasets.DATASETS, "broken", Source(reader, "four files"))
    return paths


def test_a_corrupt_image_is_a_row_with_its_error(broken, weights, tmp_path):
    out = tmp_path / "run"
    summary = sweep(**settings(weights, out, dataset="broken", images=4, options={}, methods=["random"]))
    errors, table = pd.read_parquet(out / "errors.parquet"), pd.read_parquet(out / "table.parquet")
    assert errors["index"].tolist() == [1, 2] and errors.image.tolist() == ["image 1", "image 2"]
    assert errors.error[0].startswith("ImageError: ") and str(broken[1]) in errors.error[0]
    assert errors.error[1].startswith("DatasetError: image 2 has no masks, which pointing_game needs")
    assert set(table.image) == {"image 0", "image 3"}
    assert summary.images.tolist() == [2, 2] and summary.left_out.tolist() == [2, 2]


def test_no_usable_image_is_an_error(broken, weights, tmp_path):
    for path in broken:
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="no image could be used.*the file is empty"):
        sweep(**settings(weights, tmp_path / "run", dataset="broken", images=4, options={}, methods=["random"]))


def test_a_full_disk_leaves_nothing_half_written(whole, weights, tmp_path, monkeypatch):
    def fails(table, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(shards.parquet, "write_table", fails)
        with pytest.raises(OutputError, match="0000000-0000002.parquet: No space left on device"):
            sweep(**settings(weights, tmp_path))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["settings.json"]
    sweep(**settings(weights, tmp_path))
    assert contents(tmp_path) == contents(whole[0])


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"methods": ["rize"]}, MethodError, "unknown method 'rize': did you mean 'rise'"),
        ({"metrics": ["pointgame"]}, MethodError, "did you mean 'pointing_game'"),
        ({"metrics": []}, MethodError, "no metrics"),
        ({"options": {"rise": {"mask": 2}}}, MethodError, "no option 'mask': did you mean 'masks'"),
        ({"options": {"gem": {}}}, MethodError, "options of 'gem'"),
        ({"options": {"rise": {"masks": torch.ones(1)}}}, MethodError, "rise.masks of Tensor"),
        ({"dataset": "scene"}, DatasetError, "did you mean 'scenes'"),
        ({"images": 0}, DatasetError, "at least 1"),
        ({"shard_size": 0}, MethodError, "shard_size=0"),
        ({"out": "nowhere://x"}, OutputError, "nowhere"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(weights, tmp_path, changed, error, message):
    with pytest.raises(error, match=message):
        sweep(**settings(weights, tmp_path / "run") | changed)
    assert not list(tmp_path.iterdir())


def test_the_command_line(whole, weights, tmp_path, capsys):
    command = (
        f"sweep --model {weights} --methods random,rise,self_attention --metrics pointing_game,energy_pointing_game"
    )
    command += f" --images 4 --option rise.masks=8 --option scenes.size=64 --shard-size 2 --device cpu --out {tmp_path}"
    assert main(command.split()) == 0
    assert contents(tmp_path) == contents(whole[0])
    shown = capsys.readouterr()
    assert "self_attention" in shown.out and "4/4" in shown.err and "image/s" in shown.err
    assert main([*command.split(), "--seed", "1"]) == 2
    assert "seed was 0, is 1" in capsys.readouterr().err
    assert main([*command.split(), "--templates", "a {}", "--templates", "{}, drawn"]) == 2
    assert 'templates was ["{}"], is ["a {}", "{}, drawn"]' in capsys.readouterr().err
    assert main([*command.split(), "--templates", "imagnet"]) == 2
    assert "did you mean 'imagenet'" in capsys.readouterr().err


# -- elsewhere


def test_an_fsspec_url_gets_the_same_files(whole, weights):
    import fsspec

    sweep(**settings(weights, "memory://sweeps/run"))
    files = fsspec.filesystem("memory")
    assert {name: files.cat(f"/sweeps/run/{name}") for name in contents(whole[0])} == contents(whole[0])
    assert len(files.ls("/sweeps/run/shards")) == 2


def test_local_processes_make_the_same_files(whole, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "START", "forkserver")  # the default, "spawn", imports torch once for each process
    sweep(**settings(weights, tmp_path, processes=2))
    assert contents(tmp_path) == contents(whole[0])


def run_scheduler(pipe):
    async def serve():
        async with distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            pipe.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(serve())


def run_worker(address, folder, environment):
    async def serve():
        async with distributed.Worker(
            address, nthreads=1, host="127.0.0.1", dashboard=False, local_directory=folder
        ) as worker:
            await worker.finished()

    os.environ |= environment
    torch.set_num_threads(1)
    asyncio.run(serve())


@contextlib.contextmanager
def cluster(folder, *environments):
    """A scheduler's address and worker processes, all of them processes of their own that talk over TCP."""
    here, there = FORKS.Pipe()
    processes = [FORKS.Process(target=run_scheduler, args=(there,))]
    processes[0].start()
    address = here.recv()
    workers = [FORKS.Process(target=run_worker, args=(address, str(folder), each)) for each in environments]
    for worker in workers:
        worker.start()
    try:
        yield address, workers
    finally:
        for process in [*workers, *processes]:
            process.kill()
            process.join()


def test_dask_workers_make_the_same_files_though_one_is_killed(whole, weights, tmp_path):
    out = tmp_path / "run"
    with cluster(tmp_path, {}, {}) as (address, workers):
        with distributed.Client(address, timeout=30, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            plan = sweeps.Plan(**plan_of(whole[0], weights) | {"device": "cuda"})
            with pytest.raises(WorkerError, match="none of the 2 workers offers a GPU"):
                sweeps._resources(plan, client)

        def kill_one():
            while not list(out.glob("shards/0*")):
                time.sleep(0.001)
            workers[0].kill()

        killer = threading.Thread(target=kill_one)
        killer.start()
        sweep(**settings(weights, out, scheduler=address))
        killer.join()
    assert workers[0].exitcode == -9
    assert contents(out) == contents(whole[0])


def test_a_worker_without_the_model_is_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with (
        cluster(tmp_path, {"CLIP_EXPLAIN_DATA": str(empty)}) as (address, _),
        pytest.raises(ValueError, match=f"worker on .* cannot load the model: .*'tiny-vit' is not at {empty}"),
    ):
        sweep(**settings("tiny-vit", tmp_path / "run", scheduler=address, methods=["random"], options={}))


def test_a_worker_with_another_model_is_refused(whole, weights):
    plan = plan_of(whole[0], weights) | {"sha256": "0"}
    with pytest.raises(WeightsError, match="has another .* the sweep's is 0"):
        shards._session(json.dumps(plan))


def test_a_scheduler_that_does_not_answer_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "SECONDS", 1)
    with pytest.raises(WorkerError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        sweep(**settings(weights, tmp_path, scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(WorkerError, match="no Dask scheduler answers at nonsense:"):
        sweep(**settings(weights, tmp_path, scheduler="nonsense://x"))

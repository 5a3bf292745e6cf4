"""Probes on features that are known, files of features and directions, and what is refused."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

import clip_explain as cx
from clip_explain.cli import main
from clip_explain.datasets import load
from clip_explain.errors import ModelError, TensorError, TextError, WeightsError
from clip_explain.models.probe import STRENGTHS, Features, best_strength, emotion_probe, guessed, probabilities
from clip_explain.sweep import features as probe
from clip_explain.sweep.features import (
    dataset_features,
    read_direction,
    read_directions,
    read_features,
    save_directions,
    save_features,
)

CLASSES = ("awe", "fear", "anger")


@pytest.fixture(scope="module")
def model(weights):
    return cx.load(weights, "cpu")


def clouds(count=60, noise=0.3, seed=0, width=64):
    """Unit features around one axis for each of three classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    values = np.eye(width)[labels] + noise * random.normal(size=(count, width)) / 8
    return Features((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32), labels)


# -- the probe


def test_the_strength_has_the_least_log_loss_of_folds_left_out(monkeypatch):
    monkeypatch.setattr("clip_explain.models.probe.STRENGTHS", (0.1, 1.0, 10.0))
    features = clouds(noise=3.0)
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    losses = [
        -cross_val_score(LogisticRegression(C=c), features.values, features.labels, cv=folds, scoring="neg_log_loss")
        for c in (0.1, 1.0, 10.0)
    ]
    best = (0.1, 1.0, 10.0)[int(np.mean(losses, axis=1).argmin())]
    assert best_strength(features.values, features.labels, seed=3) == best


def test_a_probe_finds_what_is_there_and_names_it(model):
    found, strength = emotion_probe(model, clouds(), CLASSES)
    assert found.head.classes == CLASSES and strength in STRENGTHS
    assert found.head.weight[:, :3].argmax(dim=1).tolist() == [0, 1, 2]
    sure = probabilities(found, clouds(seed=1))
    assert sure.sum(axis=1) == pytest.approx(np.ones(60)) and (sure.argmax(axis=1) == clouds().labels).all()
    assert guessed(found, clouds(seed=1)).tolist() == [CLASSES[label] for label in clouds().labels]


def test_a_class_without_images_has_no_row(model):
    some = clouds()
    found, _ = emotion_probe(model, Features(some.values, np.where(some.labels == 0, 2, 1)), ("x", "y", "z"))
    assert found.head.classes == ("y", "z") and len(found.head.weight) == 2


def test_shuffled_labels_are_at_chance(model, monkeypatch):
    monkeypatch.setattr("clip_explain.models.probe.STRENGTHS", (0.1, 10.0))
    features, seen = clouds(300, noise=3.0), []
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(features.labels)
        found, _ = emotion_probe(model, Features(features.values, shuffled), CLASSES)
        seen.append((probabilities(found, clouds(300, 3.0, seed=9)).argmax(axis=1) == features.labels).mean())
    assert np.mean(seen) == pytest.approx(1 / 3, abs=0.1)


def test_a_model_without_a_head_has_no_probabilities(model):
    with pytest.raises(ModelError, match="not a classifier"):
        probabilities(model, clouds())


def test_too_few_images_for_folds_are_refused():
    with pytest.raises(TensorError, match="3 features and 3 labels, 1 of the rarest"):
        best_strength(np.eye(3), np.array([0, 0, 1]))


# -- features


def test_features_of_a_dataset_are_the_models_own_and_kept(model, tmp_path, monkeypatch):
    paintings = load("paintings", 3, 5)
    settings = {"seed": 5}
    (found,) = dataset_features([model], paintings, settings, tmp_path)
    own = cx.encode_image(model, [record.image for record in paintings]).numpy()
    assert np.allclose(found.values, own, atol=1e-5)
    assert found.labels.tolist() == [record.label for record in paintings]
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(probe, "image_features", None)  # nothing is computed the second time
    (again,) = dataset_features([model], paintings, settings, tmp_path)
    assert (again.values == found.values).all() and (again.labels == found.labels).all()
    assert again[1:].labels.tolist() == found.labels[1:].tolist()


def test_features_are_kept_apart_by_all_that_they_depend_on(model, tmp_path):
    paintings = load("paintings", 2, 5)

    def place(model=model, dataset=paintings, settings=None, fit="crop", first=None):
        return probe._place(tmp_path, model, dataset, settings or {"seed": 5}, first or dataset[0], fit)

    others = [
        place(model=replace(model, sha256="other")),
        place(dataset=load("paintings", 3, 5)),
        place(settings={"seed": 6}),
        place(fit="squash"),
        place(first=paintings[1]),
    ]
    assert place() == place() and len({place(), *others}) == 6
    assert place(model=replace(model, sha256="")) is None


def test_features_of_several_models_come_in_order(model, tmp_path):
    paintings = load("paintings", 2, 5)
    other = replace(model, sha256="other", mean=(0.0, 0.0, 0.0))
    (second,) = dataset_features([other], paintings, {}, tmp_path)
    both = dataset_features([model, other], paintings, {}, tmp_path)
    assert (both[1].values == second.values).all() and not np.allclose(both[0].values, second.values)


# -- files


def bad_files(folder):
    """Files that are no safetensors, and what is said of each."""
    (folder / "batch.pkl").write_bytes(pickle.dumps(np.eye(2)))
    (folder / "renamed.safetensors").write_bytes(pickle.dumps({"features": np.eye(2)}))
    torch.save({"features": torch.eye(2)}, folder / "batch.pt")
    np.save(folder / "batch.npy", np.array([{}], dtype=object))
    (folder / "cut.safetensors").write_bytes(b"\x10")
    safetensors.torch.save_file({"other": torch.eye(2)}, folder / "other.safetensors")
    pickles = ("batch.pkl", "renamed.safetensors", "batch.pt", "batch.npy")
    rest = {name: "not a safetensors file" for name in ("cut.safetensors", "other.safetensors")} | {"none": "no file"}
    return {**dict.fromkeys(pickles, "pickle.*not loaded"), **rest}


def test_pickles_and_damaged_files_are_refused(model, tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(WeightsError, match=message):
            read_features(tmp_path / name)
        with pytest.raises(WeightsError, match=message):
            read_directions(tmp_path / name, model)


def test_a_pickle_is_not_run(tmp_path):
    class Touch:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(WeightsError, match="could run code"):
        read_features(tmp_path / "evil.safetensors")
    assert not (tmp_path / "ran").exists()


def test_features_come_back(tmp_path):
    save_features(tmp_path / "deep" / "f.safetensors", clouds())
    found = read_features(tmp_path / "deep" / "f.safetensors")
    assert (found.values == clouds().values).all() and (found.labels == clouds().labels).all()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["f.safetensors"]


@pytest.fixture(scope="module")
def emotions(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("directions") / "emotions.safetensors"
    vectors = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (3, 64)))
    save_directions(path, model, vectors, CLASSES)
    return path, vectors


def test_directions_come_back_at_unit_length_with_their_origin(model, emotions):
    path, vectors = emotions
    labels, found = read_directions(path, model)
    assert labels == list(CLASSES)
    assert torch.allclose(found, torch.nn.functional.normalize(vectors).float(), atol=1e-6)
    with safetensors.safe_open(path, "pt") as file:
        facts = file.metadata()
    assert (json.loads(facts["labels"]), facts["model"]) == (labels, model.name)
    assert facts["weights_sha256"] == model.sha256 and len(model.sha256) == 64


def test_a_probes_rows_are_saved_at_unit_length(model, tmp_path):
    found, _ = emotion_probe(model, clouds(), CLASSES)
    save_directions(tmp_path / "d.safetensors", found, found.head.weight, found.head.classes)
    labels, vectors = read_directions(tmp_path / "d.safetensors", model)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3))
    assert torch.allclose(vectors, torch.nn.functional.normalize(found.head.weight), atol=1e-6)


def test_directions_of_another_model_are_refused(model, emotions):
    other = replace(model, name="another", sha256="f" * 64)
    with pytest.raises(ModelError, match=f"{model.name}'s, weights {model.sha256[:12]}; this is another.*ffff"):
        read_directions(emotions[0], other)
    with pytest.raises(ModelError, match="no checksum"):
        save_directions(emotions[0], replace(model, sha256=""), emotions[1], CLASSES)


@pytest.mark.parametrize(("rows", "labels"), [(3, ("a", "b")), (2, ("a", "a"))])
def test_labels_that_do_not_fit_are_refused(model, tmp_path, rows, labels):
    with pytest.raises(TensorError, match="expected one each"):
        save_directions(tmp_path / "d.safetensors", model, torch.ones(rows, 64), labels)
    assert not list(tmp_path.iterdir())


def test_one_direction_or_all(model, emotions):
    path, _ = emotions
    labels, vectors = read_directions(path, model)
    assert read_direction(str(path), model)[0] == labels
    name, one = read_direction(f"{path}:fear", model)
    assert name == ["fear"] and torch.equal(one, vectors[1:2])
    with pytest.raises(TextError, match="no direction 'feer'.*did you mean 'fear'"):
        read_direction(f"{path}:feer", model)
    with pytest.raises(WeightsError, match="no file of directions at missing.safetensors"):
        read_direction("missing.safetensors:fear", model)


def test_the_command_line_takes_directions(weights, model, emotions, tmp_path, capsys):
    photo, out = tmp_path / "photo.png", tmp_path / "map.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    command = [str(photo), "--model", str(weights), "--out", str(out)]
    assert main([*command, "a cube", "--direction", f"{emotions[0]}:awe", "--direction", f"{emotions[0]}:anger"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [name for _, name in lines] == ["a cube", "awe", "anger"] and out.is_file()
    _, vectors = read_directions(emotions[0], model)
    cosine = float(cx.encode_image(model, photo)[0] @ vectors[0])
    assert float(lines[1][0].removeprefix("cosine ")) == pytest.approx(cosine, abs=6e-4)
    assert main([*command, "--direction", f"{emotions[0]}:joy"]) == 2
    assert "no direction 'joy'" in capsys.readouterr().err

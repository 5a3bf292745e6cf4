"""Names on the Hugging Face hub: snapshots laid out as its client keeps them, loaded by name without a network."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clip_explain as cx
import hub_models
from open_clip_models import PREPROCESS, TEXT, VISION, made, open_clip, plain
from small_clip import relative_error

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Run in a process of its own: the hub's client reads where its cache is when it is imported.
SCRIPT = """
import json, sys, torch, clip_explain as cx
found = {}
for name in sys.argv[1:]:
    model = cx.load(name, "cpu")
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = cx.explain(model, cx.pixels(model, noise), ["a red cube"]).maps
    found[name] = {"maps": maps.flatten().tolist(), "sha256": model.sha256, "mean": model.mean}
print(json.dumps(found))
"""


def put_into_cache(home: Path, name: str, folder: Path) -> None:
    """A folder's files as the client's cache holds them: blobs by checksum, and a snapshot of links to these."""
    root = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot, blobs = root / "snapshots" / COMMIT, root / "blobs"
    for folder_of_cache in (snapshot, blobs, root / "refs"):
        folder_of_cache.mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    for path in folder.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (blobs / digest).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", digest))


def open_clip_folder(folder: Path):
    """A network of open_clip as its `push_to_hf_hub` writes it; the network."""
    network, _ = made(plain, folder)
    torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    config = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": TEXT}
    statistics = {"mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": statistics}))
    return network


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What is found by name in a cache, and the two models by other ways."""
    home, hugging, other = (tmp_path_factory.mktemp(name) for name in ("home", "hugging", "other"))
    hub_models.clip(hugging)
    network = open_clip_folder(other)
    put_into_cache(home, "someone/small-clip", hugging)
    put_into_cache(home, "someone/small-open", other)
    names = ["hf:someone/small-clip", "open_clip:hf-hub:someone/small-open"]
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    loaded = [cx.load(f"hf:{hugging}", "cpu"), cx.load(network, preprocess=PREPROCESS, tokenizer=tokenizer)]
    files = [hugging / "model.safetensors", other / "open_clip_pytorch_model.bin"]
    by_name = json.loads(done.stdout.splitlines()[-1])
    return list(zip([by_name[name] for name in names], loaded, files, strict=True))


@pytest.mark.parametrize("kind", [0, 1], ids=["transformers", "open_clip"])
def test_a_name_on_the_hub_is_the_model_of_its_files(found, kind):
    by_name, model, weights = found[kind]
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = cx.explain(model, cx.pixels(model, noise), ["a red cube"]).maps
    assert maps.any() and relative_error(torch.tensor(by_name["maps"]), maps.flatten()) < 1e-6
    assert by_name["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert by_name["mean"] == list(model.mean)

"""Weights files read safely as state dicts, and the packed form of the embedded models.

Below network.py, which builds a network for a state dict; this knows only files.
"""

import argparse
import hashlib
import json
import os
import pathlib
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from clip_explain.errors import WeightsError
from clip_explain.models.archive import is_torchscript, read_archive
from clip_explain.models.checkpoints import unwrap

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import clip as clip  # the other modules take it from here

VOCABULARY = 49408
NO_WEIGHTS = {  # the first bytes of files that are often mistaken for weights
    (b"<!doctype", b"<html", b"<?xml"): "a web page, a proxy's or a login's answer to a download",
    (b"version https://git-lfs",): "a pointer of Git LFS: fetch the file itself (git lfs pull)",
}
INDEX = ".index.json"  # of weights in several files
# What may stand beside weights in a file: plain values, none of which runs code when it is read. numpy's are named as
# numpy 1 and 2 write them.
SCALARS = [np.dtype, *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?"))]
SAFE = [argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, *SCALARS]
SAFE += [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """A weights file's state dict, with OpenAI's keys, and the file's sha256. Nothing but tensors is unpickled.

    Raises WeightsError when the file is missing, unreadable or holds anything but named tensors.
    """
    path = expanded(path)
    if not os.path.isfile(path):
        raise WeightsError(f"no weights file at {path}" + (": it is a folder" if os.path.isdir(path) else ""))
    _check_start(path)
    try:
        content = _read_tensors(path)
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be read as weights: {error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} is not a state dict: it is damaged, or holds objects other than tensors") from error
    except Exception as error:  # each format has its own errors for a damaged file
        raise WeightsError(f"{path} cannot be read as weights: {one_line(error)}") from error
    return _as_state(content, path), checksum(path)


def expanded(path: str | os.PathLike) -> Path:
    """The path with "~" written out. WeightsError where there is no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise WeightsError(f"there is no home folder for {str(path)!r}: set HOME, or give the whole path") from error


def _check_start(path: Path) -> None:
    """WeightsError for a file whose first bytes show that it holds something other than weights."""
    with open(path, "rb") as file:
        start = file.read(200).lstrip().lower()
    if not start:
        raise WeightsError(f"{path} cannot be read as weights: it is empty")
    for begin, what in NO_WEIGHTS.items():
        if start.startswith(begin):
            raise WeightsError(f"{path} cannot be read as weights: it is {what}")


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a .safetensors file; empty for other files."""
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as weights: {one_line(error)}") from error


@contextmanager
def plain_modes() -> Iterator[None]:
    """Run the `with` block outside inference mode, whose tensors cannot enter a graph, and with float32 as default."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(default)


def checksum(path: str | Path) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_torchscript(path):
        return read_archive(path)
    if path.name.endswith(INDEX):
        return _read_shards(path)
    with torch.serialization.safe_globals(SAFE):
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index of shards, as transformers writes it, names."""
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise WeightsError(f"the index names files outside its folder: {outside[0]!r}")
    state: dict[str, Tensor] = {}
    for name in names:
        state |= _read_tensors(index.parent / name)
    return state


def _as_state(content: Any, path: Path) -> dict[str, Tensor]:
    state = unwrap(content, path)
    _check_values(state, path)
    return unpack(state) if "token_embedding.rows" in state else state


def _check_values(state: Mapping[str, Tensor], path: Path) -> None:
    """Only plain tensors that take no more memory than their storage, and of finite numbers."""
    for key, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise WeightsError(f"{path}: {key} is a {value.layout} tensor of {value.dtype}, expected a dense one")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise WeightsError(f"{path}: {key} has a shape of {tuple(value.shape)}, more than its storage holds")
        if not value.isfinite().all():
            raise WeightsError(f"{path}: {key} has NaN or infinite values")


def fill(network: nn.Module, state: Mapping[str, Tensor], source: object, assign: bool = False) -> None:
    """Load a state dict strictly, with WeightsError naming what does not fit."""
    try:
        network.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        raise WeightsError(f"{source} does not fit the CLIP that its shapes describe: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """An error message of torch, such as its list of missing keys, shortened to one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line if len(line) <= 300 else line[:300] + " ..." for line in lines if not line.startswith("Error(s)")]
    return some(lines, 8, " ") if lines else type(error).__name__


def some(names: Sequence[str], count: int = 5, separator: str = ", ") -> str:
    rest = f"{separator}... and {len(names) - count} more" if len(names) > count else ""
    return separator.join(names[:count]) + rest


def pack(state: Mapping[str, Tensor], rows: Int[Tensor, " rows"]) -> dict[str, Tensor]:
    """A state dict in fp16 that keeps only the token embedding's `rows`; `unpack` makes the others zero."""
    packed = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    embedding = packed.pop("token_embedding.weight")
    packed["token_embedding.rows"] = rows.to(torch.int32).cpu()
    packed["token_embedding.values"] = embedding[rows.to(embedding.device).long()]
    return {key: value.detach().cpu().contiguous().clone() for key, value in packed.items()}


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack`: OpenAI's keys, with a token embedding of 49,408 rows."""
    state = dict(state)
    rows, values = state.pop("token_embedding.rows").long(), state.pop("token_embedding.values")
    weight = torch.zeros(VOCABULARY, values.shape[1], dtype=values.dtype)
    return {**state, "token_embedding.weight": weight.index_copy_(0, rows, values)}

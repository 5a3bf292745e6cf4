"""TorchScript archives, the form of OpenAI's files, read for their tensors alone: no code of the file is ever run.

`torch.jit.load` compiles and runs what an archive holds, `__setstate__` above all, which may write files. Here the
archive's zip and its `data.pkl` are read by hand, with the few opcodes and types that torch writes for modules. What
makes an object of the archive's own classes becomes an inert `Instance`; everything else is refused.

Below weights.py, which knows the other formats of weights.
"""

import functools
import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip_explain.errors import WeightsError

# OpenAI's largest archive stays far below each of these.
MOST_PICKLE = 4 << 20  # bytes of data.pkl
MOST_CODE = 64 << 20  # bytes of all source, unpacked
MOST_MODULES = 10_000
MOST_TENSORS = 100_000
LONGEST_NAME = 1000

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Global(NamedTuple):
    """The name of a class or function; it is never imported."""

    module: str
    name: str


@dataclass(eq=False)
class Instance:
    """An object of one of the archive's classes: only its attributes."""

    kind: Global
    attributes: dict[str, Any] = field(default_factory=dict)


def is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_archive(path: Path) -> dict[str, Tensor]:
    """The state dict of a TorchScript module, as `torch.jit.load(path).state_dict()` gives it, on the CPU.

    Raises WeightsError for anything that torch does not write for a plain module.
    """
    with zipfile.ZipFile(path) as archive:
        root = _check_entries(archive, path.stat().st_size)
        storage = functools.cache(functools.partial(_storage, archive, root))
        module = unpickle(archive.read(f"{root}/data.pkl"), storage)
        if not isinstance(module, Instance):
            raise WeightsError(f"it holds a {type(module).__name__}, expected a module")
        classes = functools.cache(functools.partial(_classes, archive, root))
        return _state_dict(module, functools.cache(lambda kind: _tensor_names(classes(kind.module), kind)))


# -- the zip


def _check_entries(archive: zipfile.ZipFile, size: int) -> str:
    """The folder that everything in the archive stands in. Nothing but code may be compressed: no zip bombs."""
    roots = {name.partition("/")[0] for name in archive.namelist()}
    if len(roots) != 1:
        raise WeightsError(f"its entries stand in {len(roots)} folders, expected one")
    root = roots.pop()
    code = [entry for entry in archive.infolist() if entry.filename.startswith(f"{root}/code/")]
    plain = [entry for entry in archive.infolist() if not entry.filename.startswith(f"{root}/code/")]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in plain):
        raise WeightsError("its tensors are compressed, which torch never does")
    if sum(entry.file_size for entry in plain) > size:
        raise WeightsError("its entries say that they are larger than the file")
    if sum(entry.file_size for entry in code) > MOST_CODE:
        raise WeightsError(f"its source has more than {MOST_CODE >> 20} MiB")
    if archive.getinfo(f"{root}/data.pkl").file_size > MOST_PICKLE:
        raise WeightsError(f"its data.pkl has more than {MOST_PICKLE >> 20} MiB")
    if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
        raise WeightsError("its numbers are big-endian")
    return root


def _storage(archive: zipfile.ZipFile, root: str, kind: Global, key: str, count: int) -> Tensor:
    """The numbers of one storage; their count must be that of the entry's bytes."""
    if kind.module != "torch" or kind.name not in STORAGES or not key.isdecimal():
        raise WeightsError(f"it has a storage of an unknown kind, {kind} {key!r}")
    dtype, content = STORAGES[kind.name], bytearray(archive.read(f"{root}/data/{key}"))
    if len(content) != count * dtype.itemsize:
        raise WeightsError(f"storage {key} has {len(content)} bytes, expected {count} x {dtype.itemsize}")
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _classes(archive: zipfile.ZipFile, root: str, module: str) -> dict[str, list[str]]:
    """The lines of each class in the source of one of the archive's modules."""
    lines = archive.read(f"{root}/code/{module.replace('.', '/')}.py").decode().splitlines()
    heads = [index for index, line in enumerate(lines) if line.startswith("class ")]
    ends = [*heads[1:], len(lines)]
    return {re.split(r"\W", lines[head])[1]: lines[head + 1 : end] for head, end in zip(heads, ends, strict=True)}


def _tensor_names(classes: dict[str, list[str]], kind: Global) -> set[str] | None:
    """The parameters and buffers of a class, as its source lists them; None where it does not.

    WeightsError for a class that rebuilds its own state, since only its code knows the tensors.
    """
    body = classes[kind.name]
    if any(line.startswith("  def __setstate__") for line in body):
        raise WeightsError(f"{kind.name} rebuilds its tensors by code of its own, which is not run")
    lists = [line for line in body if re.match(r"  __(parameters|buffers)__ = \[", line)]
    return set(re.findall(r'"([^"]*)"', " ".join(lists))) if len(lists) == 2 else None


# -- data.pkl


def unpickle(data: bytes, storage: Callable[..., Tensor]) -> Any:
    """The object of a pickle, by a reader of our own that knows the opcodes of `OPCODES` and the calls of `CALLS`."""
    machine = Machine(storage)
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in OPCODES:
            raise WeightsError(f"its pickle has the opcode {opcode.name}, which torch does not write")
        OPCODES[opcode.name](machine, argument)
    return machine.stack[-1]


@dataclass
class Machine:
    """The state of a pickle that is being read."""

    storage: Callable[..., Tensor]
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self, count: int) -> list[Any]:
        """The last values, in their order."""
        if not 0 < count <= len(self.stack):
            raise WeightsError("its pickle is damaged: it takes more values than there are")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values


def _reduce(machine: Machine, _) -> None:
    function, arguments = machine.pop(2)
    if not isinstance(function, Global) or function not in CALLS:
        name = ".".join(function) if isinstance(function, Global) else type(function).__name__
        raise WeightsError(f"its pickle calls {name}, which no plain module needs")
    machine.stack.append(CALLS[function](*arguments))


def _new(machine: Machine, _) -> None:
    kind, arguments = machine.pop(2)
    if not isinstance(kind, Global) or not kind.module.startswith("__torch__") or arguments:
        raise WeightsError("its pickle makes an object that is not a plain module")
    machine.stack.append(Instance(kind))


def _build(machine: Machine, _) -> None:
    instance, state = machine.pop(2)
    if not isinstance(instance, Instance) or not isinstance(state, dict):
        raise WeightsError("its pickle sets the state of an object that is not a plain module")
    instance.attributes = state
    machine.stack.append(instance)


def _set_items(machine: Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or not all(map(_is_key, items[::2])):
        raise WeightsError("its pickle fills an object that is not a plain dict")
    target.update(zip(items[::2], items[1::2], strict=True))


def _is_key(key: Any) -> bool:
    return isinstance(key, int | float) or (isinstance(key, str) and len(key) <= LONGEST_NAME)


def _extend(machine: Machine, items: list[Any]) -> None:
    if not isinstance(machine.stack[-1], list):
        raise WeightsError("its pickle appends to an object that is not a list")
    machine.stack[-1].extend(items)


def _load(machine: Machine, _) -> None:
    (told,) = machine.pop(1)
    if tuple(map(type, told)) != (str, Global, str, str, int) or told[0] != "storage":
        raise WeightsError("its pickle names a storage in no way that torch does")
    _, kind, key, _, count = told  # what is left out is the device where it once lay
    machine.stack.append(machine.storage(kind, key, count))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_) -> Tensor:
    """A view of a storage, never larger than the storage, whatever arguments the file gives."""
    whole = all(type(number) is int for number in (offset, *size, *stride))
    if not whole or not isinstance(storage, Tensor) or math.prod(size) > len(storage):
        raise WeightsError("it has a tensor that is larger than its storage")
    return storage.as_strided(size, stride, offset)


def _push(value: Callable[[Any], Any]) -> Callable[[Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(value(argument))


def _join(count: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.stack.append(tuple(machine.pop(count)))


def _memorize(machine: Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _recall(machine: Machine, index: int) -> None:
    machine.stack.append(machine.memo[index])


NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")

OPCODES: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "STOP": lambda machine, argument: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "NONE": _push(lambda _: None),
    "NEWTRUE": _push(lambda _: True),
    "NEWFALSE": _push(lambda _: False),
    **dict.fromkeys(NUMBERS, _push(lambda argument: argument)),
    "GLOBAL": _push(lambda argument: Global(*argument.split(" ", 1))),
    "EMPTY_DICT": _push(lambda _: {}),
    "EMPTY_LIST": _push(lambda _: []),
    "EMPTY_TUPLE": _push(lambda _: ()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": _join(1),
    "TUPLE2": _join(2),
    "TUPLE3": _join(3),
    "BINPUT": _memorize,
    "LONG_BINPUT": _memorize,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "APPEND": lambda machine, _: _extend(machine, machine.pop(1)),
    "APPENDS": lambda machine, _: _extend(machine, machine.since_mark()),
    "SETITEM": lambda machine, _: _set_items(machine, machine.pop(2)),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.since_mark()),
    "BINPERSID": _load,
    "NEWOBJ": _new,
    "BUILD": _build,
    "REDUCE": _reduce,
}

LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")

CALLS: dict[Global, Callable[..., Any]] = {
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("collections", "OrderedDict"): lambda: {},
    Global("torch", "device"): lambda name: name,
    Global("torch.jit._pickle", "restore_type_tag"): lambda value, name: value,
    **{Global("torch.jit._pickle", name): lambda values: values for name in LISTS},
}


# -- the module


def _state_dict(module: Instance, names: Callable[[Global], set[str] | None]) -> dict[str, Tensor]:
    """The parameters and buffers of a module and of all that it holds, by their paths."""
    state = {}
    for path, each in _modules(module):
        listed = names(each.kind)
        for name, value in each.attributes.items():
            if isinstance(value, Tensor) and (listed is None or name in listed):
                state[f"{path}{name}"] = value
        if len(state) > MOST_TENSORS:
            raise WeightsError(f"it has more than {MOST_TENSORS} tensors")
    return state


def _modules(module: Instance) -> Iterator[tuple[str, Instance]]:
    """A module and all within it with their paths; one that stands in several places comes once for each."""
    waiting, count = [("", module)], 0
    while waiting:
        path, each = waiting.pop()
        yield path, each
        count += 1
        waiting += [(f"{path}{name}.", part) for name, part in each.attributes.items() if isinstance(part, Instance)]
        if count + len(waiting) > MOST_MODULES or len(path) > LONGEST_NAME:
            raise WeightsError(f"it has more than {MOST_MODULES} modules, or modules that hold themselves")

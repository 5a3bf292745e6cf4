"""Checks that our forward computes what the model itself computes, on one image and one text, before any map.

The forwards of vit.py and resnet.py read a network's weights. A forward hook, a wrapper around a layer (LoRA), another
block, or a user's `encode_image` may compute a different function of those weights. So the first time that a network
is explained, and whenever its modules have changed, both forwards must give the same embeddings.

A network's own forward is its `encode_image` and `encode_text`, or `own_image` and `own_text` where these do not give
what a trace does (see iclip.py). It is run as in evaluation mode, and nothing stays changed. The check costs one
forward and one trace of each tower, once.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from clip_explain.errors import ClipExplainError, ModelError
from clip_explain.models.adapted import image_tower, reading_of, text_tower
from clip_explain.models.layers import evaluated
from clip_explain.models.resnet import stages_of
from clip_explain.models.stages import stage_embedding, stage_output
from clip_explain.models.towers import VITS
from clip_explain.models.vit import trace_image, trace_text

TOLERANCE = 1e-4  # the largest relative difference of the two embeddings: rounding, far below another computation
LIBRARIES = ("torch", "torchvision", "clip", "open_clip", "timm", "transformers", "clip_explain")
FORWARDS = ("forward", "encode_image", "encode_text")  # where one is set on an object itself
OPTIONS = (int, float, str)  # plain values that a forward may read, such as a number of heads
OF_ANY_MODULE = frozenset(nn.Module().__dict__)  # attributes that hold neither an option nor a tensor
WORDS = 6  # of the text that is compared

_agreed: WeakKeyDictionary[nn.Module, list] = WeakKeyDictionary()


@dataclass(frozen=True)
class Side:
    """One tower of a network: its own forward of an example, ours, and ours block by block with the blocks' modules."""

    tower: str
    own: Callable[[], Float[Tensor, "one embedding"]]
    ours: Callable[[], Float[Tensor, "one embedding"]]
    blocks: Callable[[], list[tuple[nn.Module | None, Tensor]]]


def check_agreement(network: nn.Module, name: str) -> list:
    """ModelError if a network does not compute what would be explained; it names the tower and the first block.

    A network that agreed before and has not changed since is not run again. Returns its `fingerprint`, the same object
    for as long as it does not change.
    """
    mark = fingerprint(network)
    if _agreed.get(network) == mark:
        return _agreed[network]
    compared, device = comparable(network), reading_of(network).weight.device
    with evaluated(compared), torch.no_grad(), torch.autocast(device.type, enabled=False), full_precision():
        for side in _sides(compared):
            _check(side, compared, name)
    _agreed[network] = mark
    return mark


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute matrix products in full float32, even if the user allows TF32 or bf16, which would hide differences."""
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(allowed)


def comparable(network: nn.Module) -> nn.Module:
    """The network in float32: itself, or a copy."""
    return network if reading_of(network).weight.dtype == torch.float32 else in_float32(network)


def in_float32(network: nn.Module) -> nn.Module:
    """A copy with its hooks: half precision would hide a difference, and OpenAI's LayerNorm takes no float64."""
    twin = copy.deepcopy(network).float()
    for module in twin.modules():
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                module.__dict__[name] = value.float()
    return twin


def _sides(network: nn.Module) -> list[Side]:
    """The towers that our own forward explains. Of other towers only the network's forward is ever run."""
    reading, found = reading_of(network), []
    if reading.encoder in VITS:
        found.append(_image_side(network))
    elif reading.encoder != "other":
        found.append(_stages_side(network))
    if reading.has_text_tower:
        found.append(_text_side(network))
    return found


def _image_side(network: nn.Module) -> Side:
    def blocks():
        depth = len(image_tower(network).layers)
        trace = trace_image(network, pixels, layers=depth, tokens="all")
        return [(block.layer.module, block.output) for block in trace.blocks]

    pixels = example_pixels(network)
    own = getattr(network, "own_image", network.encode_image)
    return Side("image", lambda: own(pixels), lambda: trace_image(network, pixels).embedding, blocks)


def _stages_side(network: nn.Module) -> Side:
    parts, pixels = stages_of(network), example_pixels(network)
    count = len(parts.stages)

    def blocks():
        return [(stage, stage_output(parts, pixels, number)) for number, stage in enumerate(parts.stages, 1)]

    return Side(
        "image",
        lambda: network.encode_image(pixels),
        lambda: stage_embedding(parts, stage_output(parts, pixels, count), count),
        blocks,
    )


def _text_side(network: nn.Module) -> Side:
    def blocks():
        depth = len(text_tower(network).layers)
        trace = trace_text(network, tokens, layers=depth, tokens="all", padding=True)
        return [(block.layer.module, block.output) for block in trace.blocks]

    tokens = example_tokens(network)
    own = getattr(network, "own_text", network.encode_text)
    return Side("text", lambda: own(tokens), lambda: trace_text(network, tokens).embedding, blocks)


def example_pixels(network: nn.Module) -> Float[Tensor, "1 3 height width"]:
    """Noise of the size that a network was trained on, always the same."""
    reading = reading_of(network)
    size = (1, 3, *reading.sizes.image)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    return noise.to(reading.weight.device)


def example_tokens(network: nn.Module) -> Int[Tensor, "1 context"]:
    """A text of a few token numbers between start and end, CLIP's being the vocabulary's last two; always the same."""
    stem = text_tower(network).stem
    count = len(stem.embedding)
    end = count - 1 if stem.end is None else stem.end
    tokens = torch.zeros(1, len(stem.positions), dtype=torch.int64)
    words = torch.randint(1, count - 2, (WORDS,), generator=torch.Generator().manual_seed(0))
    tokens[0, : WORDS + 2] = torch.cat([torch.tensor([count - 2]), words, torch.tensor([end])])
    return tokens.to(stem.embedding.device)


# -- comparison


def _check(side: Side, network: nn.Module, name: str) -> None:
    start = f"the {side.tower} tower of {name} cannot be explained from its weights: "
    try:
        difference = _relative(side.ours(), side.own())
        if difference < TOLERANCE:
            return
        place = _first_difference(side)
    except ClipExplainError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a module that is laid out in another way raises
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{start}it is not laid out like a CLIP's ({reason}). {_suspects(network)}") from error
    if difference != difference:
        raise ModelError(f"{start}its embedding of an image or text has NaN or infinite values")
    raise ModelError(
        f"{start}it computes something else than they say, by {difference:.1g} of its embedding, {place}. "
        f"{_suspects(network)}"
    )


def agreement_by_layer(network: nn.Module) -> dict[str, dict[str, float]]:
    """For each tower that is read, how far its layers' outputs and its embedding are from the network's own.

    Relative differences of one image of noise and of a text of a few tokens: layer by number, then "embedding".
    """
    network, found = comparable(network), {}
    device = reading_of(network).weight.device
    with evaluated(network), torch.no_grad(), torch.autocast(device.type, enabled=False), full_precision():
        for side in _sides(network):
            expected = side.blocks()
            with captured([module for module, _ in expected]) as outputs:
                own = side.own()
            rows = {
                f"layer {index}": _relative(ours.flatten(), _arranged(outputs[module], ours).flatten())
                for index, (module, ours) in enumerate(expected)
                if module in outputs and outputs[module].numel() == ours.numel()
            }
            found[side.tower] = rows | {"embedding": _relative(side.ours(), own)}
    return found


def _first_difference(side: Side) -> str:
    """The first block whose output differs between the two forwards."""
    expected = side.blocks()
    with captured([module for module, _ in expected]) as outputs:
        side.own()
    for index, (module, ours) in enumerate(expected):
        if module is None:
            continue
        if module not in outputs:
            return f"and its own forward does not call block {index}"
        if not _relative(ours.flatten(), _arranged(outputs[module], ours).flatten()) < TOLERANCE:
            return f"first in block {index} or before it" if index == 0 else f"first in block {index}"
    return "after the last block: in the last norm, the pooling, the projection or encode_image itself"


@contextmanager
def captured(modules: list[nn.Module | None]) -> Iterator[dict[nn.Module, Tensor]]:
    """The modules' outputs in calls made inside the `with` block; its hooks are removed afterwards."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module, _, output):
        outputs[module] = output[0] if isinstance(output, tuple) else output

    handles = [module.register_forward_hook(keep) for module in modules if module is not None]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _arranged(output: Tensor, ours: Tensor) -> Tensor:
    """A block's output of one input, in the order of ours: OpenAI's blocks have the tokens first, then the images."""
    return output if output.shape == ours.shape else output.transpose(0, 1)


def _relative(got: Tensor, expected: Tensor) -> float:
    got, expected = got.double(), expected.double()
    return float((got - expected).norm() / expected.norm())


def _suspects(network: nn.Module) -> str:
    """The parts of a network that differ from what its library built, and what the user can do about them."""
    found = [
        f"{path or 'the network'} {reason}" for path, module in network.named_modules() if (reason := _oddity(module))
    ]
    if not found:
        return "Its forward, or that of one of its modules, must have been changed."
    rest = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return f"Found: {', '.join(found[:3])}{rest}. Merge adapters into the weights, and remove hooks and wrappers."


def _oddity(module: nn.Module) -> str:
    if module._forward_hooks or module._forward_pre_hooks:
        return "has a forward hook"
    if any(name in module.__dict__ for name in FORWARDS):
        return "has a forward of its own"
    library = type(module).__module__.partition(".")[0]
    return "" if library in LIBRARIES else f"is a {type(module).__name__}"


# -- what has changed


def fingerprint(network: nn.Module) -> list:
    """A list that changes whenever a network may compute something new: modules, hooks, options, places of tensors.

    It is made for every map, so it is written to be quick: half a millisecond for a CLIP of twelve layers.
    """
    marks = [tuple(torch_module._global_forward_hooks), tuple(torch_module._global_forward_pre_hooks)]
    for module in network.modules():
        own = module.__dict__
        marks += [ref(module), type(module).forward, *own["_forward_hooks"], *own["_forward_pre_hooks"]]
        tensors = [*own["_parameters"].values(), *own["_buffers"].values()]
        for name in own:
            if name not in OF_ANY_MODULE:
                value = own[name]
                if type(value) in OPTIONS or name in FORWARDS:
                    marks.append((name, value))
                elif isinstance(value, Tensor):
                    tensors.append(value)
        marks += [_version(tensor) for tensor in tensors if tensor is not None]
    return marks


def _version(tensor: Tensor) -> tuple[int, int]:
    """A tensor's address and its number of changes in place, which tensors of inference mode do not count."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version

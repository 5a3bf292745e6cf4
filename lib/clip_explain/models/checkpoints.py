"""Checkpoints of training loops and other libraries: unwrapped, without prefixes, and under OpenAI's names.

Below weights.py, which reads the file. Names of OpenAI's, open_clip's and transformers' CLIPs are known by their keys.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clip_explain.errors import WeightsError

# Under which keys training loops keep a model's weights, the first that is there; and what they put before names.
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "ema", "model_ema", "module")
PREFIXES = ("module.", "model.", "clip.", "_orig_mod.", "network.", "clip_model.", "base_model.")
# Names that a CLIP in OpenAI's layout has; all other entries of a file are left out, with a warning.
OPENAI_PARTS = ("visual.", "transformer.", "token_embedding.", "ln_final.")
OPENAI_NAMES = ("positional_embedding", "positional_embedding_res", "text_projection", "logit_scale")
BUFFERS = ("attn_mask", "position_ids", "input_resolution", "context_length", "vocab_size")  # no weights
LONG_CLIP_KEPT = 20  # positions that Long-CLIP keeps as they were; those after them stand in a tensor of their own

# transformers' names -> OpenAI's, in this order.
HUB_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm1\.", ".ln_1."),
    (r"\.layer_norm2\.", ".ln_2."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def unwrap(content: Any, source: object) -> dict[str, Tensor]:
    """The named tensors of a file, without the wrappers and prefixes of training loops.

    Other entries are left out, with a warning. WeightsError for a file without named tensors, and for one
    that holds two under one name.
    """
    content = _inner(content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{source} is not a state dict: expected named tensors, got {type(content).__name__}")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if len(strangers) == len(content) or any(key.startswith(PREFIXES + OPENAI_PARTS) for key in strangers):
        raise WeightsError(f"{source} is not a state dict: these entries are not tensors: {_some(strangers)}")
    _warn(source, strangers)
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        name = _bare(str(key))
        if isinstance(value, Tensor) and name.rpartition(".")[2] not in BUFFERS:
            if name in state:
                raise WeightsError(f"{source} holds two tensors for {name!r}, the second as {key!r}: keep one model's")
            state[name] = value
    return state


def as_openai(state: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """A CLIP's state dict under OpenAI's names; tensors that belong to no such CLIP are left out, with a warning.

    Long-CLIP's two tensors of positions become one. WeightsError for LoRA factors that are not merged.
    """
    if any(".lora_" in key for key in state):
        raise WeightsError(
            f"{source} holds LoRA factors beside or without their weights: merge them (peft's merge_and_unload), or "
            "load the adapter's folder as 'hf:FOLDER'"
        )
    if "vision_model.embeddings.class_embedding" in state:
        state = _from_hub(state)
    elif "text.token_embedding.weight" in state:  # open_clip's, with its text tower apart
        state = {key.removeprefix("text."): value for key, value in state.items()}
    own = {key: value for key, value in state.items() if key.startswith(OPENAI_PARTS) or key in OPENAI_NAMES}
    _warn(source, [key for key in state if key not in own])
    return _long_positions(own)


def _inner(content: Any) -> Any:
    """The innermost content of nested wrappers."""
    while isinstance(content, Mapping):
        wrapped = [name for name in WRAPPERS if _holds_tensors(content.get(name))]
        if not wrapped:
            break
        content = content[wrapped[0]]
    return content


def _holds_tensors(content: Any) -> bool:
    """Whether a value is a mapping with a tensor in it, or in a wrapper in it."""
    if not isinstance(content, Mapping):
        return False
    return any(isinstance(value, Tensor) or _holds_tensors(value) for value in content.values())


def _bare(key: str) -> str:
    """A name without the prefixes of training loops, in whatever order they stand."""
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def _from_hub(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names and shapes as OpenAI's: q, k and v packed, projections turned."""
    renamed = {_renamed(key): value for key, value in state.items()}
    for key in ("visual.proj", "text_projection"):
        if key in renamed:
            renamed[key] = renamed[key].T.contiguous()
    for query in [key for key in renamed if ".attn.q_proj." in key]:
        names = [query.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(name in renamed for name in names):
            packed = torch.cat([renamed.pop(name) for name in names])
            renamed[query.replace(".q_proj.", ".in_proj_")] = packed
    return renamed


def _renamed(key: str) -> str:
    for pattern, name in HUB_NAMES:
        key = re.sub(pattern, name, key)
    return key


def _long_positions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Long-CLIP adds its first tensor's 20 positions and its second one's later positions; here they are one."""
    later = state.pop("positional_embedding_res", None)
    if later is not None:
        first = state["positional_embedding"][:LONG_CLIP_KEPT]
        state["positional_embedding"] = torch.cat([first, later[LONG_CLIP_KEPT:].to(first)])
    return state


def _warn(source: object, left_out: Sequence[str]) -> None:
    if left_out:
        warnings.warn(f"{source} holds entries that no CLIP has; they are left out: {_some(left_out)}", stacklevel=4)


def _some(names: Sequence[str], count: int = 5) -> str:
    rest = f", ... and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + rest

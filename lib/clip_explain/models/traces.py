"""Traces that are kept, so that several methods share one forward: which of them serves what is asked for.

Above vit.py, which makes them; below request.py, which keeps them with what is to be explained.
"""

from collections.abc import Callable
from dataclasses import replace

from clip_explain.models.trace_options import TraceOptions
from clip_explain.models.vit import Block, Trace, pooled_row


def find_trace(
    kept: dict[TraceOptions, Trace], asked: TraceOptions, make: Callable[[TraceOptions, Trace | None], Trace]
) -> Trace:
    """The trace that is asked for: one of those `kept`, a part of one, or a new one, which is kept from now on.

    `make` computes a new one, from where an earlier trace that it is given has got to. Numbers of a part, and of one
    that goes on from another, are those of a trace of its own up to rounding.
    """
    if asked not in kept:
        serving = next((options for options in kept if options.serves(asked)), None)
        if serving is not None:
            kept[asked] = part_of(kept[serving], asked)
        else:
            begun = next((kept[options] for options in kept if options.begins(asked)), None)
            kept[asked] = make(asked, begun)
    return kept[asked]


def part_of(trace: Trace, asked: TraceOptions) -> Trace:
    """The last layers of a trace; for readers out of its graph, and of the last layer the pooled token's row alone.

    Where gradients are asked for, the tensors are the trace's own: the last layer may then hold every token's row.
    """
    blocks = trace.blocks[-asked.layers :]
    if asked.start is not None:
        return replace(trace, blocks=blocks)
    blocks = tuple(detached(block) for block in blocks)
    if asked.tokens == "class":
        blocks = (*blocks[:-1], pooled_block(blocks[-1], trace))
    return replace(trace, blocks=blocks, embedding=trace.embedding.detach())


def detached(block: Block) -> Block:
    """A block out of the graph."""
    names = ("input", "q", "k", "v", "attention", "attended", "output")
    return replace(block, mean=None, **{name: getattr(block, name).detach() for name in names})


def pooled_block(block: Block, trace: Trace) -> Block:
    """A block with the pooled token's query alone."""
    names = ("q", "attention", "attended", "output")
    rows = {name: pooled_row(getattr(block, name), trace.pooled).unsqueeze(-2) for name in names}
    return replace(block, **rows)

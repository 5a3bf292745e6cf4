"""What can be asked of a trace, and whether one trace holds what is asked of another."""

from dataclasses import dataclass

from clip_explain.checks import one_of
from clip_explain.errors import MethodError

HEADS = ("native", "single")
STARTS = (None, "input", "attention", "attended")  # in the order of a layer's forward
TOKENS = ("class", "all")


@dataclass(frozen=True)
class TraceOptions:
    """What is asked of a trace, and the key under which it is kept.

    `layers`: how many of the last layers are kept. `heads="single"`: the last `single` layers (None: all that are
    kept) attend with one head over all channels, as GE eq. 5 does; "native" is the model as it was trained. `start`:
    the tensor of the first kept layer ("input", "attention" or "attended") from which gradients can be taken;
    everything before it, and everything when None, carries no graph. `tokens="all"` computes the last layer for every
    token, "class" for the pooled one alone. `padding`: a text's padding is computed, too.
    """

    heads: str = "native"
    layers: int = 1
    single: int | None = None
    start: str | None = None
    tokens: str = "class"
    padding: bool = False

    @property
    def single_layers(self) -> int:
        """How many of the last layers have one head."""
        if self.heads == "native":
            return 0
        return self.layers if self.single is None else self.single

    def check(self, depth: int) -> None:
        """MethodError for an option that a tower of so many layers does not take."""
        one_of("heads", self.heads, HEADS)
        one_of("start", self.start, STARTS)
        one_of("tokens", self.tokens, TOKENS)
        single = self.layers if self.single is None else self.single
        for name, value, least in (("layers", self.layers, 1), ("single", single, 0)):
            if not least <= value <= depth:
                raise MethodError(f"got {name}={value}, expected {least} to {depth}: the model has {depth} layers")

    def serves(self, asked: "TraceOptions") -> bool:
        """Does a trace with these options hold all that is asked for: its layers, its tokens, its gradients?"""
        same = self.single_layers == asked.single_layers and self.padding == asked.padding
        if not same or self.layers < asked.layers or self.tokens not in (asked.tokens, "all"):
            return False
        if asked.start is None:
            return True
        if self.start is None:
            return False
        return self.layers > asked.layers or STARTS.index(self.start) <= STARTS.index(asked.start)

    def begins(self, asked: "TraceOptions") -> bool:
        """Does a trace with these options hold the tokens that enter the first layer that is asked for?"""
        native = self.single_layers == 0 and self.padding == asked.padding
        return native and self.layers >= max(asked.layers, asked.single_layers)

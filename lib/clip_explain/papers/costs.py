"""What explanations cost, as rows of the long table: methods in units of a forward, growth, the ImageNet protocol.

Above timing.py, which times the calls. A round of calls stands for an image.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_explain import images
from clip_explain.explainers import METHODS, explain
from clip_explain.models.model import Model, image_features
from clip_explain.papers.claims import Statement, control
from clip_explain.papers.published import LIBRARY_NAMES, published
from clip_explain.papers.tables import measured, measured_each
from clip_explain.papers.timing import LIMITS, Call, timed
from clip_explain.papers.variants import SIXTY
from clip_explain.texts import SURGERY_TEMPLATES

BARE = ", of bare forwards"  # after the name of a call that is timed in units of "masked images"
RELEASED = ", as released"
UNIT, WORD_UNIT, BARE_UNIT = "encode_image", "encode_text, words", "masked images"
PARTS = (BARE_UNIT, "text", "prompts", "sixty texts")  # calls that are parts of others, and have no cost of their own

Rows = list[dict[str, Any]]


def whole(seconds: pd.DataFrame, steps: int, masks: int) -> pd.DataFrame:
    """Seconds of whole methods from those of a part: of `steps` of M2IB, of so many `masks` of RISE and Shapley values.

    A row is a round, a column a call. What M2IB takes beyond a forward is multiplied; the masked images of the others
    are. The latter's parts stay in columns of their own, "rise, of bare forwards".
    """
    found = seconds.copy()
    more = METHODS["m2ib"].options_for()["steps"].default / steps
    for name, own in (("m2ib", UNIT), ("m2ib, words", WORD_UNIT)):
        found[name] = seconds[own] + (seconds[name] - seconds[own]) * more
    images_of = {"rise": METHODS["rise"].options_for()["masks"].default}
    images_of["shapley"] = METHODS["shapley"].options_for()["samples"].default + 2  # and all patches, and none
    for name, count in images_of.items():
        found[name] = seconds[name] * count / masks
        found[name + BARE] = seconds[name]
    return found


def cost_rows(seconds: pd.DataFrame) -> Rows:
    """Rows of "cost": the seconds of `whole` in units of `encode_image`, of words in those of `encode_text`.

    A round stands for an image. What is `BARE` is in units of bare forwards of as many images.
    """
    rounds, rows = [f"round {number}" for number in seconds.index], []
    for name in seconds.columns.difference(PARTS, sort=False):
        unit = BARE_UNIT if name.endswith(BARE) else WORD_UNIT if name.endswith(", words") else UNIT
        rows += measured_each(rounds, name, {"cost": seconds[name] / seconds[unit]})
    return rows


def with_texts(seconds: pd.DataFrame, methods: Iterable[str], prompts: int) -> Rows:
    """Rows of "seconds" and "times raw attention" from image and text to the map, as GE Table 4 counts them.

    On equal footing, and as released, where CLIP Surgery embeds 60 x 85 texts, of which so many `prompts` were timed.
    """
    fair = pd.DataFrame({name: seconds[name] + seconds["text"] for name in methods})
    theirs = {str(column).removesuffix(RELEASED): column for column in seconds if str(column).endswith(RELEASED)}
    released = pd.DataFrame({name: seconds[column] + seconds["text"] for name, column in theirs.items()})
    released["clip_surgery"] = seconds["sixty texts"] + seconds["prompts"] * SIXTY * len(SURGERY_TEMPLATES) / prompts
    rounds, rows = [f"round {number}" for number in seconds.index], []
    for setting, columns in {"equal footing": fair, "as released": released}.items():
        for name, column in columns.items():
            found = {"seconds": column, "times raw attention": column / columns["self_attention"]}
            rows += measured_each(rounds, str(name), found, setting)
    return rows


def growth(model: Model, pixels: Tensor, targets: Tensor, methods: Iterable[str], rounds: int) -> Rows:
    """Rows of what a forward and some methods cost as an image, its texts, or the images in one call become more.

    In units of one forward at the model's own size. The metrics are "patches a side", "texts" and "images at once", the
    targets how many there are. `pixels` are of one image, `targets` 16 directions or more.
    """
    sizes: list[tuple[str, int, Tensor, Tensor]] = []
    for side in (7, 14, 21, 28):
        size = (side * model.patch_size, side * model.patch_size)
        sizes.append(("patches a side", side, F.interpolate(pixels, size=size, mode="bilinear"), targets[:1]))
    sizes += [("texts", count, pixels, targets[:count]) for count in (1, 4, 16)]
    sizes += [("images at once", count, pixels.repeat(count, 1, 1, 1), targets[:1]) for count in (1, 4, 8)]
    clock, rows = clock_of(model.device), []
    one = timed([{"forward": partial(image_features, model, pixels)}] * 5, model.device)[clock].median()
    for axis, count, some, wanted in sizes:
        calls: dict[str, Call] = {"forward": partial(image_features, model, some)}
        for method in methods:
            calls[method] = partial(explain, model, images.pixels(model, some), wanted, method)
        for row in timed([calls] * rounds, model.device).to_dict("records"):
            rows += measured(f"round {row['round']}", row["method"], {axis: row[clock] / one}, targets=[count])
    return rows


def protocol_plan(
    costs: Mapping[str, float], forward_seconds: int | float, images: int = 50_000, points: int = 101
) -> pd.DataFrame:
    """What GE's Table 1 costs on all of ImageNet, by the `costs` of each method: forwards an image, and GPU hours.

    The methods of GE's Tables 1 and 4 and two baselines; maps of two classes; deletion and insertion, `points` each. A
    forward takes `forward_seconds`. RISE's masked images serve both classes.
    """
    listed = pd.concat([published("grad_eclip", name)["row"] for name in ("table1", "table4")])
    maps = {name: 2 * costs[name.split(" ")[0]] for name in listed.replace(LIBRARY_NAMES["grad_eclip"]).unique()}
    maps["rise"] = costs["rise" + BARE] * METHODS["rise"].options_for()["masks"].default
    plan = pd.DataFrame({"forwards: maps": maps | {"random": 0.0, "constant": 0.0}}).rename_axis("method")
    plan["forwards: curves"] = 2 * points * (costs["deletion" + BARE] + costs["insertion" + BARE])
    forwards = plan["forwards: maps"] + plan["forwards: curves"]
    return plan.assign(**{"GPU hours": images * forward_seconds / 3600 * forwards})


def within_limits(calls: Iterable[str]) -> tuple[Statement, ...]:
    """Our controls: each method's cost is below its limit; of bare forwards where `calls` has it in that unit."""
    found = []
    for name, limit in LIMITS.items():
        held = name + BARE if name + BARE in calls else name
        asked = {"relation": "less than", "threshold": limit, "setting": ""}
        found.append(control(f"{name}: within its limit", "cost", (held,), **asked))
    return tuple(found)


def clock_of(device: str | torch.device) -> str:
    """The column of `timed` that counts: wall time on a GPU; on a CPU its own, which other work does not lengthen."""
    return "seconds" if torch.device(device).type == "cuda" else "cpu_seconds"

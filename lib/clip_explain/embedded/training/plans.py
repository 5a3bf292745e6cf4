"""The plans of all trainings: architecture, curriculum and optimiser's settings of each embedded model.

Below batches.py, towers.py, dino.py and iclip.py, which carry out a plan.
"""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Some steps of the curriculum.

    What is seen. `window`: side in pixels of the part of the 224-pixel picture that is looked at, whole patches. They
    keep their own positional embeddings, so a model trained on windows needs no resizing for whole pictures.
    `magnification`: lowest and highest, of the pool's pictures. `pool`: recipe, seed and number of scenes. `close`:
    extra weight of scenes with one or two objects. `grey`: share of pictures without colour. `removals`: share of
    pictures of which a part is taken away (see removals.py). `art`: how many of the batch are paintings and faces.

    What is said. `captions`: how many true ones each picture adds to the batch, of kinds drawn by `shares`.
    `hard_negatives`: how many that mix up two of its objects or give one the shape it is most easily taken for, or
    turn a face's mood. `all_pairs`: every batch is told all pairs of a shape with a colour, a size or a material.

    How it is read. `patch_keep`: share of patches that is looked at, drawn anew for each picture, as FLIP does.
    `class_token_delay`: share of steps in which the class token attends to the patches only from a random block on
    (before it, to itself), and in a share `class_token_last` of these only in the last one; in the same steps the end
    token of texts, too. Else a small model gathers what it needs in its first blocks, and its last values, which
    Grad-ECLIP reads, say little. `patch_isolation`: share of steps in which patches attend only to those of their own
    cell, the picture being cut by chance into 2 x 2 to 4 x 4 cells; else each object's patches tell of the others too.
    At other steps, and whenever it is used, the network runs as it is.

    `rate`: the learning rate at the stage's end; it goes there in a straight line from where the stage before ended.
    """

    name: str
    steps: int
    batch: int
    window: int
    magnification: tuple[float, float]
    shares: dict[str, float] = field(hash=False)
    pool: tuple[str, int, int]
    rate: float = 1e-3
    close: float = 1.0
    grey: float = 0.1
    removals: float = 0.0
    art: int = 0
    captions: int = 1
    hard_negatives: int = 0
    all_pairs: bool = False
    patch_keep: float = 1.0
    class_token_delay: float = 0.0
    class_token_last: float = 0.6
    patch_isolation: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that determines a training: the architecture, the curriculum and the optimiser's settings.

    `patch`: side of a patch in pixels; for a ResNet of a cell of its last grid, 32. `vision_heads`, `text_heads`: of
    each block's attention; None for OpenAI's, one for each 64 channels.
    """

    vision_width: int
    vision_layers: int | tuple[int, int, int, int]  # four numbers: a ModifiedResNet's blocks in each stage
    text_width: int
    text_layers: int
    embed: int
    patch: int
    stages: tuple[Stage, ...]
    vision_heads: int | None = None
    text_heads: int | None = None
    seed: int = 1
    start: str | None = None  # the whole network starts as this model, and has its architecture: a finetuning
    art: int = 4000  # paintings and faces to draw from
    rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.05
    notes: str = ""


SINGLE = {"single": 0.5, "double": 0.5}
SECOND = {"single": 0.3, "double": 0.5, "full": 0.2}
THIRD = {"single": 0.2, "double": 0.4, "full": 0.2, "pair": 0.1, "relation": 0.05, "triple": 0.05}
FOURTH = {"single": 0.15, "double": 0.35, "full": 0.15, "place": 0.05, "pair": 0.1, "relation": 0.05, "triple": 0.15}
WHOLE = ("whole", 2, 6000)
TRAINING = ("training", 1, 16000)
CURRICULUM = (  # what all CLIPs of the family learn by; windows are whole patches of 16 and of 32 pixels
    Stage(
        name="close views", steps=2278, batch=256, window=96, magnification=(0.7, 1.5), pool=TRAINING,
        close=4.0, grey=0.25, removals=0.4, captions=2, shares=SINGLE, hard_negatives=1, all_pairs=True,
    ),
    Stage(
        name="larger views", steps=1742, batch=256, window=160, magnification=(0.7, 1.3), pool=TRAINING,
        close=2.0, grey=0.15, removals=0.5, captions=2, shares=THIRD, hard_negatives=1, all_pairs=True,
        art=28, patch_keep=0.5, patch_isolation=0.6, class_token_delay=0.6,
    ),
    Stage(
        name="whole pictures", steps=2814, batch=256, window=224, magnification=(1.0, 1.25), pool=TRAINING,
        close=1.0, grey=0.1, removals=0.5, captions=2, shares=FOURTH, hard_negatives=1, all_pairs=True,
        art=36, patch_keep=0.5, patch_isolation=0.7, class_token_delay=0.7, rate=2e-4,
    ),
    Stage(
        name="settling", steps=536, batch=192, window=224, magnification=(1.0, 1.2), pool=TRAINING,
        close=1.5, grey=0.05, removals=0.5, captions=2, shares=FOURTH, hard_negatives=1, all_pairs=True,
        art=32, patch_isolation=0.5, class_token_delay=0.5, rate=2e-6,
    ),
)  # fmt: skip


def with_each(stages: tuple[Stage, ...], **changes) -> tuple[Stage, ...]:
    """The stages, each with the same changes."""
    return tuple(replace(stage, **changes) for stage in stages)


def lengthened(plan: Plan, length: float) -> Plan:
    """The plan with `length` times the steps in each stage."""
    stages = tuple(replace(stage, steps=max(1, round(stage.steps * length))) for stage in plan.stages)
    return replace(plan, stages=stages)


TINY_VIT = Plan(
    vision_width=128, vision_layers=12, vision_heads=4, text_width=128, text_layers=12, text_heads=4, embed=128,
    patch=16, stages=CURRICULUM,
)  # fmt: skip
PLANS = {
    "tiny-vit": TINY_VIT,
    "tiny-vit-plain": replace(
        TINY_VIT,
        stages=with_each(CURRICULUM, patch_isolation=0.0, class_token_delay=0.0),
        notes="The control: architecture, data and budget of tiny-vit, and nothing in the curriculum that makes the "
        "class token read late or keeps patches apart.",
    ),
    "tiny-vit-32": lengthened(
        replace(
            TINY_VIT, patch=32, stages=with_each(CURRICULUM, patch_keep=1.0),
            notes="tiny-vit with patches of twice the side, as ViT-B/32 beside ViT-B/16; 0.9 of its steps.",
        ),
        0.9,
    ),
    "tiny-resnet": lengthened(
        replace(
            TINY_VIT, vision_width=16, vision_layers=(2, 2, 2, 2), vision_heads=None, patch=32,
            stages=with_each(CURRICULUM, patch_keep=1.0, patch_isolation=0.0, class_token_delay=0.0),
            notes="A ModifiedResNet, which has no patches to leave out or to keep apart; 0.9 of tiny-vit's steps.",
        ),
        0.9,
    ),
    "tiny-vit-xray": replace(
        TINY_VIT, start="tiny-vit", seed=3, rate=2e-4, warmup=5,
        stages=(
            Stage(
                name="X-rays", steps=60, batch=32, window=224, magnification=(1.0, 1.2), pool=("xray", 4, 400),
                grey=0.0, shares=FOURTH, patch_keep=0.5, patch_isolation=0.7, class_token_delay=0.6, rate=2e-6,
            ),
        ),
        notes="A domain that tiny-vit never saw. Notebook 13 trains it anew each time, so no weights are kept.",
    ),
    "basic-clip": Plan(
        vision_width=128, vision_layers=5, text_width=128, text_layers=4, embed=128, patch=16, seed=7,
        stages=(
            Stage(
                name="close views", steps=1500, batch=96, window=80, magnification=(0.7, 1.5), pool=WHOLE,
                shares=SECOND,
            ),
            Stage(
                name="whole pictures", steps=800, batch=64, window=224, magnification=(1.0, 1.25), pool=WHOLE,
                shares=SECOND, rate=1e-5,
            ),
        ),
        notes="Both towers from nothing, on the scenes and captions that ICLIP learns from: its tables' basic CLIP.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class DinoStage:
    """Some steps of DINO: how many pictures each, and the sides in pixels of global and of local crops.

    `light`: how far brightness, contrast and saturation of each crop are changed, each a factor from 1 - light to
    1 + light (0.4 in the paper), so that the ground tells little about the picture.
    """

    steps: int
    batch: int
    global_side: int
    local_side: int
    light: float = 0.0


@dataclass(frozen=True)
class DinoPlan:
    """All that decides a training by DINO (Caron et al. 2021, section 3 and appendix).

    `global_area`, `local_area`: least and largest share of the picture that a crop holds. `locals`: local crops a
    picture, beside two global ones. `grey`: share of crops without colour. `hidden_share`: share of a global crop's
    patches that the student does not see, and of which it predicts the teacher's outputs, as in iBOT (Zhou et al. 2022,
    section 3); 0 leaves that out. `momentum`: of the teacher, rising to 1 along half a cosine. `centering`: momentum of
    the center.
    """

    stages: tuple[DinoStage, ...]
    width: int = 128
    layers: int = 5
    patch: int = 16
    hidden: int = 512
    bottleneck: int = 128
    prototypes: int = 1024
    pool: tuple[str, int, int] = WHOLE
    global_area: tuple[float, float] = (0.4, 1.0)
    local_area: tuple[float, float] = (0.05, 0.4)
    locals: int = 4
    grey: float = 0.1
    hidden_share: float = 0.0
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    momentum: float = 0.99
    centering: float = 0.9
    seed: int = 5
    rate: float = 1e-3
    warmup: int = 60
    decay: float = 0.05
    notes: str = ""


@dataclass(frozen=True)
class IclipPlan:
    """All that decides a training of ICLIP, or of one of its ablations, on a frozen image encoder.

    `encoder`: "tiny-dino", an embedded CLIP, or a DINO on the hub. `pooling`: one of iclip.POOLINGS, "masked_max" being
    eq. 10. `dual`: the class token and the pooled one have a projection each (eq. 12-13). Pictures are seen through
    `views` windows in all, drawn once, so that the frozen encoder runs once for each. `dataset`: a real one with
    captions in place of the embedded scenes, from its `table`; options from `pool` to `shares` are the scenes' own.
    """

    encoder: str = "tiny-dino"
    pooling: str = "masked_max"
    dual: bool = True
    steps: int = 1600
    batch: int = 128
    views: int = 16000
    dataset: str | None = None
    table: str | None = None
    pool: tuple[str, int, int] = WHOLE
    scale: tuple[float, float] = (1.0, 1.25)
    grey: float = 0.1
    close: float = 1.0
    shares: dict[str, float] = field(default_factory=lambda: SECOND, hash=False)
    text_width: int = 128
    text_layers: int = 4
    embed: int = 128
    seed: int = 6
    rate: float = 1e-3
    warmup: int = 50
    decay: float = 0.05


DINO_PLANS = {
    "tiny-dino": DinoPlan(
        stages=(DinoStage(3500, 96, 224, 96, 0.2),), layers=8, hidden_share=0.3, prototypes=4096, pool=TRAINING,
        momentum=0.994, rate=7e-4, warmup=300,
        notes="DINO with iBOT's loss of hidden patches, on tiny-vit's pictures.",
    )
}  # fmt: skip
ICLIP_PLANS = {  # each ablation changes a single setting; all have the same budget
    "iclip": IclipPlan(),
    "iclip-one-projection": IclipPlan(dual=False),
    "iclip-max": IclipPlan(pooling="max", dual=False),
    "iclip-average": IclipPlan(pooling="average", dual=False),
    "iclip-attention": IclipPlan(pooling="attention", dual=False),
    "iclip-clip": IclipPlan(encoder="tiny-vit", pooling="attention", dual=False),
}

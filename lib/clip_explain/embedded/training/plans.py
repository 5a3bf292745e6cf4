"""What decides a training: architecture, curriculum, optimiser's settings; one plan for each embedded model.

Below batches.py and towers.py, dino.py and iclip.py, which carry a plan out.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """Some steps of the curriculum.

    `window`: side in pixels of the part of the 224-pixel picture that is looked at, whole patches. They
    keep their own positional embeddings, so a model trained on windows needs no resizing for whole pictures.
    `scale`: lowest and highest magnification of the pool's pictures. `grey`: share of pictures without colour.
    `late`: share of steps in which the class token attends to the patches only from a random block of LATE on (before
    it, to itself), and in a share `last` of these only in the last one. Else a small model gathers what it needs in
    its first blocks, and its last values, which Grad-ECLIP reads, say little. At other steps, and whenever it is used,
    the network runs as it is.
    `keep`: share of patches that is looked at, drawn anew for each picture, as FLIP does.
    `apart`: share of steps in which patches attend only to those of their own cell, the picture being cut by chance
    into 2 x 2 to 4 x 4 cells; else each thing's patches tell of the others too.
    `peak`: a new cosine begins here, at this rate.
    `swaps`: beside its true caption each picture gets one that mixes up two of its things, or a face's mood.
    `shares`: what kinds of captions are drawn. `close`: extra weight of scenes with one or two things.
    `art`: how many of the batch are paintings and faces.
    """

    steps: int
    batch: int
    window: int
    scale: tuple[float, float]
    grey: float
    close: float
    shares: dict[str, float] = field(hash=False)
    pool: tuple[str, int, int] = ("train", 1, 4550)  # recipe, seed, scenes
    swaps: bool = False
    late: float = 0.0
    last: float = 0.0
    keep: float = 1.0
    apart: float = 0.0
    peak: float | None = None
    art: int = 0


@dataclass(frozen=True)
class Plan:
    """All that decides a training: the architecture, the curriculum and the optimiser's settings.

    `patch`: side of a patch in pixels; for a ResNet of a cell of its last grid, 32.
    """

    vision_width: int
    vision_layers: int | tuple[int, int, int, int]  # four numbers: a ModifiedResNet's blocks in each stage
    text_width: int
    text_layers: int
    embed: int
    patch: int
    stages: tuple[Stage, ...]
    seed: int = 1
    text_from: str | None = None  # the text tower starts as this embedded model's
    image_from: str | None = None  # the image tower starts as this embedded model's, its patches resized
    start: str | None = None  # the whole network starts as this model, and has its architecture: a finetuning
    art: int = 4000  # paintings and faces to draw from
    rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.05
    notes: str = ""


LATE = (4, 12)  # of the twelve blocks, where a class token that reads late may begin
FIRST = {"single": 0.6, "double": 0.4}
SECOND = {"single": 0.3, "double": 0.5, "full": 0.2}
THIRD = {"single": 0.2, "double": 0.4, "full": 0.2, "pair": 0.1, "relation": 0.05, "triple": 0.05}
FOURTH = {"single": 0.15, "double": 0.35, "full": 0.15, "place": 0.05, "pair": 0.1, "relation": 0.05, "triple": 0.15}
WHOLE = ("whole", 2, 6000)
MIXED = ("mixed", 3, 8000)
PLANS = {
    "tiny-vit": Plan(
        vision_width=128, vision_layers=12, text_width=128, text_layers=12, embed=128, patch=16,
        stages=(
            Stage(2400, 96, 80, (0.7, 1.5), 0.4, 4.0, FIRST),
            Stage(700, 96, 112, (0.7, 1.4), 0.3, 1.0, SECOND),
            Stage(157, 64, 160, (0.85, 1.3), 0.25, 0.7, THIRD, WHOLE),
            Stage(255, 64, 160, (0.85, 1.3), 0.25, 0.7, THIRD, WHOLE, late=0.6),
            Stage(288, 64, 160, (0.85, 1.3), 0.2, 0.7, THIRD, WHOLE, swaps=True, late=0.6),
            Stage(83, 64, 224, (1.0, 1.2), 0.15, 0.7, FOURTH, WHOLE, swaps=True, late=0.6),
            Stage(720, 64, 224, (1.0, 1.2), 0.15, 0.7, FOURTH, WHOLE, swaps=True, late=0.7, last=0.5, keep=0.5),
            Stage(
                900, 64, 224, (1.0, 1.2), 0.1, 0.7, FOURTH, WHOLE,
                swaps=True, late=0.7, last=0.6, keep=0.5, apart=0.7, peak=6e-4,
            ),
            Stage(
                300, 64, 224, (1.0, 1.2), 0.1, 1.2, FOURTH, WHOLE,
                swaps=True, late=0.7, last=0.6, keep=0.6, apart=0.7, peak=4e-4,
            ),
            Stage(110, 64, 224, (1.0, 1.2), 0.1, 1.2, FOURTH, WHOLE, swaps=True, late=0.6, last=0.6, apart=0.6),
            Stage(
                2600, 64, 224, (1.0, 1.25), 0.1, 1.0, FOURTH, MIXED,
                swaps=True, late=0.7, last=0.6, keep=0.5, apart=0.8, peak=7e-4, art=12,
            ),
            Stage(
                250, 64, 224, (1.0, 1.2), 0.05, 1.5, FOURTH, MIXED,
                swaps=True, late=0.5, last=0.6, apart=0.7, art=24,
            ),
            Stage(
                472, 64, 224, (1.0, 1.3), 0.05, 3.0, FOURTH, MIXED,
                swaps=True, late=0.6, last=0.6, keep=0.6, apart=0.7, peak=6e-4, art=20,
            ),
            Stage(
                212, 64, 224, (1.0, 1.3), 0.05, 3.0, FOURTH, MIXED,
                swaps=True, late=0.3, last=0.6, apart=0.3, peak=7e-4, art=48,
            ),
            Stage(
                250, 64, 224, (1.0, 1.2), 0.05, 3.0, FOURTH, MIXED,
                swaps=True, late=0.6, last=0.6, keep=0.6, apart=0.7, art=14,
            ),
            Stage(
                180, 64, 224, (1.0, 1.2), 0.05, 3.0, FOURTH, MIXED,
                swaps=True, late=0.5, last=0.6, apart=0.6, art=14,
            ),
        ),
        notes="Steered by hand while it ran: the later stages were settled on the way, so the learning rate up to step "
        "4,603 fell along cosines of 4,983 to 5,800 steps, and the renderer's edges were mended after the first pools. "
        "A rerun follows this plan; it will not give the same bits.",
    ),
    "tiny-resnet": Plan(
        vision_width=16, vision_layers=(2, 2, 2, 2), text_width=128, text_layers=12, embed=128, patch=32,
        text_from="tiny-vit", seed=2,
        stages=(
            Stage(600, 96, 96, (0.7, 1.5), 0.3, 3.0, SECOND, art=12),
            Stage(260, 64, 128, (0.7, 1.4), 0.2, 1.5, THIRD, swaps=True, art=8),
            Stage(180, 48, 224, (1.0, 1.25), 0.1, 1.5, FOURTH, MIXED, swaps=True, art=12),
            Stage(130, 48, 224, (1.0, 1.25), 0.1, 1.5, FOURTH, MIXED, swaps=True, art=34, peak=6e-4),
            Stage(80, 48, 224, (1.0, 1.25), 0.1, 1.5, FOURTH, MIXED, swaps=True, art=12),
            Stage(200, 48, 224, (1.0, 1.2), 0.05, 3.0, FOURTH, MIXED, swaps=True, art=20, peak=5e-4),
        ),
        notes="Shortened while it ran: up to step 470 or so the learning rate fell along a cosine of 1,650 steps.",
    ),
    "tiny-vit-32": Plan(
        vision_width=128, vision_layers=12, text_width=128, text_layers=12, embed=128, patch=32,
        text_from="tiny-vit", image_from="tiny-vit", seed=4, rate=6e-4, warmup=50,
        stages=(Stage(900, 64, 224, (1.0, 1.3), 0.05, 2.0, FOURTH, MIXED, swaps=True, late=0.6, last=0.6, apart=0.6),),
        notes="tiny-vit's towers, trained on with patches of twice the side.",
    ),
    "tiny-vit-xray": Plan(
        vision_width=128, vision_layers=12, text_width=128, text_layers=12, embed=128, patch=16,
        start="tiny-vit", seed=3, rate=2e-4, warmup=5,
        stages=(
            Stage(60, 32, 224, (1.0, 1.2), 0.0, 1.0, FOURTH, ("xray", 4, 400), late=0.6, last=0.6, keep=0.5, apart=0.7),
        ),
        notes="A domain that tiny-vit never saw. Notebook 13 trains it anew each time, so no weights are kept.",
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
    picture, beside two global ones. `grey`: share of crops without colour. `momentum`: of the teacher, rising to 1
    along half a cosine. `centering`: momentum of the center.
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
    steps: int = 800
    batch: int = 128
    views: int = 8000
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
        (
            *(DinoStage(420, 64, 112, 48), DinoStage(80, 32, 224, 96)),
            *(DinoStage(400, 64, 112, 48), DinoStage(160, 32, 224, 96)),
            *(DinoStage(300, 64, 112, 48), DinoStage(120, 32, 224, 96)),
            *(DinoStage(300, 64, 112, 48, 0.4), DinoStage(100, 32, 224, 96, 0.4)),
            *(DinoStage(110, 64, 112, 48, 0.4), DinoStage(50, 32, 224, 96, 0.4)),
        ),
        notes="Steered by hand while it ran: the lines of stages were added one after the other, so rate and momentum "
        "followed cosines of 500, 1,060, 1,480 and 1,880 steps. Up to there it had six blocks; the last, whose second "
        "head attended to the ground, was then left out, and the other five trained on at a rate of 3e-4, falling, and "
        "a momentum of 0.996. A rerun follows this plan; it will not give the same bits.",
    )
}
ICLIP_PLANS = {  # each ablation changes one thing; all have the same budget
    "iclip": IclipPlan(),
    "iclip-one-projection": IclipPlan(dual=False),
    "iclip-max": IclipPlan(pooling="max", dual=False),
    "iclip-average": IclipPlan(pooling="average", dual=False),
    "iclip-attention": IclipPlan(pooling="attention", dual=False),
    "iclip-clip": IclipPlan(encoder="tiny-vit", pooling="attention", dual=False),
}

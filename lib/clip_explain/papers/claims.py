"""What the three papers state in tables, figures and prose, as comparisons that the notebooks check.

Data, above published.py; the words are ours. `results.evaluate` holds a claim against a table of our numbers. What a
paper states and its own numbers do not bear out is not here: data/paper/README.md lists it.
"""

from clip_explain.errors import DatasetError, nearest
from clip_explain.papers.published import PAPERS, PaperClaim

# What is compared, by the library's names; the first of a claim's methods is the one that the claim is about.
OURS, PLAIN, SURGERY = "grad_eclip", "grad_eclip spatial=none", "clip_surgery"
OF_TEXT = ("grad_cam", "game", "maskclip", "m2ib")  # their maps depend on the text, those of the next two do not
OTHERS = ("self_attention", "rollout", *OF_TEXT)
FOR_WORDS = ("self_attention", "rollout", "game", "m2ib")
FOR_PAIRS = ("self_attention", "rollout", "grad_cam", "game")
LAYERS = {count: f"grad_eclip layers={count}" for count in (1, 2, 4, 6, 8, 10, 12)}
ONE, EIGHT, TWELVE = LAYERS[1], LAYERS[8], LAYERS[12]
EMOTIONS = ("Amusement", "Awe", "Contentment", "Excitement", "Disgust", "Fear")
ENCODER, POOLING, DUAL = "+ self-supervised image encoder", "+ masked max pooling", "+ dual projections"

# What is measured, by the library's name where it has one, and the column (or row) of a paper's table that prints it,
# "" if none does.
DELETION = {"deletion": "Deletion Ground-truth @1", "deletion_top5": "Deletion Ground-truth @5"}
INSERTION = {"insertion": "Insertion Ground-truth @1", "insertion_top5": "Insertion Ground-truth @5"}
DELETION_PREDICTED = {
    "deletion_predicted": "Deletion Prediction @1",
    "deletion_predicted_top5": "Deletion Prediction @5",
}
INSERTION_PREDICTED = {
    "insertion_predicted": "Insertion Prediction @1",
    "insertion_predicted_top5": "Insertion Prediction @5",
}
WORD_DELETION = {"word_deletion_ir": "Deletion IR", "word_deletion_tr": "Deletion TR"}
WORD_INSERTION = {"word_insertion_ir": "Insertion IR", "word_insertion_tr": "Insertion TR"}
SEGMENTATION = {"pixel_accuracy": "Pixel Acc.", "iou_fixed": "maskIoU"}
FOREGROUND = {"foreground_minus_background": "mFMB"}
RECOGNITION = {"class_average_precision": "mAP (%)"}
EXPLANATION = {"searched_iou": "mMIoU (%)", "foreground_minus_background": "mFMB"}
ON_THE_THING = {"energy_pointing_game": ""}
BOTH_GAMES = {"pointing_game": "", "energy_pointing_game": ""}
RECOGNITION_ON_BOTH = {
    "class_average_precision on VOC": "VOC mAP (%)",
    "class_average_precision on COCO": "COCO mAP (%)",
}

# (paper, where) -> what is stated, of which methods, their relation, and by which metrics.
STATED: dict[tuple[str, str], tuple[tuple[str, tuple[str, ...], str, dict[str, str]], ...]] = {
    ("grad_eclip", "section3.2"): (
        ("softmax attention is sparser than loosened", ("loose", "softmax"), "greater than", {"cells_for": ""}),
    ),
    ("grad_eclip", "figure3"): (
        ("each text has its own map", ("own text", "other texts"), "greater than", ON_THE_THING),
    ),
    ("grad_eclip", "table1"): (
        ("Grad-ECLIP has the lowest deletion AUC", (OURS, PLAIN, SURGERY, *OTHERS), "lowest", DELETION),
        ("Grad-ECLIP has the lowest deletion AUC", (OURS, PLAIN, SURGERY, *OF_TEXT), "lowest", DELETION_PREDICTED),
        ("Grad-ECLIP without w_i is second in deletion", (PLAIN, SURGERY, *OTHERS), "lowest", DELETION),
        ("Grad-ECLIP without w_i is second in deletion", (PLAIN, SURGERY, *OF_TEXT), "lowest", DELETION_PREDICTED),
        (
            "Grad-ECLIP has the highest insertion AUC of all but CLIP Surgery",
            (OURS, PLAIN, *OTHERS),
            "highest",
            INSERTION,
        ),
        (
            "Grad-ECLIP has the highest insertion AUC of all but CLIP Surgery",
            (OURS, PLAIN, *OF_TEXT),
            "highest",
            INSERTION_PREDICTED,
        ),
        ("CLIP Surgery inserts better than all but Grad-ECLIP", (SURGERY, PLAIN, *OTHERS), "highest", INSERTION),
        ("CLIP Surgery deletes worse than Grad-ECLIP", (SURGERY, OURS), "greater than", DELETION | DELETION_PREDICTED),
        (
            "maps for the true class delete better than maps for the predicted one",
            ("grad_eclip for the true class", "grad_eclip for the predicted class"),
            "less than",
            {"deletion": "Ours"},
        ),
    ),
    ("grad_eclip", "table2"): (
        ("Grad-ECLIP has the lowest word deletion AUC", (OURS, PLAIN, *FOR_WORDS), "lowest", WORD_DELETION),
        ("Grad-ECLIP has the highest word insertion AUC", (OURS, PLAIN, *FOR_WORDS), "highest", WORD_INSERTION),
    ),
    ("grad_eclip", "table3"): (
        (
            "Grad-ECLIP localizes best",
            (OURS, PLAIN, SURGERY, *OTHERS),
            "highest",
            {"pointing_game": "PG", "energy_pointing_game": "PG-energy", "average_precision": "AP"},
        ),
        (
            "Grad-ECLIP without w_i is second in localizing",
            (PLAIN, SURGERY, *OTHERS),
            "highest",
            {"pointing_game": "PG", "average_precision": "AP"},
        ),
        ("without w_i Grad-ECLIP segments better than with it", (PLAIN, OURS), "greater than", SEGMENTATION),
        ("CLIP Surgery segments best", (SURGERY, OURS, PLAIN, *OTHERS), "highest", SEGMENTATION),
    ),
    ("grad_eclip", "table4"): (
        ("RISE takes longest", ("rise", OURS, SURGERY, *OTHERS), "highest", {"seconds": "time (s/img)"}),
        (
            "Grad-ECLIP takes less time than GAME, M2IB and CLIP Surgery",
            (OURS, "game", "m2ib", SURGERY),
            "lowest",
            {"seconds": "time (s/img)"},
        ),
    ),
    ("grad_eclip", "table5"): (
        (
            "Grad-ECLIP has the lowest deletion AUC in retrieval",
            (OURS, PLAIN, *FOR_PAIRS, "maskclip"),
            "lowest",
            {
                "deletion_ir@1": "Deletion IR @1",
                "deletion_ir@5": "Deletion IR @5",
                "deletion_ir@10": "Deletion IR @10",
                "deletion_tr@5": "Deletion TR @5",
                "deletion_tr@10": "Deletion TR @10",
            },
        ),
        (
            "Grad-ECLIP has the highest insertion AUC in retrieval",
            (OURS, PLAIN, *FOR_PAIRS, "maskclip"),
            "highest",
            {
                "insertion_ir@1": "Insertion IR @1",
                "insertion_ir@5": "Insertion IR @5",
                "insertion_ir@10": "Insertion IR @10",
                "insertion_tr@5": "Insertion TR @5",
                "insertion_tr@10": "Insertion TR @10",
            },
        ),
        (
            "MaskCLIP has the lowest deletion AUC in text recall at 1",
            ("maskclip", OURS, PLAIN, *FOR_PAIRS),
            "lowest",
            {"deletion_tr@1": "Deletion TR @1"},
        ),
        (
            "GAME has the highest insertion AUC in text recall at 1",
            ("game", OURS, PLAIN, "self_attention", "rollout", "grad_cam", "maskclip"),
            "highest",
            {"insertion_tr@1": "Insertion TR @1"},
        ),
    ),
    ("grad_eclip", "table6"): (
        (
            "eight layers are best for inserting words",
            (EIGHT, *(name for name in LAYERS.values() if name != EIGHT)),
            "highest",
            WORD_INSERTION,
        ),
        ("eight layers delete words better than one or all twelve", (EIGHT, ONE, TWELVE), "lowest", WORD_DELETION),
    ),
    ("grad_eclip", "figure6"): (
        (
            "an adjective moves the map to the thing it fits",
            ("adjective and noun", "noun"),
            "greater than",
            ON_THE_THING,
        ),
    ),
    ("grad_eclip", "figure7"): (
        (
            "colour is the attribute found best",
            ("color", "shape", "material", "size", "position"),
            "highest",
            BOTH_GAMES,
        ),
    ),
    ("grad_eclip", "figure8"): (
        ("the last layer alone gives the best image map", tuple(LAYERS.values()), "highest", BOTH_GAMES),
    ),
    ("grad_eclip", "figure10"): (
        (
            "one head keeps the map more on the thing than many",
            (OURS, "grad_eclip heads=native"),
            "greater than",
            ON_THE_THING,
        ),
    ),
    ("epfl", "figure2"): (
        (
            "the last layer's gradient fits the target better than earlier ones",
            ("last layer", "earlier layers"),
            "greater than",
            ON_THE_THING,
        ),
    ),
    ("epfl", "figure4"): (
        (
            "the last gradient alone localizes best",
            ("last_gradient", "all_gradients", "attention_grad_cam"),
            "highest",
            ON_THE_THING,
        ),
    ),
    ("epfl", "figure6"): (
        (
            "the last gradient alone lessens the corner bias",
            ("last_gradient", "all_gradients"),
            "less than",
            {"corner_bias": ""},
        ),
    ),
    ("epfl", "figure8"): (
        (
            "the ViT's map covers more of the named thing than the ResNet's",
            ("vit", "resnet"),
            "greater than",
            {"coverage": ""},
        ),
        (
            "the negated target's map lies on the other things",
            ("negated target", "target"),
            "greater than",
            {"energy_on_others": ""},
        ),
    ),
    ("epfl", "table3"): (
        (
            "anger has the lowest variance and entropy for the ResNet",
            ("Anger", "Sadness", *EMOTIONS),
            "lowest",
            {"variance": "Variance", "entropy": "Entropy"},
        ),
        (
            "sadness has the highest entropy for the ResNet",
            ("Sadness", "Anger", *EMOTIONS),
            "highest",
            {"entropy": "Entropy"},
        ),
    ),
    ("epfl", "table4"): (
        (
            "emotions differ less in the ViT's maps than in the ResNet's",
            ("vit", "resnet"),
            "less than",
            {"spread of variance": "", "spread of entropy": ""},
        ),
    ),
    ("epfl", "figure12"): (
        (
            "the ViT's mean maps are heavier at the centre than elsewhere",
            ("centre", "elsewhere"),
            "greater than",
            {"mean map": ""},
        ),
    ),
    ("epfl", "figure13"): (
        ("the map of a word lies on what the word names", ("own word", "other words"), "greater than", ON_THE_THING),
    ),
    ("epfl", "sectionIV-B"): (  # printed without numbers: IV-B leaves them to the perturbation test of VI-D
        (
            "the last gradient alone outperforms the other methods",
            ("last_gradient", "all_gradients", "attention_grad_cam"),
            "lowest",
            {"positive_perturbation": ""},
        ),
    ),
    ("iclip", "table1"): (("CLIP scores background above foreground", ("itsm",), "less than", FOREGROUND),),
    ("iclip", "table2"): (
        ("max pooling explains best", ("max", "attention", "average"), "highest", EXPLANATION),
        ("max pooling recognizes worst", ("max", "attention", "average"), "lowest", RECOGNITION),
        ("attention pooling prefers the background", ("attention",), "less than", FOREGROUND),
        ("average pooling prefers the background", ("average",), "less than", FOREGROUND),
        ("max pooling prefers the foreground", ("max",), "greater than", FOREGROUND),
    ),
    ("iclip", "table3"): (
        (
            "all steps together are best",
            (DUAL, POOLING, ENCODER, "basic CLIP"),
            "highest",
            {"class_average_precision": "mAP (%)", "searched_iou": "mMIoU (%)", "foreground_minus_background": "mFMB"},
        ),
        ("masked max pooling makes the maps better", (POOLING, ENCODER), "greater than", EXPLANATION),
        ("masked max pooling costs recognition", (POOLING, ENCODER), "less than", RECOGNITION),
        ("dual projections restore recognition", (DUAL, ENCODER), "greater than", RECOGNITION),
        ("another encoder alone prefers the background too", (ENCODER,), "less than", FOREGROUND),
    ),
    ("iclip", "table4"): (
        (
            "ICLIP explains better than CLIP",
            ("iclip", "itsm"),
            "greater than",
            {
                "searched_iou on VOC": "VOC mMIoU (%)",
                "foreground_minus_background on VOC": "VOC mFMB",
                "searched_iou on COCO": "COCO mMIoU (%)",
                "foreground_minus_background on COCO": "COCO mFMB",
            },
        ),
        (
            "CLIP recognizes better than ICLIP, which had less data",
            ("itsm", "iclip"),
            "greater than",
            RECOGNITION_ON_BOTH,
        ),
        (
            "ICLIP recognizes better than CLIP of the same data",
            ("iclip", "CLIP (3M)"),
            "greater than",
            RECOGNITION_ON_BOTH,
        ),
        (
            "ICLIP scores foreground above background",
            ("iclip",),
            "greater than",
            {"foreground_minus_background on VOC": "VOC mFMB", "foreground_minus_background on COCO": "COCO mFMB"},
        ),
    ),
    ("iclip", "table5"): (
        (
            "the reversed map explains better than the gradient-based one",
            ("reversed_itsm", "game"),
            "greater than",
            EXPLANATION,
        ),
        ("ICLIP explains best", ("iclip", "reversed_itsm", "game"), "highest", EXPLANATION),
    ),
    ("iclip", "table6"): (
        (
            "more channels move to the background than to the foreground",
            ("F2B", "B2F"),
            "greater than",
            {
                "channels, share 0.25 to 0.75": "(0.25, 0.75]",
                "channels, share above 0.75": "(0.75, 1]",
                "channels": "(0, 1]",
            },
        ),
        (
            "with a small foreground more channels move to the foreground",
            ("B2F", "F2B"),
            "greater than",
            {"channels, share to 0.25": "(0, 0.25]"},
        ),
    ),
    ("iclip", "table7"): (
        (
            "masked max pooling matches the most channels on the foreground",
            ("iclip", "itsm", "attention pooling"),
            "highest",
            {"channels": "Channels matched on the foreground"},
        ),
    ),
    ("iclip", "table8"): (
        (
            "the reversed map explains better than the map itself",
            ("reversed_itsm", "itsm"),
            "greater than",
            EXPLANATION,
        ),
        (
            "ICLIP explains better than the reversed map",
            ("iclip", "reversed_itsm", "Reversed CLIP (3M)"),
            "highest",
            EXPLANATION,
        ),
    ),
    ("iclip", "figure3"): (
        (
            "max pooling gathers its channels in the fewest places",
            ("max", "average", "attention"),
            "lowest",
            {"distinct places": ""},
        ),
    ),
    ("iclip", "figure6"): (
        (
            "CLIP of another patch size prefers the background",
            ("itsm other patch",),
            "less than",
            {"foreground_minus_background": ""},
        ),
        ("a ResNet CLIP prefers the background", ("itsm resnet",), "less than", {"foreground_minus_background": ""}),
        ("Grad-CAM of CLIP prefers the background", ("grad_cam",), "less than", {"foreground_minus_background": ""}),
    ),
    ("iclip", "figure7"): (
        (
            "naming a part instead of the whole moves the map to the part",
            ("part named", "whole named"),
            "greater than",
            ON_THE_THING,
        ),
        (
            "naming a part of the whole moves the map to the part",
            ("both named", "whole named"),
            "greater than",
            ON_THE_THING,
        ),
        (
            "the part alone moves it more than the part of the whole",
            ("part named", "both named"),
            "greater than",
            ON_THE_THING,
        ),
        (
            "the map of the part alone is worse than that of the whole",
            ("part named", "whole named"),
            "less than",
            {"foreground_minus_background": ""},
        ),
    ),
    ("iclip", "figure8"): (
        (
            "categories like the one named are confused with it",
            ("things like it", "other things"),
            "greater than",
            {"level of the map": ""},
        ),
    ),
    ("iclip", "figure9"): (
        (
            "a high score of recognition picks better maps",
            ("higher half by score", "lower half by score"),
            "greater than",
            {"searched_iou": ""},
        ),
    ),
}

CLAIMS: tuple[PaperClaim, ...] = tuple(
    PaperClaim(paper, where, statement, metric, methods, relation, printed)
    for (paper, where), stated in STATED.items()
    for statement, methods, relation, metrics in stated
    for metric, printed in metrics.items()
)


def claims(paper: str | None = None, where: str | None = None) -> tuple[PaperClaim, ...]:
    """The claims of a paper and one of its tables, figures or sections: claims("grad_eclip", "table1"). None: all.

    DatasetError if there are none.
    """
    if paper is not None and paper not in PAPERS:
        raise DatasetError(f"unknown paper {paper!r}: {nearest(paper, PAPERS)}")
    found = tuple(claim for claim in CLAIMS if paper in (None, claim.paper) and where in (None, claim.where))
    if not found:
        places = sorted({claim.where for claim in CLAIMS if paper in (None, claim.paper)})
        raise DatasetError(f"no claims of {where!r}: {nearest(str(where), places)}")
    return found

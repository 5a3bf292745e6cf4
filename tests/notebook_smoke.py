"""What each notebook is run with in the tests, and values that it must leave; one entry a notebook, so add yours here.

`parameters`: beside those of `EVERY`, as text, as on the command line; small, for 20 seconds or less on one core.
`values`: names in provenance.json's values, and the lowest and highest number allowed, by what the number is (a share,
a difference of shares), not by what some model reached. `files`: what stands in its folder beside the usual ones.
"""

from clip_explain.models import available_models
from clip_explain.models.embedded import embedded_path

EVERY = {"n_images": "2", "seed": "0", "device": "cpu"}
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)

SMOKE = {
    "01_grad_eclip_at_a_glance": {
        "values": {
            "chance: pointing_game": (0.001, 0.5),
            "grad_eclip: pointing_game": SHARE,
            "own text: energy_pointing_game": SHARE,
        },
        "files": ["1_maps.png", "2_taken_apart.png", "3_numbers.png", "numbers.csv"],
    },
    "02_method_comparison": {
        "parameters": {"n_slow": "1", "rise_masks": "8", "shapley_samples": "8"},
        "values": {
            "chance: pointing_game, all images": (0.001, 0.5),
            "grad_eclip: pointing_game, all images": SHARE,
            "grad_eclip: average_precision, all images": (0.001, 1.0),
            "rollout: own less others, all images": (-1e-6, 1e-6),  # its map is the same for every text
            "shapley: pointing_game, first images": SHARE,
        },
        "files": ["1_comparison.png", "2_numbers.png", "methods.csv"],
    },
    "03_image_text_pairs": {
        "parameters": {"m2ib_samples": "1"},
        "values": {
            "chance: pointing_game": (0.001, 0.7),
            "grad_eclip: named words above filler": SHARE,
            "m2ib: words of what is there": SHARE,
            "game: sides agree": SHARE,
        },
        "files": ["1_both_sides.png", "2_labels.png", "3_captions.png", "4_numbers.png", "numbers.csv"],
    },
    "04_image_faithfulness": {
        "parameters": {
            **{"at": "[0, 100]", "n_errors": "1", "most": "6", "n_few": "1", "m2ib_samples": "1"},
        },
        "values": {
            "untouched: accuracy, equal footing": SHARE,
            "grad_eclip: deletion, equal footing": SHARE,
            "clip_surgery: insertion_predicted_top5, as released": SHARE,
            "exact mask: untied share, equal footing": (0.15, 0.4),  # what is asked of the object
            "random: untied share, equal footing": (0.99, 1.0),
            "random: deletion, filled with blur": SHARE,
            "random: positive_perturbation, equal footing": (0.0, 90.0),  # in percent, of 0 to 90 % of the pixels
        },
        "files": ["1_steps.png", "2_curves.png", "3_areas.png", "4_ties.png", "5_fills.png", "table1.csv", "ties.csv"],
    },
    "05_retrieval_faithfulness": {
        "parameters": {"n_gallery": "4", "at": "[0, 100]"},
        "values": {
            "grad_eclip: deletion_ir@10, as released": (1.0, 1.0),  # among 4 images each is one of the first 10
            "random: deletion_ir@10, equal footing": (1.0, 1.0),
            "another caption: deletion_score, equal footing": DIFFERENCE,
            "exact mask: untied share, equal footing": (0.001, 0.7),
            "grad_eclip: insertion_tr@1, equal footing": SHARE,
        },
        "files": ["1_maps.png", "2_curves.png", "3_areas.png", "table5.csv", "areas.csv"],
    },
    "06_text_faithfulness": {
        "parameters": {"n_images": "3", "captions": "1", "m2ib_samples": "1"},
        "values": {
            "random: word_deletion_ir, equal footing": SHARE,
            "another image: word_deletion_tr, equal footing": SHARE,
            "grad_eclip: word_insertion_tr, as released": (0.0, 0.9),  # no word finds nothing: less than 1 - 1 / 10
            "m2ib: word_deletion_tr, equal footing": SHARE,
        },
        "files": ["1_words.png", "2_curves.png", "3_areas.png", "table2.csv"],
    },
    "07_localization": {
        "parameters": {
            **{"processes": "1", "n_slow": "1", "m2ib_samples": "1"},
            "slow": "{'rise': {'masks': 8}, 'shapley': {'samples': 8}}",
        },
        "values": {
            "chance: pointing_game, equal footing": (0.001, 0.5),
            "constant: pointing_game, equal footing": (0.0, 0.0),  # it has no peak
            "constant: average_precision, equal footing": (0.001, 0.5),  # the object's share of the image
            "constant: pixel_accuracy, equal footing": (0.5, 1.0),  # the background's
            "constant: pixel_accuracy_mask, equal footing": (0.0, 0.0),
            "random: energy_pointing_game, equal footing": (0.001, 0.5),
            "grad_eclip: iou_searched, as released": SHARE,
            "clip_surgery: pixel_accuracy_mask, equal footing": SHARE,
            "shapley: pointing_game, first images": SHARE,
            "legrad: pointing_game, control model": SHARE,
        },
        "files": ["1_maps.png", "3_pointing.png", "4_segmentation.png", "5_control.png", "table3.csv", "numbers.csv"],
    },
    "09_concept_composition": {
        "parameters": {"n_images": "12"},  # so that some scenes have two objects of a shape
        "values": {
            "own parts: explained, phrase": SHARE,
            "strange parts: explained, relation": SHARE,
            "own parts: in the plane, phrase": (0.0, 1.0001),
            "noun kept: energy above chance": DIFFERENCE,
        },
        "files": ["1_adjectives.png", "2_relations.png", "3_sums.png", "numbers.csv"],
    },
    "11_layer_ablation": {
        "parameters": {"n_curves": "1", "n_captions": "3", "counts": "[1, 8, 12]", "every": "50"},
        "values": {
            "grad_eclip layers=1: pointing_game": SHARE,
            "grad_eclip heads=native layers=12: energy_pointing_game": SHARE,
            "random: average_precision": SHARE,
            "grad_eclip layers=8: insertion_score": DIFFERENCE,  # a mean cosine
            "grad_eclip layers=8: word_deletion_ir": SHARE,
            "grad_eclip heads=native layers=1: word_insertion_tr": SHARE,
            "grad_eclip layers=8: likeness of words": (0.999, 1.001),  # with itself
        },
        "files": ["1_image_maps.png", "2_words.png", "3_image_numbers.png", "4_word_numbers.png", "table6.csv"],
    },
    "12_head_ablation": {
        "parameters": {"n_curves": "1", "n_captions": "2", "counts": "[1, 8]", "every": "50"},
        "values": {
            "one_head layers=0: correlation with the own score, image": (0.999, 1.001),  # it is CLIP's own score
            "one_head layers=0: same first, text": (1.0, 1.0),
            "one_head layers=8: correlation with the own score, image": (-1.0, 0.9999),
            "grad_eclip head=1: energy_pointing_game": SHARE,
            "grad_eclip heads=native: deletion_score": DIFFERENCE,
            "one softmax: spread of attention": SHARE,
            "two heads: likeness of maps": DIFFERENCE,
        },
        "files": ["1_heads.png", "2_departure.png", "3_numbers.png", "numbers.csv"],
    },
    "10_clevr_attributes": {
        "parameters": {"n_images": "12"},  # so that some scenes are asked for every attribute
        "values": {
            "color: chance": (0.001, 0.5),
            "color: told apart": SHARE,
            "size: pointing_game": SHARE,
            "shape: energy_pointing_game": SHARE,
            "deciding word: shared energy, size and shape": SHARE,
        },
        "files": ["1_attributes.png", "2_values.png", "3_comparatives.png", "4_phrases.png", "values.csv"],
    },
    "13_image_domains": {
        "parameters": {
            "n_scenes": "2",
            "train_steps": "2",
            "train_batch": "4",
            "train_scenes": "4",
            "methods": "['game', 'grad_eclip']",
            "domains": "['render', 'scene_captions', 'xray']",
        },
        "values": {
            "render: own text best": SHARE,
            "scene_captions shuffled: own text best": SHARE,
            "xray finetuned: energy above chance": DIFFERENCE,
            "render finetuned: map moved": (-1e-6, 1.0),
            "render: color over shape": DIFFERENCE,
            "xray: color's part of the words": SHARE,
        },
        "files": ["1_domains.png", "2_both_sides.png", "3_numbers.png", "numbers.csv"],
    },
    "14_other_models": {
        "parameters": {"n_examples": "60"},
        "values": {
            "grad_eclip: pointing_game, BLIP": SHARE,
            "own text: energy_pointing_game, ViT classifier": SHARE,
            "CLIP and BLIP: energy of both": SHARE,
            "CLIP, next image: energy of both": SHARE,
            "another CLIP: right class": SHARE,
        },
        "files": ["1_models.png", "2_numbers.png", "3_likeness.png", "numbers.csv"],
    },
    "15_attention_and_gradient_by_layer": {
        "parameters": {"n_pictures": "40", "n_shown": "1"},
        "values": {
            "chance: energy_pointing_game, texts": (0.001, 0.5),
            "gradient, layer 0: energy_pointing_game, texts": SHARE,
            "gradient, random direction: energy_pointing_game, texts": SHARE,
            "attention, all layers: energy, own less others, texts": (-1e-6, 1e-6),  # it does not depend on the target
            "gradient, last layer: energy, own less others, texts": DIFFERENCE,
        },
        "files": ["1_text.png", "2_image.png", "3_numbers.png", "layers.csv"],
    },
    "16_last_gradient": {
        "parameters": {"n_pictures": "40", "n_faces": "4", "n_labelled": "1"},
        "values": {
            "last_gradient: energy_pointing_game, texts": SHARE,
            "random: energy_pointing_game, texts": (0.001, 0.5),  # about the object's share of the image
            "all_gradients: corner_bias, faces": (0.0, 49 / 4),  # 7 x 7 cells, one in each corner
            "all_gradients: corner_excess, faces": (0.0, 45 / 4),
            "random: positive_perturbation, single objects": (0.0, 90.0),
        },
        "files": ["1_text.png", "2_image.png", "3_mean_maps.png", "4_numbers.png", "numbers.csv"],
    },
    "17_positive_negative_saliency": {
        "parameters": {"n_pictures": "40", "resnet": "tiny-resnet" if "tiny-resnet" in available_models() else ""},
        "values": {
            "printed in Table I: wrong numbers, specifications": (0, 0),
            "printed in Table II: wrong numbers, specifications": (1, 1),  # ViT-L/14@336px takes 336 px, not 224
            "printed of text heads: wrong numbers, specifications": (2, 2),  # 8 in both, not 12
            "target and negated target: overlap, ViT, ViT, texts": SHARE,
            "negated target: energy_on_others, ViT, texts": SHARE,
            "chance: energy_on_others, ViT, texts": (0.001, 0.7),
        },
        "files": ["1_text.png", "2_image.png", "3_numbers.png", "specifications.csv", "numbers.csv"],
    },
    "08_processing_time": {
        "parameters": {
            **{
                "model": "tiny-vit",
                "masks": "4",
                "prompts": "1",
                "grown": "['grad_eclip']",
                "rounds": "1",
                "steps": "2",
            },
        },
        "values": {
            "encode_image: cost": (1.0, 1.0),
            "grad_eclip: cost": (0.01, 1000.0),  # no timed test: wide enough for any machine
            "deletion, of bare forwards: cost": (0.01, 1000.0),
            "rise: cost": (1.0, 1e6),
            "self_attention: times raw attention, as released": (1.0, 1.0),
            "protocol: GPU hours": (1.0, 1e4),
            "protocol: files": (5, 50_004),
        },
        "files": ["1_ratios.png", "2_growth.png", "costs.csv", "table4.csv", "growth.csv", "protocol.csv"],
    },
    "18_emotion_directions": {
        "parameters": {
            "n_train": "64",
            "n_shuffles": "2",
            "cache": "",
            "resnet": "tiny-resnet" if "tiny-resnet" in available_models() else "",
        },
        "values": {
            "chance: accuracy of the probe, ViT": (0.125, 1.0),
            "probe: accuracy of the probe, ViT": SHARE,
            "Awe: variance, ViT": (0.0001, 0.25),  # of values from 0 to 1
            "Awe: entropy, ViT": (0.5, 13.91),  # bits: half precision has 15,361 values from 0 to 1
            "centre: mean map, ViT, shuffled labels": SHARE,
        },
        "files": ["1_probe.png", "4_mean_maps.png", "5_numbers.png", "emotions_vit.safetensors", "numbers.csv"],
    },
    "19_word_wise_saliency": {
        "parameters": {"n_shown": "1", "resnet": "tiny-resnet" if "tiny-resnet" in available_models() else ""},
        "values": {
            "chance: energy_pointing_game, ViT, EP's method": (0.001, 0.7),
            "own word: pointing_game, ViT, EP's method": SHARE,
            "word alone: energy_pointing_game, ViT, Grad-ECLIP": SHARE,
            "random direction: energy_pointing_game, ViT, EP's method": SHARE,
        },
        "files": ["1_words.png", "2_numbers.png", "numbers.csv"],
    },
    "24_beyond_the_papers": {
        "parameters": {
            "at": "[0, 50, 100]",
            "masked": "8",
            "paired": "16",
            "steps": "2",
            "n_grids": "1",
            "n_random": "1",
        },
        "values": {
            "grad_eclip: pointing_game": SHARE,
            "constant: pointing_game": (0.0, 0.0),  # it has no peak
            "random: random weights": (1.0, 1.0),  # it does not look at the model
            "legrad: random weights": DIFFERENCE,
            "fixlip: grid_pointing": SHARE,
            "exclip: insertion_score": DIFFERENCE,  # a mean cosine
            "constant: grid_pointing": (0.0, 0.0),
            "shapley: mean rank": (1.0, 22.0),
            "exact mask: deletion_score": DIFFERENCE,
        },
        "files": [
            *("1_faithfulness.png", "2_localization.png", "3_maps.png", "4_grid.png", "5_words.png"),
            "table.csv",
        ],
    },
    "20_similarity_maps": {
        "parameters": {"iclip": "iclip" if embedded_path("iclip").is_file() else ""},
        "values": {
            "itsm: foreground_minus_background": DIFFERENCE,
            "reversed_itsm: searched_iou": SHARE,
            "game: searched_iou": SHARE,
            "grad_cam: background_preferred": SHARE,
            "game another text: foreground_minus_background": DIFFERENCE,
            "random: searched_iou": (0.001, 0.5),  # about the object's share of the image
            "random: foreground_minus_background": (-0.2, 0.2),
            "CLIP: class_average_precision": (0.001, 1.0),
        },
        "files": ["1_methods.png", "2_networks.png", "3_numbers.png", "4_ranks.png", "numbers.csv"],
    },
    "21_semantic_shift": {
        "parameters": {"n_images": "4", "iclip": "iclip" if embedded_path("iclip-attention").is_file() else ""},
        "values": {
            "chance: channels, embedding": (0.001, 0.7),
            "max: channels, embedding": SHARE,
            "average: distinct places, features": (1, 196),
            "B2F: channels, max to average": SHARE,
            "Gaussian tokens: channels, features": SHARE,
            "shuffled mask: channels, embedding": SHARE,
        },
        "files": ["1_feature_shift.png", "2_shift_by_size.png", "3_on_the_foreground.png", "table6.csv", "table7.csv"],
    },
    "22_iclip": {
        "values": {
            "CLIP: class_average_precision": (0.001, 1.0),
            "ICLIP untrained: searched_iou": SHARE,
            "masked max: foreground_minus_background": DIFFERENCE,
            "the mask alone: searched_iou": SHARE,
            "random: searched_iou": (0.001, 0.5),  # about the object's share of the image
            "the object named: level of the map": SHARE,
        },
        "files": ["1_pooling.png", "2_numbers.png", "3_side_by_side.png", "4_failures.png", "tables.csv"],
    },
    "23_prompts_and_recognition": {
        "parameters": {
            **{"n_images": "4", "n_scenes": "6", "n_faces": "2"},
            "prompts": "{'bare': 'a {}', 'paper': ['a {}', 'a photo of a {}']}",
        },
        "values": {
            "chance: energy_pointing_game, CLIP": (0.001, 0.5),
            "part named: energy_pointing_game, ICLIP": SHARE,
            "mouth or eyes named: energy_pointing_game, CLIP": SHARE,
            "itsm bare: class_average_precision": SHARE,
            "iclip paper: foreground_minus_background": (-2.0, 2.0),
        },
        "files": ["1_parts.png", "2_parts_measured.png", "3_prompts.png", "4_classes.png", "numbers.csv"],
    },
}

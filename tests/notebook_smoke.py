"""What each notebook is run with in the tests, and values that it must leave; one entry a notebook, so add yours here.

`parameters`: beside those of `EVERY`, as text, as on the command line; small, for 20 seconds or less on one core.
`values`: names in provenance.json's values, and the lowest and highest number allowed, by what the number is (a share,
a difference of shares), not by what some model reached. `files`: what stands in its folder beside the usual ones.
"""

EVERY = {"n_images": "2", "seed": "0", "device": "cpu"}
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)

SMOKE = {
    "01_grad_eclip_at_a_glance": {"values": {"chance": (0.001, 0.5), "hit loose": SHARE, "own loose": SHARE}},
    "02_method_comparison": {
        "parameters": {"n_slow": "1", "rise_masks": "8", "occlusion_samples": "8"},
        "values": {
            "chance": (0.001, 0.5),
            "grad_eclip: point game": SHARE,
            "grad_eclip: AP": (0.001, 1.0),
            "rollout: own - others": (-1e-6, 1e-6),  # its map is the same for every text
            "occlusion: above chance": DIFFERENCE,
        },
        "files": ["1_comparison.png", "2_numbers.png", "methods.csv"],
    },
    "03_image_text_pairs": {
        "parameters": {"n_slow": "1"},
        "values": {"chance": (0.001, 0.7), "grad_eclip: content": SHARE, "m2ib: there": SHARE, "game: agree": SHARE},
        "files": ["1_both_sides.png", "2_labels.png", "3_captions.png", "4_numbers.png"],
    },
    "04_image_faithfulness": {
        "parameters": {"every": "100", "m2ib_samples": "1"},
        "values": {
            "accuracy": SHARE,
            "grad_eclip: deletion": SHARE,
            "constant: insertion_top5": SHARE,
            "exact mask: insertion_predicted": SHARE,
            "random: positive_perturbation": (0.0, 90.0),  # Chefer's area, in percent, of 0 to 90 % of the pixels
        },
        "files": ["1_steps.png", "2_curves.png", "3_areas.png", "table1.csv", "areas.csv"],
    },
    "05_retrieval_faithfulness": {
        "parameters": {"n_gallery": "4", "every": "100"},
        "values": {
            "untouched: ir@10": (1.0, 1.0),  # among 4 images each is one of the first 10, changed or not
            "random: deletion_ir@10": (1.0, 1.0),
            "grad_eclip: insertion_tr@1": SHARE,
        },
        "files": ["1_maps.png", "2_curves.png", "3_areas.png", "table5.csv", "areas.csv"],
    },
    "09_concept_composition": {
        "values": {"phrase": SHARE, "strange phrase": SHARE, "relation": SHARE, "phrase embedding": (0.0, 1.0001)},
        "files": ["1_adjectives.png", "2_relations.png", "3_sums.png"],
    },
    "11_layer_ablation": {
        "parameters": {"n_captions": "2", "counts": "[1, 8, 12]", "every": "50"},
        "values": {
            "point_game: single 1": SHARE,
            "energy_point_game: native 12": SHARE,
            "insertion: single 8": DIFFERENCE,  # a mean cosine
            "word_deletion_ir: single 8": SHARE,
            "word_insertion_tr: native 1": SHARE,
            "alike: single 8": (0.999, 1.001),  # with itself
            "best N: word_insertion_ir": (1, 12),
        },
        "files": ["1_image_maps.png", "2_words.png", "3_image_numbers.png", "4_word_numbers.png"],
    },
    "12_head_ablation": {
        "parameters": {"n_captions": "2", "counts": "[1, 8]", "every": "50"},
        "values": {
            "image correlation: 0": (0.999, 1.001),  # no single head: CLIP's own score
            "text difference: 0": (0.0, 1e-6),
            "image difference: 1": (1e-6, 1.0),
            "energy_point_game: head 1": SHARE,
            "deletion: multi head": DIFFERENCE,
            "look: single": SHARE,
            "heads": (2, 64),
        },
        "files": ["1_heads_from_1.png", "2_departure.png", "3_numbers.png", "4_curves.png"],
    },
    "10_clevr_attributes": {
        "parameters": {"n_images": "4"},
        "values": {
            "color: chance": (0.001, 0.5),
            "color: told apart": SHARE,
            "size: point_game": SHARE,
            "shape: energy_point_game": SHARE,
        },
        "files": ["1_attributes.png", "2_values.png", "3_comparatives.png", "4_phrases.png", "values.csv"],
    },
}

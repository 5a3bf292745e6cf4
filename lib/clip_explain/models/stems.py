"""The old place of `resize_positions`, which vit.py has now."""

from clip_explain.models.vit import resize_positions as resize_positions

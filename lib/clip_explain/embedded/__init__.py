"""The embedded world: scenes that are rendered, and the small models trained on them."""

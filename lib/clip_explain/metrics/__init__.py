"""Numbers made of raw maps: where their maximum and their mass lie, how concentrated they are, and how sure a mean is.

Pure functions above maps.py; each says what it does with a degenerate map. Only sanity.py needs a model.
"""

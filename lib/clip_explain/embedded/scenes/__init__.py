"""The embedded world: CLEVR-like scenes with exact masks and captions, their domains, paintings and simple faces.

`world` draws a scene by lot, `raycast` renders it, `captions` says what is true of it, `pool` keeps many on disk.
"""

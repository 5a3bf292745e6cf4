"""The embedded world: CLEVR-like scenes with exact masks and captions, their domains, paintings and simple faces.

`world` draws a random scene, `raycast` renders it, `captions` makes true captions of it, `pool` keeps many on disk.
"""

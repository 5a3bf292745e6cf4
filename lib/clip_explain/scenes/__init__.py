"""The embedded world: CLEVR-like scenes with exact masks and captions, their domains, abstract paintings and simple faces."""

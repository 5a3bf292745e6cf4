"""Many images: a plan cut into shards, run here, in processes or on Dask, and put together as one table."""

from clip_explain.sweep.run import sweep

__all__ = ["sweep"]

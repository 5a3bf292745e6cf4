"""One shard of a sweep: some images of a dataset, all methods and metrics on each, one Parquet file with its checksum.

Above plan.py, below run.py, which makes shards here, in processes or on Dask workers. A shard depends on its plan
alone, so it may be made anywhere, in any order, and more than once.
"""

import hashlib
import io
import json
import platform
from collections.abc import Callable
from functools import lru_cache

import pyarrow as pa
from pyarrow import parquet

from clip_explain.datasets import Record
from clip_explain.errors import DatasetError, ImageError, ModelError, OutputError, TensorError, TextError, WeightsError
from clip_explain.images import preprocess
from clip_explain.models import load
from clip_explain.request import Request, share_forward
from clip_explain.sweep import store
from clip_explain.sweep.measures import METRICS, Case, Session, image_seed, maps_of, visible, visible_masks
from clip_explain.sweep.plan import Plan, library_versions, settings_hash

# Errors that concern a single image; any other error ends the sweep.
OF_ONE_IMAGE = (ImageError, TextError, TensorError, DatasetError)
# A shard's bytes hold this mark and after it, in hexadecimal digits, their own SHA-256 with zeros for those digits.
MARK, ZEROS = b"sha256:", b"0" * 64

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("image", pa.string()),
        ("target", pa.int32()),
        ("text", pa.string()),
        ("method", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("error", pa.string()),  # set in the one row of an image that could not be used, and nowhere else
    ]
)


# -- made


def run_shard(plan: Plan, start: int, session: Session | None = None, tick: Callable[[], object] = lambda: None) -> int:
    """Make the shard that begins with image `start`, unless it exists, and return its number of images.

    `tick` is called after each image. An error that concerns one image becomes a row with the error. Raises
    OutputError, MethodError, and ModelError or WeightsError, with this machine's name, if it lacks the sweep's model.
    """
    images = plan.indices(start)
    if not store.exists(plan.out, plan.shard(start)):
        session = session or _session(json.dumps(vars(plan)))
        rows = []
        for index in images:
            rows += _rows(plan, session, index)
            tick()
        arrays = [pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
        write_shard(plan, start, pa.table(arrays, SCHEMA))
    return len(images)


def _rows(plan: Plan, session: Session, index: int) -> list[tuple]:
    """The rows of one image, or a single row with its error."""
    name = None
    try:
        record = session.dataset[index]
        name = record.id
        return [(index, name, *row, None) for row in measure(plan, session, record)]
    except OF_ONE_IMAGE as error:
        return [(index, name, None, None, None, None, None, f"{type(error).__name__}: {error}")]


def measure(plan: Plan, session: Session, record: Record) -> list[tuple]:
    """(target, text, method, metric, value) of one image; all methods read one request, so they share its forward."""
    pixels = preprocess(session.model, record.image, plan.fit)
    masks = None if record.masks is None else visible_masks(record, plan.fit)
    ignore = None if record.ignore is None else visible(record.ignore, record, plan.fit)
    if not record.texts:
        raise TextError(f"{record.id} has no texts to be explained")
    request = Request(session.model, pixels, session.features(record.texts))
    share_forward(request)  # always, so that a method's numbers do not depend on which other methods are measured
    seed = image_seed(plan.seed, record.id, "metrics")
    rows = []
    for method, options in plan.methods.items():
        maps = maps_of(request, method, options, image_seed(plan.seed, record.id, method))[0]
        case = Case(session, request, record, masks, ignore, seed, maps)
        for metric, choices in plan.metrics.items():
            values = METRICS[metric](case, **choices).tolist()
            pairs = enumerate(zip(record.texts, values, strict=True))
            rows += [(target, text, method, metric, value) for target, (text, value) in pairs]
    return rows


# -- the session of a process


@lru_cache(maxsize=1)
def _session(plan: str) -> Session:
    """A worker's session for a plan, given as json; it checks that model and formulas are those of the sweep."""
    wanted, here = Plan(**json.loads(plan)), f"the worker on {platform.node()}"
    if wanted.versions != library_versions():
        raise ModelError(f"{here} has other versions, {library_versions()}, than the sweep, {wanted.versions}")
    try:
        clip = load(wanted.model, wanted.device, wanted.dtype)
    except (ModelError, WeightsError) as error:
        raise type(error)(f"{here} cannot load the model: {error}") from error
    if clip.sha256 != wanted.sha256:
        raise WeightsError(f"{here} has another {wanted.model}: sha256 {clip.sha256}, the sweep's is {wanted.sha256}")
    return Session(clip, wanted.records(), wanted.templates)


# -- written and read


def write_shard(plan: Plan, start: int, table: pa.Table) -> None:
    """Write a shard as Parquet; its metadata are the checksum of the sweep's settings and that of the whole file."""
    facts = {b"settings": settings_hash(plan).encode(), b"checksum": MARK + ZEROS}
    file = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(facts), file)
    content, place = file.getvalue(), _place_of_checksum(file.getvalue())
    content = content[:place] + checksum(content) + content[place + len(ZEROS) :]
    store.write(plan.out, plan.shard(start), lambda path: path.write_bytes(content))


def read_shard(plan: Plan, start: int) -> pa.Table:
    """A shard's table, if it is whole, of this sweep's settings and of these images; else OutputError."""
    name = plan.shard(start)
    try:
        content = store.read(plan.out, name)
    except OutputError as error:
        raise OutputError(f"{error}. Workers need a folder that all machines share, or a URL") from error
    place = _place_of_checksum(content)
    if content[place : place + len(ZEROS)] != checksum(content):
        raise _refused(plan, name, "is damaged: its checksum is another than it was written with")
    table = parquet.read_table(io.BytesIO(content), use_threads=False)
    if (table.schema.metadata or {}).get(b"settings") != settings_hash(plan).encode():
        raise _refused(plan, name, "was made with other settings than this sweep's")
    images = table["index"].unique().to_pylist()
    if images != list(plan.indices(start)):
        raise _refused(plan, name, f"holds the images {images}, expected {list(plan.indices(start))}")
    return table


def checksum(content: bytes) -> bytes:
    """The SHA-256 of a shard's bytes, in hexadecimal digits, with zeros in the place where it stands in them."""
    place = _place_of_checksum(content)
    return hashlib.sha256(content[:place] + ZEROS + content[place + len(ZEROS) :]).hexdigest().encode()


def _place_of_checksum(content: bytes) -> int:
    """The position after the last mark, since metadata end a Parquet file; 6, which is never valid, without a mark."""
    return content.rfind(MARK) + len(MARK)


def _refused(plan: Plan, name: str, what: str) -> OutputError:
    return OutputError(f"the shard {plan.out}/{name} {what}. Delete it and run again.")

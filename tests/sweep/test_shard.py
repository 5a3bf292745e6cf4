"""Shards on the disk: what is damaged, misplaced or of another sweep is refused by name; nothing else is."""

import random
import shutil

import pytest
from pyarrow import parquet

from clip_explain.errors import OutputError
from clip_explain.sweep.run import sweep
from clip_explain.sweep.shard import read_shard
from small_sweeps import contents, plan_of, settings

FIRST, SECOND = "shards/0000000-0000002.parquet", "shards/0000002-0000004.parquet"
DAMAGED = f"the shard .*{FIRST} is damaged: .*Delete it and run again"


@pytest.fixture
def copy(whole, tmp_path):
    """A finished sweep to be damaged."""
    return shutil.copytree(whole[0], tmp_path / "copy")


def test_of_1000_flipped_bits_none_is_accepted(copy, weights):
    """One bit at a time, anywhere in the file; the file without it is read again after each."""
    plan, path = plan_of(copy, weights), copy / FIRST
    good, rng = path.read_bytes(), random.Random(0)
    table = read_shard(plan, 0)
    for bit in rng.sample(range(8 * len(good)), 1000):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(OutputError, match=DAMAGED):
            read_shard(plan, 0)
    path.write_bytes(good)
    assert read_shard(plan, 0).equals(table)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"sha256:", b"sha256:" + b"0" * 64, b"sha256:" * 100])
def test_a_file_that_is_no_shard_is_refused(copy, weights, content):
    (copy / FIRST).write_bytes(content)
    with pytest.raises(OutputError, match=DAMAGED):
        read_shard(plan_of(copy, weights), 0)


def test_a_shard_that_is_cut_off_is_refused_and_made_again_once_deleted(copy, whole, weights):
    path = copy / FIRST
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OutputError, match=DAMAGED):
        sweep(**settings(weights, copy))
    path.unlink()
    sweep(**settings(weights, copy))
    assert contents(copy) == contents(whole[0])


def test_a_shard_in_the_place_of_another_is_refused(copy, weights):
    shutil.copy(copy / FIRST, copy / SECOND)
    with pytest.raises(OutputError, match=rf"{SECOND} holds the images \[0, 1\], expected \[2, 3\]. Delete it"):
        sweep(**settings(weights, copy))


def test_a_shard_of_other_settings_is_refused(copy, weights, tmp_path):
    """As when two sweeps have mixed their shards, or a lost settings.json was written anew by another sweep."""
    sweep(**settings(weights, tmp_path / "other", seed=1))
    shutil.copy(tmp_path / "other" / SECOND, copy / SECOND)
    with pytest.raises(OutputError, match=f"{SECOND} was made with other settings than this sweep's. Delete it"):
        sweep(**settings(weights, copy))


def test_a_shard_is_a_parquet_file(whole):
    table = parquet.read_table(whole[0] / FIRST)
    assert table.column_names[:2] == ["index", "image"] and set(table["index"].to_pylist()) == {0, 1}

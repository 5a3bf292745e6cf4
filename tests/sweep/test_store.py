"""The files of a sweep: created once, whole or not there, and nobody's unfinished file is removed."""

import errno
import os

import pytest

from clip_explain.errors import OutputError
from clip_explain.sweep import store


@pytest.mark.parametrize("url", [False, True])
def test_a_file_is_created_once(tmp_path, url):
    out = f"memory://{tmp_path}" if url else str(tmp_path / "run")
    store.create(out, "settings.json", b"first")
    store.create(out, "settings.json", b"second")
    assert store.read(out, "settings.json") == b"first" and store.names(out) == {"settings.json"}


def test_a_file_is_created_once_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuses(*paths):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", refuses)
    store.create(str(tmp_path), "settings.json", b"first")
    store.create(str(tmp_path), "settings.json", b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
    assert store.read(str(tmp_path), "settings.json") == b"first"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder .*file/run: Not a directory"):
        store.create(str(tmp_path / "file" / "run"), "settings.json", b"")


def test_only_abandoned_temporary_files_are_removed(tmp_path):
    """A file that another sweep is writing in this moment stays, and so does all that is not temporary."""
    old, new, table = (tmp_path / name for name in (".shard-1-aa.tmp", ".shard-2-bb.tmp", "table.parquet"))
    for path in (old, new, table):
        path.write_text("x")
    for path in (old, table):
        hour_ago = path.stat().st_mtime - store.ABANDONED - 1
        os.utime(path, (hour_ago, hour_ago))
    store.remove_abandoned(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {new.name, table.name}

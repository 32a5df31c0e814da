import gzip
import math
import os

import pandas as pd
import pytest

from reflect_rl.core import files
from reflect_rl.core.errors import ReflectRLError


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "new")
    assert contents(tmp_path) == {"new/folder/a.txt": b"new"}
    assert path.stat().st_mode & 0o777 == 0o644


def test_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(KeyboardInterrupt):
            files.write_text(path, "new")
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_full_disk_is_one_line_with_the_way_out(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(ReflectRLError, match=r"cannot write .*a\.txt \(No space left on device\); free space"):
            files.write_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReflectRLError, match="cannot write .*REFLECT_RL_HOME"):
        files.write_json(tmp_path / "file" / "a.json", {})


def test_json_comes_back(tmp_path):
    value = {"a": [1, 2.5, None], "b": "ü"}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [None, "{", ""])
def test_unreadable_json_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(ReflectRLError, match=r"a\.json cannot be read"):
        files.read_json(tmp_path / "a.json")


def test_binary_rubbish_instead_of_json_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReflectRLError, match=r"a\.json cannot be read"):
        files.read_json(tmp_path / "a.json")


FRAME = pd.DataFrame({"text": ["a", "", "NA"], "number": [0.1, math.nan, 3.0], "whole": [1, 2, 3]})


def test_compressed_csv_has_the_same_bytes_twice(tmp_path, monkeypatch):
    files.write_csv(tmp_path / "a.csv.gz", FRAME)
    monkeypatch.setattr("time.time", lambda: 2e9)  # the clock must not enter the file
    files.write_csv(tmp_path / "b.csv.gz", FRAME)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == b"text,number,whole\na,0.1,1\n,,2\nNA,3.0,3\n"


def test_csv_comes_back_with_its_numbers_and_words(tmp_path):
    files.write_csv(tmp_path / "a.csv.gz", FRAME)
    back = files.read_csv(tmp_path / "a.csv.gz")
    assert back.text[0] == "a" and back.text[2] == "NA"
    assert back.number[0] == 0.1 and math.isnan(back.number[1])
    assert back.whole.tolist() == [1, 2, 3]


def test_damaged_csv_is_named(tmp_path):
    path = tmp_path / "a.csv.gz"
    files.write_csv(path, pd.DataFrame({"x": range(1000)}))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ReflectRLError, match=r"a\.csv\.gz cannot be read .*; delete it and run again"):
        files.read_csv(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(ReflectRLError, match=r"a\.csv\.gz cannot be read"):
        files.read_csv(path)


# --- the way out ---


def damaged_run(tmp_path):
    """A finished run whose metrics are damaged."""
    folder = tmp_path / "rl-0123456789"
    for name in ("config.json", "status.json", "metrics.csv"):
        files.write_text(folder / name, "{}")
    (folder / "metrics.csv").write_bytes(b"\xff\xfe")
    return folder


def test_a_damaged_file_of_a_run_names_the_run_folder_until_it_is_gone(tmp_path):
    """Deleting the file alone led to the same message again: the run passed for finished and did not make it anew."""
    folder = damaged_run(tmp_path)
    for _ in range(2):
        with pytest.raises(ReflectRLError) as error:
            files.read_csv(folder / "metrics.csv")
        assert f"delete the run folder {folder} and run again" in str(error.value)
        (folder / "metrics.csv").unlink(missing_ok=True)
    files.write_text(folder / "config.json", "{")
    with pytest.raises(ReflectRLError, match=f"delete the run folder {folder} and run again"):
        files.read_json(folder / "config.json")


def test_a_file_of_no_run_is_deleted_itself_and_where_it_is_missing_its_folder(tmp_path):
    path = tmp_path / "results" / "a.json"
    files.write_text(path, "{")
    with pytest.raises(ReflectRLError, match="; delete it and run again to make it anew"):
        files.read_json(path)
    path.unlink()
    with pytest.raises(ReflectRLError, match=f"; restore it, or delete {path.parent} and run again to make all of it"):
        files.read_json(path)


# --- checksums ---


def test_a_digest_is_the_sha256_of_a_file(tmp_path):
    files.write_text(tmp_path / "a", "abc")
    assert files.digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(ReflectRLError, match="b cannot be read"):
        files.digest(tmp_path / "b")

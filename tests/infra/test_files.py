"""Files are whole or absent."""

import os
from pathlib import Path

import pytest

from infra.errors import ServiceTrouble
from infra.files import MANIFEST, finish_folder, finished, fresh_folder, read_json, verify_folder, write_atomic


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """/dev/full is a disk with no space left."""
    path = tmp_path / "file"
    write_atomic(path, "old")
    (tmp_path / f".file.{os.getpid()}.part").symlink_to("/dev/full")

    with pytest.raises(ServiceTrouble, match="No space left"):
        write_atomic(path, "new")

    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    with pytest.raises(ServiceTrouble, match="Could not write"):
        write_atomic(tmp_path / "file" / "inside", "new")


def test_a_folder_without_a_manifest_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")

    assert finished(tmp_path) is None
    with pytest.raises(ServiceTrouble, match="never finished"):
        verify_folder(tmp_path)


def test_a_finished_folder_verifies(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "data").write_text("x")

    finish_folder(tmp_path, {"seed": 1})

    assert verify_folder(tmp_path)["seed"] == 1


@pytest.mark.parametrize("harm", [lambda path: path.write_text("y"), lambda path: path.unlink()])
def test_a_changed_or_missing_file_is_found(tmp_path: Path, harm) -> None:
    data = tmp_path / "data"
    data.write_text("x")
    finish_folder(tmp_path, {})

    harm(data)

    with pytest.raises(ServiceTrouble, match="changed"):
        verify_folder(tmp_path)


def test_a_broken_manifest_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{")

    with pytest.raises(ServiceTrouble, match="is not JSON"):
        read_json(tmp_path / MANIFEST)


def test_a_fresh_folder_forgets_the_attempt_before(tmp_path: Path) -> None:
    stale = tmp_path / "stage" / "half"
    stale.parent.mkdir()
    stale.write_text("x")

    assert list(fresh_folder(tmp_path / "stage").iterdir()) == []

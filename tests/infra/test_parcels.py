"""Parcels over a folder, a real SFTP server and a real S3-compatible one: whole or not there, and ours or refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from infra import artifacts
from infra.errors import ServiceTrouble
from infra.parcels import Store
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.infra.s3_server import options, s3_server
from tests.infra.sftp_server import PASSWORD, USER, sftp_server, trust

KEY = "a-key-that-both-ends-know"
BIG = bytes(range(256)) * 1200
NAME = "runs/a-run/1-sent"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits between tries."""
    monkeypatch.setattr(artifacts, "WAITS_S", (0.01,) * 5)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Both servers, each over a folder, and a home that knows the host."""
    root = tmp_path_factory.mktemp("servers")
    for name in ("sftp", "s3/bucket"):
        (root / name).mkdir(parents=True)
    with sftp_server(root / "sftp") as (sftp, key), s3_server(root / "s3") as s3:
        trust(root, sftp, key)
        yield {"root": root, "sftp": sftp, "key": key, "s3": s3}


@pytest.fixture(params=["folder", "sftp", "s3"])
def place(
    request, servers: dict[str, Any], tmp_path: Path, monkeypatch
) -> Iterator[tuple[Store, Path, FaultProxy | None]]:
    """A store, the folder that it is in, and the network before it."""
    if request.param == "folder":
        yield Store(str(tmp_path / "store"), KEY), tmp_path / "store", None
        return
    monkeypatch.setenv("HOME", str(servers["root"]))
    with fault_proxy(("127.0.0.1", servers[request.param])) as proxy:
        if request.param == "sftp":
            trust(servers["root"], proxy.port, servers["key"])
            address, folder = f"sftp://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/{tmp_path.name}", "sftp"
        else:
            monkeypatch.setitem(fsspec.config.conf, "s3", options(proxy.port))
            address, folder = f"s3://bucket/{tmp_path.name}", "s3/bucket"
        yield Store(address, KEY), servers["root"] / folder / tmp_path.name, proxy


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """What is sent: a large file, an empty one, and one whose name is Chinese, two of them alike."""
    made = {"lora/weights.bin": BIG, "lora/empty": b"", "dataset/问答.jsonl": b"{}", "job/again": b"{}"}
    for name, content in made.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_bytes(content)
    return {name: tmp_path / "here" / name for name in made}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetched(store: Store, tmp_path: Path, name: str = NAME, **more: Any) -> dict[str, bytes]:
    store.fetch(store.look(name), tmp_path / "there", **more)
    return contents(tmp_path / "there")


def test_what_was_sent_arrives(place, files: dict[str, Path], tmp_path: Path) -> None:
    store, _, _ = place
    assert not store.has(NAME)
    store.send(NAME, files, {"dataset": "d"})

    assert store.look(NAME).about == {"dataset": "d"}
    assert list(fetched(store, tmp_path, wanted=lambda path: path.startswith("job/"))) == ["job/again"]
    assert fetched(store, tmp_path) == {name: file.read_bytes() for name, file in files.items()}


def test_a_batch_holds_each_file_once_and_goes_as_a_whole(place, files: dict[str, Path], tmp_path: Path) -> None:
    store, folder, _ = place
    store.send(NAME, files, {})
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs/a-run/files").iterdir()}
    assert len(before) == 3
    files["lora/more"] = tmp_path / "more"
    files["lora/more"].write_bytes(b"more")
    files["lora/weights.bin"].write_bytes(b"other")

    store.keep_only(store.send("runs/a-run/2-1", files, {}))

    after = list((folder / "runs/a-run/files").iterdir())
    assert len(after) == 4
    assert {path: path.stat().st_mtime_ns for path in after if path in before}.items() <= before.items()
    assert not store.has(NAME)
    assert store.batches("runs") == ["runs/a-run"]
    store.drop("runs/a-run")
    store.drop("runs/a-run")
    assert store.batches("runs") == []


def change(path: Path, how: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(path.read_text())
    how(found)
    path.write_text(json.dumps(found))


def another_file(found: dict[str, Any]) -> None:
    found["files"]["lora/weights.bin"]["sha256"] = found["files"]["lora/empty"]["sha256"]


def test_what_is_not_signed_with_the_key_is_not_used(files: dict[str, Path], tmp_path: Path) -> None:
    """Whoever can write to the store cannot give the other end anything that this end did not send."""
    store, folder = Store(str(tmp_path / "store"), KEY), tmp_path / "store"
    store.send(NAME, files, {"learned": False})
    listed = folder / f"{NAME}.json"
    right = listed.read_text()
    for how in (
        another_file,
        lambda found: found["about"].update(learned=True),
        lambda found: found.update(parcel="runs/a-run/2-1"),
        lambda found: found["files"].update({"../outside": {"sha256": "0" * 64, "bytes": 1}}),
        lambda found: found.pop("signature"),
        lambda found: found.update(signature="é"),
        lambda found: found.update(signature=None),
    ):
        change(listed, how)
        with pytest.raises(ServiceTrouble, match="is not signed") as refused:
            store.look(NAME)
        assert refused.value.permanent
        listed.write_text(right)
    with pytest.raises(ServiceTrouble, match="is not signed"):
        replace(store, key="another-key-than-ours").look(NAME)
    for junk in ("[]", "{", '"x"', "null", "{}", '{"about": "\\ud800"}'):
        listed.write_text(junk)
        with pytest.raises(ServiceTrouble):
            store.look(NAME)
    with listed.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ServiceTrouble, match="no parcel"):
        store.look(NAME)


def test_an_old_parcel_is_not_taken_for_a_new_one(files: dict[str, Path], tmp_path: Path) -> None:
    store, folder = Store(str(tmp_path / "store"), KEY), tmp_path / "store"
    store.send(NAME, files, {})
    shutil.copy(folder / f"{NAME}.json", folder / "runs/a-run/2-1.json")

    with pytest.raises(ServiceTrouble, match="is another one"):
        store.look("runs/a-run/2-1")


def test_a_file_that_was_changed_or_cut_or_grown_is_not_used(place, files: dict[str, Path], tmp_path: Path) -> None:
    store, folder, _ = place
    parcel = store.send(NAME, files, {})
    blob = folder / "runs/a-run/files" / parcel.files["lora/weights.bin"][0]
    for wrong in (b"x" + BIG[1:], BIG[:-1], BIG + b"x", b"", None):
        blob.unlink()
        if wrong is not None:
            blob.write_bytes(wrong)
        else:
            blob.mkdir()
        with pytest.raises(ServiceTrouble):
            fetched(store, tmp_path)
        assert "lora/weights.bin" not in contents(tmp_path / "there")
        if wrong is None:
            blob.rmdir()
            blob.write_bytes(BIG)
    assert not list((tmp_path / "there").rglob("*.part"))
    assert fetched(store, tmp_path)["lora/weights.bin"] == BIG


def test_a_file_never_leaves_its_folder(tmp_path: Path, files: dict[str, Path]) -> None:
    """Signed by us or not."""
    store = Store(str(tmp_path / "store"), KEY)
    for path in ("../out", "/tmp/out", "a/../../out", "", "a\\..\\out", "a\0b"):
        store.send(NAME, {path: files["job/again"]}, {})
        with pytest.raises(ServiceTrouble, match="outside its folder"):
            fetched(store, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("place", ["sftp", "s3"], indirect=True)
def test_the_network_may_break_at_any_byte(place, files: dict[str, Path], tmp_path: Path, way: str) -> None:
    """Cut so often that no connection but the last carries a whole file, with a reset in its middle."""
    store, _, proxy = place
    wanted = {name: file.read_bytes() for name, file in files.items()}
    for number, at in enumerate((3, 4096, 200_000)):
        getattr(proxy, way).cut_after = at
        store.send(f"runs/{number}/1", files, {})
        getattr(proxy, way).cut_after = at
        shutil.rmtree(tmp_path / "there", ignore_errors=True)
        assert fetched(store, tmp_path, f"runs/{number}/1") == wanted
    proxy.heal()


@pytest.mark.parametrize("place", ["sftp", "s3"], indirect=True)
def test_a_host_that_falls_silent_is_given_up(place, files: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    store, _, proxy = place
    monkeypatch.setattr(artifacts, "WAITS_S", ())
    monkeypatch.setattr(artifacts, "SILENCE_S", 0.5)
    if "s3" in fsspec.config.conf:
        fsspec.config.conf["s3"]["config_kwargs"] = {"read_timeout": 0.5, "retries": {"max_attempts": 0}}
    store.send(NAME, files, {})
    proxy.down.swallows = True

    with pytest.raises(ServiceTrouble) as given_up:
        store.send("runs/b/1", files, {})

    assert not given_up.value.permanent
    proxy.heal()
    store.send("runs/b/1", files, {})
    assert fetched(store, tmp_path, "runs/b/1")["lora/weights.bin"] == BIG


def test_a_host_that_ssh_does_not_know_gets_no_password(servers: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    address = f"sftp://{USER}:{PASSWORD}@127.0.0.1:{servers['sftp']}/x"
    with pytest.raises(ServiceTrouble, match="does not know the host") as refused:
        artifacts.listed(address)
    assert refused.value.permanent
    assert PASSWORD not in str(refused.value)

    trust(tmp_path, servers["sftp"], "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl0")
    with pytest.raises(ServiceTrouble, match="BadHostKey") as other:
        artifacts.listed(address)
    assert other.value.permanent

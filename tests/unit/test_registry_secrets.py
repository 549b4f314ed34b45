"""Stream credentials at rest: what opens them, what does not, and the file of the keys."""

from __future__ import annotations

import logging
import os
import stat
import string
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.contract.errors import ConfigError
from registry.secrets import Key, Unreadable, Vault, add_key, open_vault

SECRET = "rtsp://viewer:hunter2@10.0.0.5/main"
A, B = Key("0000000a", bytes(32)), Key("0000000b", bytes([7]) * 32)


@given(st.text(), st.sampled_from(["gate-1", "a"]), st.sampled_from(["record", "analyse"]))
def test_what_was_encrypted_comes_back_and_never_looks_the_same(text: str, camera_id: str, stream: str) -> None:
    vault = Vault((A, B))
    sealed, again = vault.seal(text, camera_id, stream), vault.seal(text, camera_id, stream)
    assert vault.unseal(sealed, camera_id, stream) == text
    assert sealed != again
    assert sealed.startswith("v1.0000000b.") and sealed.isascii()


@given(st.integers(min_value=0), st.integers(1, 255))
def test_any_change_is_noticed(where: int, change: int) -> None:
    sealed = Vault((A,)).seal(SECRET, "gate-1", "record")
    raw = bytearray(sealed.encode())
    raw[where % len(raw)] ^= change
    changed = raw.decode("latin-1")
    with pytest.raises(Unreadable) as caught:
        Vault((A, B)).unseal(changed, "gate-1", "record")
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told and sealed not in told


@pytest.mark.parametrize("more", [0, 1, 2])
def test_bits_that_say_nothing_are_noticed_too(more: int) -> None:
    sealed = Vault((A,)).seal(SECRET + "x" * more, "gate-1", "record")
    body, padding = sealed.rstrip("="), "=" * sealed.count("=")
    for letter in set(string.ascii_letters + string.digits + "-_") - {body[-1]}:
        with pytest.raises(Unreadable):
            Vault((A,)).unseal(body[:-1] + letter + padding, "gate-1", "record")


@pytest.mark.parametrize("sealed", ["", "v1", "v1..", "v1.0000000a.", "v1.0000000a.AAAA", "v1.0000000a.é", SECRET])
def test_what_is_nothing_of_ours_is_unreadable_and_not_told(sealed: str) -> None:
    with pytest.raises(Unreadable) as caught:
        Vault((A,)).unseal(sealed, "gate-1", "record")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_it_belongs_to_its_camera_stream_and_key() -> None:
    sealed = Vault((A,)).seal(SECRET, "gate-1", "record")
    for camera_id, stream in (("gate-2", "record"), ("gate-1", "analyse")):
        with pytest.raises(Unreadable, match="belongs to another stream"):
            Vault((A,)).unseal(sealed, camera_id, stream)
    with pytest.raises(Unreadable, match="its key '0000000a' is not in the key file"):
        Vault((B,)).unseal(sealed, "gate-1", "record")
    # Another key under the same id.
    with pytest.raises(Unreadable):
        Vault((Key("0000000a", B.material),)).unseal(sealed, "gate-1", "record")
    relabelled = sealed.replace("0000000a", "0000000b")
    with pytest.raises(Unreadable):
        Vault((A, Key("0000000b", A.material))).unseal(relabelled, "gate-1", "record")


def test_the_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    sealed = open_vault(path, may_make=True).seal(SECRET, "gate-1", "record")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]
    before = path.read_bytes()
    for may_make in (True, False):
        assert open_vault(path, may_make).unseal(sealed, "gate-1", "record") == SECRET
    assert path.read_bytes() == before


def test_of_registries_that_start_at_once_one_makes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A kill in the middle of an earlier start left this.
    (tmp_path / f".keys.{os.getpid()}.tmp").write_text("half")
    first = open_vault(tmp_path / "keys", may_make=True)
    # The second one looked before the first one made it.
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    second = open_vault(tmp_path / "keys", may_make=True)
    assert second.newest == first.newest
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


def test_a_file_that_went_missing_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"secrets.key_file: .* is missing, and the database holds credentials"):
        open_vault(tmp_path / "keys", may_make=False)
    assert not (tmp_path / "keys").exists()


def test_no_file_is_made_in_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"secrets.key_file: .* cannot be made: No such file or directory"):
        open_vault(tmp_path / "away" / "keys", may_make=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_no_file_is_made_in_somebody_elses_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(ConfigError, match="its folder is somebody else's"):
        open_vault(tmp_path / "keys", may_make=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602, 0o660])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    open_vault(path, may_make=True)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"expected mode 0600 .got {mode:04o}"):
        open_vault(path, may_make=True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "holds no key"),
        ("# only words\n\n", "holds no key"),
        ("0000000a " + "c0ffee" * 10, "line 1: expected an id"),
        ("# x\n0000000a " + "c0ffee01" * 8 + "\n0000000A " + "c0ffee02" * 8, "line 3: expected an id"),
        ("0000000a " + "c0ffee01" * 8 + "\n0000000a " + "c0ffee02" * 8, "line 2: expected an id of its own"),
        ("\udcff", "line 1: expected an id"),
    ],
)
def test_a_faulty_file_is_named_by_its_line_and_no_key_is_told(tmp_path: Path, body: str, said: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(body.encode(errors="surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=said) as caught:
        open_vault(path, may_make=True)
    assert "c0ffee" not in "".join(traceback.format_exception(caught.value))


def test_a_new_key_encrypts_and_the_old_ones_still_decrypt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    with caplog.at_level(logging.DEBUG):
        running = open_vault(path, may_make=True)
        old = running.seal(SECRET, "gate-1", "record")
        key_id = add_key(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        started = open_vault(path, may_make=False)
        new = started.seal(SECRET, "gate-1", "record")
    assert key_id == started.newest != running.newest
    assert started.unseal(old, "gate-1", "record") == SECRET
    # A registry that runs on reads the file again when it meets a key that it does not know.
    assert running.unseal(new, "gate-1", "record") == SECRET
    assert running.newest == key_id
    materials = [line.split()[1] for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(materials) == 2
    told = caplog.text + repr(running) + repr(started) + repr(Key("0000000a", bytes.fromhex(materials[0])))
    assert not [material for material in materials if material in told]


def test_a_running_registry_keeps_its_keys_when_the_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    running = open_vault(path, may_make=True)
    sealed = running.seal(SECRET, "gate-1", "record")
    path.unlink()
    with pytest.raises(Unreadable):
        running.unseal(Vault((A,)).seal(SECRET, "gate-1", "record"), "gate-1", "record")
    assert running.unseal(sealed, "gate-1", "record") == SECRET

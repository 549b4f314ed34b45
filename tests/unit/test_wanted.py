"""The snapshot of wanted cameras, with and without somebody who grants them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import DecodeError
from nodeagent.infra.wanted import Grant, Wanted, read_wanted, write_wanted

GATE = CameraSpec.model_validate({"camera_id": "gate", "record": {"url": "rtsp://u:p@h/a"}})


def test_grants_survive_and_the_file_is_its_owners_only(tmp_path: Path) -> None:
    path, wanted = tmp_path / "w.json", Wanted(3, (GATE,), {"gate": Grant(7, 2)})
    write_wanted(path, wanted)
    assert read_wanted(path) == wanted
    assert (wanted.epoch("gate"), wanted.epoch("yard")) == (7, 0)
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_grants_the_file_is_as_it_was_before_there_were_any(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    write_wanted(path, Wanted(3, (GATE,)))
    assert sorted(json.loads(path.read_bytes())) == ["cameras", "v", "version"]
    assert read_wanted(path).epoch("gate") == 0


@pytest.mark.parametrize("grants", ['["gate"]', '{"gate": 7}', '{"gate": ["x", 1]}', '{"gate": [7]}', "7"])
def test_grants_that_are_none_are_no_snapshot(tmp_path: Path, grants: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(f'{{"v": 1, "version": 1, "cameras": [], "grants": {grants}}}')
    with pytest.raises(DecodeError):
        read_wanted(path)

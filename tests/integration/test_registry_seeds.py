"""What a registry within an agent's tree writes by itself: cameras of the configuration, and tokens in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import Unavailable
from nodeagent.infra.database import migrate, open_database
from registry.inside_tokens import renew_tokens
from registry.store.cameras import Cameras
from registry.store.seeds import Seeded, seed
from registry.store.tokens import Tokens
from registry.tokens import Bearer, Role, parse_token
from tests.support.registry_store import PASSWORD, T0, draft, in_clear, url, vault, writer


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.services)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    where = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("mysql_url")
    opened = open_database(where)
    migrate(opened)
    yield opened
    opened.dispose()


def sow(engine: Engine, *specs: CameraSpec) -> Seeded:
    return seed(engine, vault(), specs, writer(by="configuration file"))


def test_only_cameras_that_were_never_known_are_taken_from_the_file(engine: Engine) -> None:
    cameras = Cameras(engine, vault())
    gone = cameras.make(draft("gone"), writer())
    cameras.delete("gone", gone.version, writer())
    # Disabled and labelled by a person, with the file's configuration.
    cameras.make(draft("same", enabled=False, labels={"site": "north"}), writer())
    cameras.make(draft("moved"), writer())
    before = cameras.version()
    file = [draft(name).spec for name in ("new-2", "gone", "same", "new-1")]
    file.append(draft("moved", record={"url": url("moved", password="another")}).spec)
    done = sow(engine, *file)
    assert done == Seeded(made=("new-1", "new-2"), differ=("moved",), deleted=("gone",), faults=())
    assert [row.camera_id for row in cameras.page().rows] == ["moved", "new-1", "new-2", "same"]
    assert cameras.get("new-1", reveal=True).spec == draft("new-1").spec
    assert cameras.get("new-1").created_by == "configuration file"
    assert cameras.get("moved", reveal=True).spec == draft("moved").spec
    assert not cameras.get("same").enabled
    assert PASSWORD not in in_clear(engine)
    # Again, as after a kill before anybody heard of it: nothing is written.
    version = cameras.version()
    assert version > before
    assert sow(engine, *file) == Seeded(made=(), differ=("moved",), deleted=("gone",), faults=())
    assert cameras.version() == version


def test_a_camera_that_cannot_be_kept_keeps_no_other_out(engine: Engine) -> None:
    done = sow(engine, draft("gate.1", name="x" * 201).spec, draft("yard").spec)
    assert (done.made, [fault.path for fault in done.faults]) == (("yard",), ["gate.1.name"])


def bearers(engine: Engine, folder: Path) -> list[Bearer | None]:
    texts = [(folder / name).read_text().strip() for name in ("node.token", "admin.token")]
    return [Tokens(engine).bearer_of(parse_token(text)) for text in texts]


def test_tokens_are_made_anew_at_each_start_and_earlier_ones_open_nothing(engine: Engine, tmp_path: Path) -> None:
    tokens = Tokens(engine)
    anna, _ = tokens.make_for_person("anna", Role.VIEWER, "root (command)", T0)
    earlier: list[str] = []
    for start in range(3):
        # Also by a clock that was set back.
        renew_tokens(tokens, tmp_path, "n1", T0 - start)
        node, admin = bearers(engine, tmp_path)
        assert node is not None and admin is not None
        assert (node.node_id, node.role, admin.node_id, admin.role) == ("n1", None, None, Role.ADMIN)
        assert [tokens.bearer_of(parse_token(text)) for text in earlier] == [None] * len(earlier)
        earlier += [(tmp_path / name).read_text().strip() for name in ("node.token", "admin.token")]
    rows = {row.bearer.token_id for row in tokens.page()[0]}
    assert rows == {anna.token_id, node.token_id, admin.token_id}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.glob("*.token"))


def test_a_folder_that_cannot_be_written_leaves_the_tokens_of_before(engine: Engine, tmp_path: Path) -> None:
    tokens = Tokens(engine)
    renew_tokens(tokens, tmp_path, "n1", T0)
    before = bearers(engine, tmp_path)
    kept = (tmp_path / "admin.token").read_text()
    (tmp_path / "admin.token").unlink()
    (tmp_path / "admin.token" / "x").mkdir(parents=True)
    with pytest.raises(Unavailable, match=r"admin\.token"):
        renew_tokens(tokens, tmp_path, "n1", T0)
    assert tokens.bearer_of(parse_token(kept.strip())) == before[1]
    # As the next start finds it; what was made and never written goes with the others.
    (tmp_path / "admin.token" / "x").rmdir()
    (tmp_path / "admin.token").rmdir()
    renew_tokens(tokens, tmp_path, "n1", T0)
    assert None not in bearers(engine, tmp_path)
    assert len(tokens.page()[0]) == 2

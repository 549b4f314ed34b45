"""`nodeagent pool` on real disks: what it says of each, and what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nodeagent.cli import pool_view
from nodeagent.cli.main import main
from nodeagent.infra.disk_notes import DiskNotes
from nodeagent.infra.disks import read_marker
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.storage import Storage, init_pool
from tests.support.disks import mounted_disk, mounted_tmpfs

MODEL = '[[models]]\nname = "m"\nfile = "m.toml"\n'


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["pool", *args])


def a_config(folder: Path, text: str = "") -> Path:
    config = folder / "nodeagent.toml"
    (folder / "state").mkdir(exist_ok=True)
    config.write_text(f'[node]\nnode_id = "n1"\nstate_dir = "{folder / "state"}"\n{MODEL}{text}')
    return config


def states(config: Path) -> dict[str, str]:
    rows = json.loads(run("list", "--json", "-c", str(config)).stdout)
    return {Path(row["path"]).name: row["state"] for row in rows}


def test_list_counts_what_is_used(tmp_path: Path) -> None:
    config = a_config(tmp_path, f'[[pool]]\npath = "{tmp_path / "a"}"\nreserve_gb = 0\n')
    init_pool(tmp_path / "a")
    folder = Storage(load_settings(config).pools).folder_for("cam", 10**18, "analyse")
    (folder / "x.mp4").write_bytes(b"x" * 1234)
    (row,) = json.loads(run("list", "--json", "-c", str(config)).stdout)
    assert (row["used"], row["state"], row["quota"]) == (1234, "ok", 100 * 2**30)


def test_list_names_each_disk_with_its_state(tmp_path: Path) -> None:
    names = ["well", "away", "aside", "full", "old"]
    blocks = [
        f'[[pool]]\npath = "{tmp_path / name}"\nreserve_gb = {900_000 if name == "full" else 0}\n' for name in names
    ]
    config = a_config(tmp_path, "".join(blocks))
    for name in names:
        if name != "away":
            init_pool(tmp_path / name)
    assert run("retire", "-c", str(config), str(tmp_path / "old")).exit_code == 0
    notes = DiskNotes(tmp_path / "state")
    notes.set_aside(tmp_path / "aside", "refused: Input/output error", (tmp_path / "state").stat().st_mtime_ns)
    notes.write_measured({tmp_path / "well": 0.0123}, {})
    expected = {"well": "ok", "away": "missing", "aside": "aside", "full": "full", "old": "retired"}
    assert states(config) == expected
    shown = run("list", "-c", str(config))
    assert shown.exit_code == 1
    assert "12.3 ms" in shown.stdout
    assert f"{tmp_path / 'aside'}: aside: refused: Input/output error" in shown.stdout
    assert "it is empty and can be removed" in shown.stdout


def test_a_disk_that_hangs_does_not_hang_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_view, "PATIENCE_S", 0.2)
    with mounted_disk(tmp_path / "sick") as sick:
        init_pool(sick.folder)
        sick.freeze()
        checked = run("check", str(sick.folder))
        sick.thaw()
    assert checked.exit_code == 1
    assert checked.stderr.startswith(f"{sick.folder}: write and sync: no answer for 0.2 s")


def test_check_tries_everything_and_leaves_nothing(tmp_path: Path) -> None:
    init_pool(tmp_path / "well")
    (tmp_path / "bare").mkdir()
    before = sorted((tmp_path / "well").iterdir())
    good = run("check", str(tmp_path / "well"))
    assert good.exit_code == 0
    assert "MB/s written and synced" in good.stdout
    assert sorted((tmp_path / "well").iterdir()) == before
    with mounted_tmpfs(tmp_path / "small", "2m") as small:
        init_pool(small)
        both = run("check", str(tmp_path / "well"), str(small), str(tmp_path / "bare"))
        assert [path.name for path in small.iterdir()] == [".nodeagent-pool"]
    assert both.exit_code == 1
    full, bare = both.stderr.splitlines()
    assert full == f"{small}: write and sync: No space left on device"
    assert bare.startswith(f"{tmp_path / 'bare'}: no marker .nodeagent-pool")


def test_add_puts_a_disk_at_the_end_of_the_file_and_leaves_the_rest(tmp_path: Path) -> None:
    config = a_config(tmp_path, '# a comment\n[redis]\nurl = "redis://:s3cret@localhost" # kept\n')
    config.chmod(0o640)
    before = config.read_text()
    new = tmp_path / "new disk"
    added = run("add", "-c", str(config), str(new), "--quota-gb", "7")
    assert (added.exit_code, "no agent is running" in added.stdout) == (0, True)
    assert "s3cret" not in added.output
    assert config.read_text().startswith(before)
    assert config.stat().st_mode & 0o777 == 0o640
    pools = load_settings(config).pools
    # The folder that was the pool by default stays in it.
    assert [(pool.path, pool.quota_gb) for pool in pools] == [(tmp_path / "state" / "pool", 100.0), (new, 7.0)]
    assert read_marker(new) is not None
    text = config.read_text()
    assert run("add", "-c", str(config), str(new)).exit_code == 0
    assert config.read_text() == text
    assert run("add", "-c", str(config), str(new), "--quota-gb", "8").exit_code == 2


def test_what_cannot_be_added_changes_nothing(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    before = config.read_text()
    refused = run("add", "-c", str(config), str(tmp_path / "new"), "--quota-gb", "-1")
    assert refused.exit_code == 2
    assert "quota_gb" in refused.stderr
    inline = f'pool = [{{ path = "{tmp_path / "a"}" }}]\n{before}'
    config.write_text(inline)
    assert run("add", "-c", str(config), str(tmp_path / "new")).exit_code == 2
    assert config.read_text() == inline
    assert sorted(path.name for path in tmp_path.iterdir() if "toml" in path.name) == ["nodeagent.toml"]


def test_a_retired_disk_comes_back_by_add(tmp_path: Path) -> None:
    config = a_config(tmp_path, f'[[pool]]\npath = "{tmp_path / "a"}"\nreserve_gb = 0\n')
    assert run("retire", "-c", str(config), str(tmp_path / "a")).exit_code == 1
    identity = init_pool(tmp_path / "a")
    assert run("retire", "-c", str(config), str(tmp_path / "b")).exit_code == 2
    assert run("retire", "-c", str(config), str(tmp_path / "a")).exit_code == 0
    assert states(config) == {"a": "retired"}
    assert run("add", "-c", str(config), str(tmp_path / "a")).exit_code == 0
    assert states(config) == {"a": "ok"}
    assert Storage(load_settings(config).pools).folder_for("cam", 10**18).is_relative_to(tmp_path / "a")
    marker = read_marker(tmp_path / "a")
    assert marker is not None
    assert marker.pool_id == identity

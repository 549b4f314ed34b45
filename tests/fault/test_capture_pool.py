"""Disks that come and go while a camera records: no process is started anew."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from nodeagent.cli.main import main
from nodeagent.infra.storage import init_pool
from tests.support.eventually import eventually
from tests.support.media import make_video
from tests.support.recording import RecordingNode, camera_toml


def pool(node: RecordingNode, command: str, *args: str) -> None:
    done = CliRunner().invoke(main, ["pool", command, "-c", str(node.agent.config_path), *args])
    assert done.exit_code == 0, done.output


def newest_on(node: RecordingNode, disk: Path) -> bool:
    clips = node.clips("cam")
    return bool(clips) and clips[-1].path.is_relative_to(disk)


def test_a_disk_is_added_and_retired_while_a_camera_records(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", fps=10, gop=10, seconds=10)
    camera = camera_toml("cam", str(video)).replace(" }", ", loop = true }")
    with RecordingNode("clip_s = 1") as node:
        node.configure({"cam": camera})
        pid = node.capturing("cam")
        first, new = node.folder / "pool", node.folder / "new"
        eventually(lambda: newest_on(node, first), within_s=15)
        init_pool(new)
        # As good as every hour is drawn for it.
        pool(node, "add", str(new), "--quota-gb", "900000", "--reserve-gb", "0")
        eventually(lambda: newest_on(node, new), within_s=15)
        pool(node, "retire", str(new))
        eventually(lambda: newest_on(node, first), within_s=15)
        assert any(clip.path.is_relative_to(new) for clip in node.clips("cam"))
        assert node.capturing("cam") == pid
        node.stop()
        assert {gap.reason.value for gap in node.gaps("cam")} <= {"start"}

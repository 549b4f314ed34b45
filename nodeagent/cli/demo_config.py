"""The demo's configuration: the shipped clip and model, or the reader's own, on the embedded services.

Written as TOML into the demo's folder, so that the agent under it is started just as an operator would start it and the
reader can look at what was run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

#: The clip and model that come with the package.
MATERIAL = Path(__file__).resolve().parents[1] / "demo"
CLIP = MATERIAL / "crossing.mp4"
MODEL = MATERIAL / "person_demo.toml"

#: Zones of the shipped clip, normalised.  The path to the left is closed by tape and cones; the first person walks into
#: it 17.6 s after the clip's start, so that the replay's 15 s before it are on disk.
CLOSED_PATH = ((0.00, 0.36), (0.33, 0.33), (0.33, 0.55), (0.00, 0.60))
#: The lawn in front, entered 52.8 s after the clip's start.
LAWN = ((0.16, 0.72), (0.60, 0.72), (0.60, 0.99), (0.16, 0.99))
#: Where the two roads meet; people stop here to talk.
CORNER = ((0.84, 0.50), (0.99, 0.50), (0.99, 0.78), (0.84, 0.78))
#: The whole picture, for a reader's own camera.
EVERYWHERE = ((0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))

#: Space that the demo's clips may take, GiB.
DEMO_QUOTA_GB = 2.0
#: Space on the disk that the demo leaves alone, GiB.
DEMO_RESERVE_GB = 0.2


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What one run of the demo does.

    Attributes:
        folder: the one folder it writes to.
        seconds: how long the agent runs.
        cameras: how many cameras play the source.
        source: RTSP address or file of the reader's own; none: the shipped clip.
        model: description of the reader's own model; none: the shipped one.
        push_url: address of the local receiver.
        push_secret: key of the pushes' signature.
        registry: `address:port` of the registry inside.
        time_zone: IANA name for display.
    """

    folder: Path
    seconds: float
    cameras: int
    source: str | None
    model: Path | None
    push_url: str
    push_secret: str
    registry: str
    time_zone: str = "UTC"

    @property
    def config_path(self) -> Path:
        """The TOML that the agent is started with."""
        return self.folder / "nodeagent.toml"

    @property
    def state_dir(self) -> Path:
        """The agent's state folder."""
        return self.folder / "state"

    @property
    def pool_dir(self) -> Path:
        """The one disk of its storage pool."""
        return self.folder / "pool"


def _zone(name: str, polygon: tuple[tuple[float, float], ...]) -> str:
    return f"{{ name = {json.dumps(name)}, polygon = {json.dumps(polygon)} }}"


def _rules(shipped: bool) -> str:
    if not shipped:
        return f"""
  [[cameras.rules]]
  rule_id = "anything-seen"
  kind = "intrusion"
  zones = [{_zone("picture", EVERYWHERE)}]
"""
    return f"""
  [[cameras.rules]]
  rule_id = "closed-path"
  kind = "intrusion"
  severity = "critical"
  cooldown_s = 10.0
  storm_per_hour = 0
  zones = [{_zone("taped-off", CLOSED_PATH)}]

  [[cameras.rules]]
  rule_id = "keep-off-the-lawn"
  kind = "intrusion"
  cooldown_s = 10.0
  storm_per_hour = 0
  zones = [{_zone("lawn", LAWN)}]

  [[cameras.rules]]
  rule_id = "standing-about"
  kind = "loitering"
  dwell_s = 8.0
  cooldown_s = 10.0
  storm_per_hour = 0
  zones = [{_zone("corner", CORNER)}]
"""


def demo_toml(plan: DemoPlan) -> str:
    """The TOML text of a demo run."""
    shipped = plan.source is None
    source = str(CLIP) if plan.source is None else plan.source
    is_file = "://" not in source
    parts = [
        f"""# Written by `nodeagent demo`.  No [bus], [redis] or [database]: the embedded ones are used.
[site]
name = "demo"
time_zone = {json.dumps(plan.time_zone)}

[node]
node_id = "demo"
state_dir = {json.dumps(str(plan.state_dir))}
stop_timeout_s = 15

[[pool]]
path = {json.dumps(str(plan.pool_dir))}
quota_gb = {DEMO_QUOTA_GB}
reserve_gb = {DEMO_RESERVE_GB}

[alarm]
evidence_dir = {json.dumps(str(plan.folder / "alarms"))}

[[models]]
name = "demo"
file = {json.dumps(str(plan.model or MODEL))}

[[push]]
name = "demo-receiver"
url = {json.dumps(plan.push_url)}
secret = {json.dumps(plan.push_secret)}

[registry]
inside = true
listen = {json.dumps(plan.registry)}
"""
    ]
    for number in range(1, plan.cameras + 1):
        stream = f"{{ url = {json.dumps(source)}{', loop = true' if is_file else ''} }}"
        parts.append(
            f"""
[[cameras]]
camera_id = "cam{number}"
name = "Crossing {number}"
record = {stream}
"""
            # The last one shows a main stream that is only recorded beside a sub-stream that is analysed.
            + (f"analyse = {stream}\n" if shipped and 1 < number == plan.cameras else "")
            + _rules(shipped)
        )
    return "".join(parts)

"""The files of the demo: who runs, where, and with which configuration.  Pure.

Two registries share one SQLite and one key file, two agents share one Redis for ownership.  An agent without `[bus]`
has its messages in that Redis too; clips and detections lie in queues of their own node there, and only alarms in one
for all.  An alarm's replay is cut where its clips are, so the demo's cameras have no rules, and there are no alarms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Names of the registries and of the nodes.
REGISTRIES = ("registry-1", "registry-2")
NODES = ("node-a", "node-b")
#: Space that the clips of one node may take, GiB.
QUOTA_GB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run of the demo.

    Attributes:
        folder: the one folder that it writes to.
        material: folder of the shipped clip and model.
        cameras: how many cameras play the clip.
        ports: of each registry.
        redis_socket: where Redis listens.
    """

    folder: Path
    material: Path
    cameras: int
    ports: Mapping[str, int]
    redis_socket: Path

    @property
    def camera_ids(self) -> tuple[str, ...]:
        """The cameras."""
        return tuple(f"cam{number}" for number in range(1, self.cameras + 1))

    @property
    def urls(self) -> tuple[str, ...]:
        """Addresses of the registries."""
        return tuple(f"http://127.0.0.1:{self.ports[name]}" for name in REGISTRIES)

    def config_of(self, program: str) -> Path:
        """The TOML of a registry or a node."""
        return self.folder / f"{program}.toml"

    def state_of(self, program: str) -> Path:
        """State folder of a registry or a node."""
        return self.folder / program

    def pool_of(self, node: str) -> Path:
        """The disk of a node's storage pool."""
        return self.folder / "pools" / node

    @property
    def token_file(self) -> Path:
        """The token with which the demo asks the registries."""
        return self.folder / "admin.token"

    @property
    def cameras_file(self) -> Path:
        """What `registry import` is given."""
        return self.folder / "cameras.toml"

    @property
    def redis_url(self) -> str:
        """URL of the one Redis."""
        return f"unix://{self.redis_socket}"


def registry_toml(plan: Plan, name: str) -> str:
    """The TOML of one registry."""
    return f"""# Written by `registry demo-cluster`.
[registry]
registry_id = {json.dumps(name)}
host = "127.0.0.1"
port = {plan.ports[name]}
state_dir = {_text(plan.state_of(name))}

[database]
url = {json.dumps(f"sqlite:///{plan.folder / 'site.db'}")}

[redis]
url = {json.dumps(plan.redis_url)}

[secrets]
key_file = {_text(plan.folder / "credentials.keys")}
"""


def agent_toml(plan: Plan, node: str, token: str) -> str:
    """The TOML of one agent; its `token` opens the registries for this node only."""
    return f"""# Written by `registry demo-cluster`.
[site]
name = "demo-cluster"

[node]
node_id = {json.dumps(node)}
state_dir = {_text(plan.state_of(node))}
stop_timeout_s = 10

[redis]
url = {json.dumps(plan.redis_url)}

[registry]
urls = {_list(plan.urls)}
token = {json.dumps(token)}

[[pool]]
path = {_text(plan.pool_of(node))}
quota_gb = {QUOTA_GB}
reserve_gb = 0.2

[alarm]
evidence_dir = {_text(plan.folder / "alarms" / node)}

[[models]]
name = "demo"
file = {_text(plan.material / "person_demo.toml")}
"""


def cameras_toml(plan: Plan) -> str:
    """The cameras: each plays the shipped clip again and again."""
    clip = _text(plan.material / "crossing.mp4")
    return "".join(
        f'[[cameras]]\ncamera_id = "{camera}"\nname = "Crossing {camera}"\nrecord = {{ url = {clip}, loop = true }}\n\n'
        for camera in plan.camera_ids
    )


def _text(path: Path) -> str:
    return json.dumps(str(path))


def _list(texts: Sequence[str]) -> str:
    return json.dumps(list(texts))

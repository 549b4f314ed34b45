"""Sections of the agent's TOML, as frozen models.

Every field carries a `#:` line: `docs/configuration.md` is generated from them and a test keeps the two in step.
Relative paths are relative to the TOML file; the loader makes them absolute before they get here.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, SecretStr, field_validator

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.ids import FrozenStrict, ModelName, NodeId, Number, Whole
from nodeagent.contract.schedule import Calendar
from nodeagent.contract.url import check_url
from nodeagent.infra.redis_url import check_redis_url
from nodeagent.infra.settings.endpoint import EndpointSettings, PeerSettings
from nodeagent.infra.settings.registry import ADMINS_FILE, NODES_FILE, RegistrySettings

GIB = 1024**3
#: Words in the names of queues that all nodes share, such as `clips.spill` and `clips.retry.5` (`infra.bus`).
SHARED_WORDS = frozenset({"spill", "late", "dead", "retry", "back"})


def _host_id() -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in socket.gethostname())
    return name.lstrip("_.-")[:63] or "node"


class SiteSettings(FrozenStrict):
    """`[site]`: the place that all nodes of a system share."""

    #: Name shown in reports and pushes.
    name: str = "site"
    #: IANA time zone of display, reports and schedules; storage and messages are in UTC.
    time_zone: str = "UTC"

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError("expected an IANA time zone such as Asia/Shanghai") from exc
        return name


class NodeSettings(FrozenStrict):
    """`[node]`: this server."""

    #: Name of this node, unique in the site; the host's name when left out.
    node_id: NodeId = Field(default_factory=_host_id, validate_default=True)
    #: Folder of journals, snapshots and embedded services.  One agent at a time may use it.
    state_dir: Path = Path("/var/lib/nodeagent")
    #: Seconds that children have to drain after TERM before they are killed.
    stop_timeout_s: Annotated[Number, Field(ge=1, le=600)] = 20.0

    @field_validator("node_id")
    @classmethod
    def _no_shared_queue(cls, node_id: str) -> str:
        # The node's own queue is `clips.<node_id>`; it must not be one of those.
        if node_id.partition(".")[0] in SHARED_WORDS:
            words = ", ".join(sorted(SHARED_WORDS))
            raise ValueError(f"expected another name: queues that all nodes share are called {words}")
        return node_id


def _amqp(url: SecretStr) -> SecretStr:
    form = "amqp://user:password@host:5672/vhost or amqps://..."
    check_url(url.get_secret_value(), form, ("amqp", "amqps"))
    return url


#: URL of a RabbitMQ.
BrokerUrl = Annotated[SecretStr, AfterValidator(_amqp)]


class BusSettings(FrozenStrict):
    """`[bus]`: the broker between the stages.  Left out: Redis Streams on the Redis of `[redis]`."""

    #: amqp://user:password@host:5672/vhost or amqps://...
    url: BrokerUrl
    #: Seconds between AMQP heartbeats; two missed ones close the connection.
    heartbeat_s: Annotated[Whole, Field(ge=2, le=600)] = 10
    #: Seconds after which an unconfirmed publish counts as failed.
    confirm_timeout_s: Annotated[Number, Field(gt=0, le=120)] = 10.0


class RedisSettings(FrozenStrict):
    """`[redis]`: live state.  Left out: a private Redis in the state folder, run by the agent."""

    #: redis://:password@host:6379/0, rediss://... for TLS, unix:///path, or, for a server that Sentinels choose,
    #: redis+sentinel://:password@host:26379,host:26379/service/0.
    url: SecretStr

    @field_validator("url")
    @classmethod
    def _redis(cls, url: SecretStr) -> SecretStr:
        check_redis_url(url.get_secret_value())
        return url


class DatabaseSettings(FrozenStrict):
    """`[database]`: alarms and their pushes.  Left out: SQLite in the state folder."""

    #: mysql://user:password@host:3306/name, or sqlite:////path.
    url: SecretStr

    @field_validator("url")
    @classmethod
    def _known(cls, url: SecretStr) -> SecretStr:
        form = "mysql://user:password@host:3306/name or sqlite:////path"
        check_url(url.get_secret_value(), form, ("mysql", "mysql+pymysql", "sqlite"))
        return url


class PoolSettings(FrozenStrict):
    """`[[pool]]`: one disk of the storage pool.  None given: the folder `pool` in the state folder."""

    #: Mount point or folder that `nodeagent pool init` has marked.
    path: Path
    #: Space that clips may take, GiB; the oldest go first.
    quota_gb: Annotated[Number, Field(gt=0, le=1_000_000)] = 100.0
    #: Space on the disk that stays free whatever the quota says, GiB.
    reserve_gb: Annotated[Number, Field(ge=0, le=1_000_000)] = 1.0


class RetentionSettings(FrozenStrict):
    """`[[retention]]`: how long clips of a class of cameras stay.

    Cameras that name no class are of the one called `default`; when it is not given, their clips of the main stream go
    by space alone.
    """

    #: Name by which cameras choose it.
    name: ModelName
    #: Days after which clips of the main stream go, whatever space there is.  0: only when a disk is short of it.
    days: Annotated[Number, Field(ge=0, le=36_500)] = 0.0
    #: Hours after which clips of the sub-stream go.
    analyse_hours: Annotated[Number, Field(ge=1, le=876_000)] = 24.0
    #: How long clips stay when a disk is short of space, relative to other classes: with 2 twice as long as with 1.
    weight: Annotated[Number, Field(ge=0.01, le=1000)] = 1.0


class CaptureSettings(FrozenStrict):
    """`[capture]`: what all cameras share."""

    #: Length that clips aim at, seconds; they are cut at the key frame nearest to this grid.
    clip_s: Annotated[Number, Field(ge=1, le=60)] = 5.0
    #: Seconds without a packet of video after which the source is opened anew.  HLS, whose packets come a segment at a
    #: time, waits for 30 at least.
    stall_timeout_s: Annotated[Number, Field(ge=0.5, le=120)] = 4.0
    #: First delay before a source is opened anew, seconds; doubles, with jitter, up to `reconnect_max_s`.
    reconnect_min_s: Annotated[Number, Field(ge=0.05, le=60)] = 0.5
    #: Longest delay before a source is opened anew, seconds.
    reconnect_max_s: Annotated[Number, Field(ge=0.1, le=600)] = 15.0
    #: Seconds of samples that the ring holds: a clip, its wait in the queue, and its work.
    ring_s: Annotated[Number, Field(ge=6, le=300)] = 15.0
    #: Device that decodes, by FFmpeg's name of its type: `cuda`, `qsv`, `vaapi`, `drm`, `amf`.  Empty: software.  A
    #: device that cannot be used is told in `nodeagent status`, and software decodes.
    hardware_decode: Literal["", "cuda", "qsv", "vaapi", "drm", "amf"] = ""


class ModelSettings(FrozenStrict):
    """`[[models]]`: one model.  The first one serves cameras that name none."""

    #: Name by which cameras choose it.
    name: ModelName
    #: The model's own TOML, beside its ONNX file.
    file: Path


class InferenceSettings(FrozenStrict):
    """`[inference]`: workers that turn clips into detections."""

    #: Worker processes.
    workers: Annotated[Whole, Field(ge=1, le=64)] = 1
    #: Engine that runs the models.
    engine: Literal["onnxruntime"] = "onnxruntime"
    #: Threads of one worker's engine.
    threads: Annotated[Whole, Field(ge=1, le=128)] = 1
    #: Samples per engine call.
    batch: Annotated[Whole, Field(ge=1, le=64)] = 4


class JudgeSettings(FrozenStrict):
    """`[judge]`: workers that track objects and judge rules."""

    #: Worker processes; cameras are spread over them by a hash of their id.
    shards: Annotated[Whole, Field(ge=1, le=64)] = 1
    #: Seconds to wait for a missing clip once a later one of the same camera is here; then it is a gap.
    reorder_wait_s: Annotated[Number, Field(ge=0.1, le=300)] = 25.0


class AlarmSettings(FrozenStrict):
    """`[alarm]`: replay, push and record."""

    #: Worker processes.
    workers: Annotated[Whole, Field(ge=1, le=64)] = 1
    #: Seconds of replay before the confirming sample.
    replay_before_s: Annotated[Number, Field(ge=0, le=300)] = 15.0
    #: Seconds of replay after the confirming sample.
    replay_after_s: Annotated[Number, Field(ge=0, le=300)] = 15.0
    #: Seconds past the window's end to wait for its clips; then the replay is partial and says so.
    replay_patience_s: Annotated[Number, Field(ge=1, le=600)] = 30.0
    #: Folder of replays and snapshots; the folder `alarms` in the state folder when left out.
    evidence_dir: Path | None = None


class PushSettings(FrozenStrict):
    """`[[push]]`: one HTTP target that every alarm is sent to."""

    #: Name in records and logs.
    name: ModelName
    #: http://... or https://...; receives one POST with JSON per alarm.
    url: SecretStr
    #: Key of the HMAC-SHA256 signature in the header `X-Nodeagent-Signature`; empty: unsigned.
    secret: SecretStr = SecretStr("")
    #: Seconds for one attempt in all.
    timeout_s: Annotated[Number, Field(gt=0, le=120)] = 10.0

    @field_validator("url")
    @classmethod
    def _http(cls, url: SecretStr) -> SecretStr:
        check_url(url.get_secret_value(), "http://... or https://... with a host", ("http", "https"))
        return url


class LogSettings(FrozenStrict):
    """`[log]`: what is written to standard error, where systemd's journal takes it."""

    #: Least level that is written.
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: `text` for people, `json` for machines: one object a line.
    format: Literal["text", "json"] = "text"


class Settings(FrozenStrict):
    """The whole file.

    What must agree between sections (names that differ, references that lead somewhere) is checked by `crosscheck` on
    the document, so that it is named beside all other faults.
    """

    site: SiteSettings = SiteSettings()
    node: NodeSettings = Field(default_factory=NodeSettings)
    bus: BusSettings | None = None
    redis: RedisSettings | None = None
    database: DatabaseSettings | None = None
    pool: tuple[PoolSettings, ...] = ()
    retention: tuple[RetentionSettings, ...] = ()
    capture: CaptureSettings = CaptureSettings()
    models: tuple[ModelSettings, ...] = ()
    inference: InferenceSettings = InferenceSettings()
    judge: JudgeSettings = JudgeSettings()
    alarm: AlarmSettings = AlarmSettings()
    push: tuple[PushSettings, ...] = ()
    endpoint: EndpointSettings | None = None
    peers: tuple[PeerSettings, ...] = ()
    registry: RegistrySettings | None = None
    log: LogSettings = LogSettings()
    calendars: tuple[Calendar, ...] = ()
    cameras: tuple[CameraSpec, ...] = ()

    @property
    def evidence_dir(self) -> Path:
        """Folder of replays and snapshots."""
        return self.alarm.evidence_dir or self.node.state_dir / "alarms"

    @property
    def pools(self) -> tuple[PoolSettings, ...]:
        """The disks of the pool, the default one when none is given."""
        return self.pool or (PoolSettings(path=self.node.state_dir / "pool"),)

    @property
    def embedded_redis(self) -> bool:
        """Whether the agent runs a Redis of its own."""
        return self.redis is None

    @property
    def registry_inside(self) -> bool:
        """Whether the agent runs a registry of its own."""
        return self.registry is not None and self.registry.inside

    @property
    def registry_dir(self) -> Path:
        """Folder of the registry inside."""
        return self.node.state_dir / "registry"

    @property
    def node_door(self) -> RegistrySettings | None:
        """How this node asks its registries; none: it has none."""
        return None if self.registry is None else self.registry.door(self.registry_dir / NODES_FILE)

    @property
    def admin_door(self) -> RegistrySettings | None:
        """As `node_door`, for people on this machine; of registries elsewhere it knows the node's token only."""
        return None if self.registry is None else self.registry.door(self.registry_dir / ADMINS_FILE)

    @property
    def redis_url(self) -> str:
        """URL of the Redis in use, with its password."""
        if self.redis is not None:
            return self.redis.url.get_secret_value()
        return f"unix://{self.node.state_dir / 'redis' / 'redis.sock'}"

    @property
    def database_url(self) -> str:
        """URL of the database in use, with its password."""
        if self.database is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.node.state_dir / 'nodeagent.db'}"

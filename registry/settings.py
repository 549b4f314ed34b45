"""The registry's TOML: what may stand in it, as frozen models, and how it is read.

Every field carries a `#:` line: `docs/configuration.md` is generated from them and a test keeps the two in step.  A
faulty file gives one ConfigError that names all of its faults.  Relative paths are relative to the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from nodeagent.contract.errors import Fault
from nodeagent.contract.ids import FrozenStrict, NodeId, Number, Switch, Whole
from nodeagent.contract.ownership import LEASE_S, REPORT_S
from nodeagent.infra.settings.document import make_absolute, parse_toml, read_text, validated
from nodeagent.infra.settings.sections import BrokerUrl, DatabaseSettings, LogSettings, NodeSettings, RedisSettings

#: Where the packages' service looks for its configuration.
DEFAULT_PATH: Final = Path("/etc/nodeagent/registry.toml")
#: Environment variable that names another file.
PATH_VARIABLE: Final = "REGISTRY_CONFIG"
#: Fields that hold a path, as `make_absolute` wants them.
PATH_FIELDS: Final = frozenset({"registry.state_dir", "secrets.key_file", "tls.certificate", "tls.key"})


def _host_id() -> str:
    # As an agent on this host calls itself.
    return NodeSettings.model_construct().node_id


class RegistrySection(FrozenStrict):
    """`[registry]`: this registry."""

    #: Name of this registry, unique in the site; the host's name when left out.
    registry_id: NodeId = Field(default_factory=_host_id, validate_default=True)
    #: Address to listen on.  `0.0.0.0` or `::` takes requests of other hosts, whose tokens and credentials anybody on
    #: the way can read without `[tls]`.
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    #: Port to listen on.
    port: Annotated[Whole, Field(ge=1, le=65_535)] = 8450
    #: Folder of the key file, and of SQLite where no other database is given.  One registry at a time may use it.
    state_dir: Path = Path("/var/lib/nodeagent-registry")


class WitnessSettings(FrozenStrict):
    """`[bus]`: the agents' RabbitMQ.  It is asked for silent nodes only.  Left out: Redis alone is."""

    #: amqp://user:password@host:5672/vhost or amqps://...  A user that may read the queues will do.
    url: BrokerUrl


class StateSettings(FrozenStrict):
    """`[state]`: where it is kept who owns which camera now."""

    #: `redis`: in the Redis of `[redis]`, shared by any number of registries.  `memory`: in this process, for a site
    #: with one registry; a Redis only carries broadcasts then.  Left out: `redis` where `[redis]` is given, else
    #: `memory`.
    mode: Literal["redis", "memory"] | None = None


class SecretsSettings(FrozenStrict):
    """`[secrets]`: the keys with which stream credentials are encrypted in the database."""

    #: File of the keys, mode 0600; `credentials.keys` in the state folder when left out.  It is made at the first
    #: start; a second registry of the site needs a copy.  Without it the credentials of all cameras are lost: keep it
    #: with the backups, and not beside those of the database.
    key_file: Path | None = None


class TlsSettings(FrozenStrict):
    """`[tls]`: HTTPS.  Left out: HTTP."""

    #: Certificate chain, PEM.
    certificate: Path
    #: Key of the certificate, PEM, without a password.
    key: Path


class MembershipSettings(FrozenStrict):
    """`[membership]`: when a node is taken for dead."""

    #: Seconds without a report after which a node is dead and its cameras go elsewhere.  It reports every second.
    lease_s: Annotated[Number, Field(ge=2 * REPORT_S, le=300)] = LEASE_S
    #: Seconds at most for which nothing is taken from silent nodes when so many fall silent together that it is the
    #: registry that cannot hear.
    freeze_s: Annotated[Number, Field(ge=0, le=3600)] = 60.0
    #: Seconds of silence after which a node loses its cameras even so, when nobody else hears of it: it renews nothing
    #: in Redis and, where `[bus]` is given, consumes nothing in RabbitMQ.
    witness_s: Annotated[Number, Field(ge=2 * REPORT_S, le=3600)] = 15.0


class PlacementSettings(FrozenStrict):
    """`[placement]`: which node gets a camera."""

    #: `broadcast`: the registry gives cameras to the least loaded nodes.  `claim`: nodes take them from the task pool,
    #: the lighter ones first; it needs `state.mode = "redis"`.  Agents name the same one.
    strategy: Literal["broadcast", "claim"] = "broadcast"
    #: Move cameras of nodes that live, too, slowly, until the load is even again: after a node joined.
    rebalance: Switch = True
    #: Cameras that rebalancing moves per minute at most, percent of all.
    rebalance_percent_per_min: Annotated[Number, Field(gt=0, le=100)] = 1.0


class ServiceSettings(FrozenStrict):
    """The whole file."""

    registry: RegistrySection = Field(default_factory=RegistrySection)
    #: Cameras, rules, assignments, tokens; may be the agents' database.  Left out: SQLite in the state folder, which
    #: does for one registry.
    database: DatabaseSettings | None = None
    #: Who owns which camera, and broadcasts to agents; the agents' Redis.  Left out, which `state.mode = "memory"`
    #: alone allows: nothing is broadcast, and agents find out from the answers to their reports.
    redis: RedisSettings | None = None
    #: Where nodes that fall silent together are looked for besides: one that consumes there lives.  Left out where
    #: agents have no RabbitMQ.
    bus: WitnessSettings | None = None
    state: StateSettings = StateSettings()
    secrets: SecretsSettings = SecretsSettings()
    tls: TlsSettings | None = None
    membership: MembershipSettings = MembershipSettings()
    placement: PlacementSettings = PlacementSettings()
    log: LogSettings = LogSettings()

    @property
    def mode(self) -> Literal["redis", "memory"]:
        """Where it is kept who owns which camera now."""
        return self.state.mode or ("redis" if self.redis is not None else "memory")

    @property
    def database_url(self) -> str:
        """URL of the database in use, with its password."""
        if self.database is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.registry.state_dir / 'registry.db'}"

    @property
    def redis_url(self) -> str | None:
        """URL of the Redis in use, with its password; none: there is none."""
        return None if self.redis is None else self.redis.url.get_secret_value()

    @property
    def bus_url(self) -> str | None:
        """URL of the RabbitMQ in use, with its password; none: there is none."""
        return None if self.bus is None else self.bus.url.get_secret_value()

    @property
    def key_file(self) -> Path:
        """File of the keys of stream credentials."""
        return self.secrets.key_file or self.registry.state_dir / "credentials.keys"


def load_registry_settings(path: Path) -> ServiceSettings:
    """Read and check a registry's configuration file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has faults; lists them all.
    """
    return parse_registry_settings(read_text(path), path)


def parse_registry_settings(text: str, path: Path) -> ServiceSettings:
    """As `load_registry_settings`, from text; relative paths in it are relative to the folder of `path`."""
    doc = parse_toml(text, path)
    # A fault of the host's name, which is the default, belongs to `registry.registry_id` too.
    doc.setdefault("registry", {})
    make_absolute(doc, path.resolve().parent, PATH_FIELDS)
    return validated(ServiceSettings, doc, list(_cross_faults(doc)))


def _cross_faults(doc: dict[str, Any]) -> Iterator[Fault]:
    """Faults between sections, also when one of them is faulty itself."""
    state, placement = doc.get("state"), doc.get("placement")
    mode = state.get("mode") if isinstance(state, dict) else None
    if mode == "redis" and "redis" not in doc:
        yield Fault("redis.url", 'required with state.mode = "redis", but missing')
    in_memory = mode == "memory" or (mode is None and "redis" not in doc)
    if in_memory and isinstance(placement, dict) and placement.get("strategy") == "claim":
        yield Fault(
            "placement.strategy", 'expected "broadcast" in memory mode: `claim` needs the task pool in Redis', "'claim'"
        )

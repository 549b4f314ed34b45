"""`[registry]`: who decides which cameras this node serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator

from nodeagent.contract.ids import ID_PATTERN, FrozenStrict, Number, Switch
from nodeagent.contract.url import check_url
from nodeagent.infra.settings.endpoint import address_of, checked_listen, checked_token

#: Files that a registry inside writes for who asks it on its machine, mode 0600, in its folder: the tokens of the node
#: and of commands.
NODES_FILE: Final = "node.token"
ADMINS_FILE: Final = "admin.token"
#: Addresses that mean "every one of this machine", and how such a server is reached from within it.
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (nothing is bound here)

#: A word of placement, as a key or a value.
Label = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


class CapacitySettings(FrozenStrict):
    """`[registry.capacity]`: what the registry may count with on this node.  A figure that is 0 is measured."""

    #: CPU cores for capturing and decoding; 0: all of the machine.
    decode_cores: Annotated[Number, Field(ge=0, le=10_000)] = 0.0
    #: Samples that the node's inference looks at, per second; 0: measured, and not told before that.
    infer_per_s: Annotated[Number, Field(ge=0, le=10_000_000)] = 0.0
    #: Shared memory for rings, GiB; 0: what the machine has free for them.
    ring_gb: Annotated[Number, Field(ge=0, le=100_000)] = 0.0
    #: What the pool's disks take, MB per second; 0: 60 for each disk.
    write_mbytes_s: Annotated[Number, Field(ge=0, le=1_000_000)] = 0.0


class RegistrySettings(FrozenStrict):
    """`[registry]`: who decides which cameras this node serves.  Left out: the `[[cameras]]` of this file."""

    #: Run a registry within this agent, on its Redis and database, for a site with one server.  It takes the
    #: `[[cameras]]` of this file that it does not know yet; from then on they are edited over its API.
    inside: Switch = False
    #: `address:port` of a registry inside.  Any address but the loopback's takes requests of other hosts,
    #: whose tokens and credentials anybody on the way can read.
    listen: str = "127.0.0.1:8450"
    #: http://host:8450 or https://host:8450 of every registry; the node asks one, and the next when it is away.
    urls: Annotated[tuple[SecretStr, ...], Field(max_length=16)] = ()
    #: The node's token, as `registry token create` shows it.
    token: SecretStr | None = None
    #: File that holds the token instead; read again when it changes.
    token_file: Path | None = None
    #: Certificates to trust, PEM, when the registries' are none that the system trusts.
    ca_file: Path | None = None
    #: Words that cameras may ask for, such as `{ site = "north", gpu = "l4" }`.
    labels: Annotated[dict[Label, Label], Field(max_length=32)] = Field(default_factory=dict)
    #: See `[registry.capacity]`.
    capacity: CapacitySettings = CapacitySettings()
    #: `broadcast`: the registry gives cameras to nodes.  `claim`: nodes take them from the task pool.
    strategy: Literal["broadcast", "claim"] = "broadcast"

    _listen = field_validator("listen")(checked_listen)

    @field_validator("urls")
    @classmethod
    def _http(cls, urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for url in urls:
            check_url(url.get_secret_value(), "http://host:8450 or https://host:8450", ("http", "https"))
        return urls

    @field_validator("token")
    @classmethod
    def _token(cls, token: SecretStr | None) -> SecretStr | None:
        return token if token is None else checked_token(token)

    def door(self, token_file: Path) -> RegistrySettings:
        """How to ask a registry inside, whose token lies in this file; others are asked as the section says."""
        if not self.inside:
            return self
        host, port = address_of(self.listen)
        reached = _ANY.get(host, host)
        url = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
        return self.model_copy(update={"urls": (SecretStr(url),), "token_file": token_file})

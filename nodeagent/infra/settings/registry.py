"""`[registry]`: who decides which cameras this node serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator

from nodeagent.contract.ids import ID_PATTERN, FrozenStrict, Number
from nodeagent.contract.url import check_url
from nodeagent.infra.settings.endpoint import checked_token

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

    #: http://host:8450 or https://host:8450 of every registry; the node asks one, and the next when it is away.
    urls: Annotated[tuple[SecretStr, ...], Field(min_length=1, max_length=16)]
    #: The node's token, as `registry token create` shows it.
    token: SecretStr | None = None
    #: File that holds the token instead; read again when the registry refuses it.
    token_file: Path | None = None
    #: Certificates to trust, PEM, when the registries' are none that the system trusts.
    ca_file: Path | None = None
    #: Words that cameras may ask for, such as `{ site = "north", gpu = "l4" }`.
    labels: Annotated[dict[Label, Label], Field(max_length=32)] = Field(default_factory=dict)
    #: See `[registry.capacity]`.
    capacity: CapacitySettings = CapacitySettings()
    #: `broadcast`: the registry gives cameras to nodes.  `claim`: nodes take them from the task pool.
    strategy: Literal["broadcast", "claim"] = "broadcast"

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

"""A camera's URLs, taken apart for the database and put together for who may see them.

The whole URL is encrypted, not only its password: cameras hide passwords in parameters, and in ways that no rule tells
from the rest.  Beside it stands the redacted URL, which everybody may see, and which a client may send back unchanged
to leave the secret as it is.  Changed in any way it is no redacted URL of ours: a password must not be sent to another
host because somebody edited the host alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import SecretStr
from sqlalchemy import Row

from nodeagent.contract.camera import CameraSpec, StreamSpec, redact_url
from nodeagent.contract.errors import Fault
from nodeagent.contract.kept import is_masked, why_no_url
from registry.secrets import Unreadable, Vault
from registry.store.camera_record import stored_spec
from registry.store.errors import Invalid

StreamName = Literal["record", "analyse"]
#: Names of a camera's streams.
STREAMS: Final[tuple[StreamName, ...]] = ("record", "analyse")
_UNREADABLE: Final = "its secret cannot be decrypted any more; expected the whole URL, user and password included"


@dataclass(frozen=True, slots=True)
class Apart:
    """A spec as the database keeps it.

    Attributes:
        spec: JSON, URLs redacted.
        sealed: JSON object, by name of the stream: the encrypted URL; none: no URL holds a secret.
        key_id: which key encrypted; none as well.
        secrets_changed: whether any URL differs in what its redacted form does not show.
    """

    spec: str
    sealed: str | None
    key_id: str | None
    secrets_changed: bool


@dataclass(frozen=True, slots=True)
class KnownUrl:
    """A URL of a row.

    Attributes:
        shown: redacted.
        clear: whole; none: it cannot be decrypted.
    """

    shown: str
    clear: str | None = field(repr=False)


def take_apart(spec: CameraSpec, before: Mapping[StreamName, KnownUrl], vault: Vault) -> Apart:
    """What to write for a spec; a secret that is given as `***` is taken from the URLs before.

    Raises:
        Invalid: a URL cannot be kept (`contract.kept`), and is not the one before, or that one cannot be decrypted.
    """
    given = {name: url_of(spec, name) for name in STREAMS}
    clear: dict[StreamName, str] = {}
    faults: list[Fault] = []
    for name, url in given.items():
        if url is None:
            continue
        known = before.get(name)
        if is_masked(url) and known is not None and known.shown == url:
            if known.clear is None:
                faults.append(Fault(f"{name}.url", _UNREADABLE))
            else:
                clear[name] = known.clear
        elif why := why_no_url(url):
            faults.append(Fault(f"{name}.url", why))
        else:
            clear[name] = url
    if faults:
        raise Invalid(faults)
    sealed = {name: vault.seal(url, spec.camera_id, name) for name, url in clear.items() if redact_url(url) != url}
    return Apart(
        spec=spec.model_dump_json(),
        sealed=json.dumps(sealed) if sealed else None,
        key_id=vault.newest if sealed else None,
        secrets_changed=any(
            known.clear != clear.get(name) and known.shown == redact_url(clear.get(name, ""))
            for name, known in before.items()
        ),
    )


def put_together(row: Row[Any], vault: Vault) -> CameraSpec:
    """The spec of a row of the table `camera`, URLs in clear.

    Raises:
        Unreadable: a URL cannot be decrypted.
        DecodeError: somebody else wrote into the table.
    """
    spec = stored_spec(row)
    changed: dict[str, StreamSpec] = {}
    for name, sealed in _sealed(row).items():
        stream = spec.record if name == "record" else spec.analyse
        if stream is not None:
            url = SecretStr(vault.unseal(sealed, spec.camera_id, name))
            changed[name] = stream.model_copy(update={"url": url})
    return spec.model_copy(update=changed)


def sealed_anew(row: Row[Any], vault: Vault) -> str:
    """What a row that holds credentials keeps of them when the newest key encrypts.

    Raises:
        Unreadable: one cannot be decrypted.
    """
    return json.dumps(
        {
            name: vault.seal(vault.unseal(sealed, row.camera_id, name), row.camera_id, name)
            for name, sealed in _sealed(row).items()
        }
    )


def url_of(spec: CameraSpec, name: StreamName) -> str | None:
    """A stream's URL as the spec has it; none: there is no such stream."""
    stream = spec.record if name == "record" else spec.analyse
    return None if stream is None else stream.url.get_secret_value()


def known_urls(row: Row[Any], spec: CameraSpec, vault: Vault) -> dict[StreamName, KnownUrl]:
    """The URLs of a row of the table `camera` whose spec, as it is stored, is `spec`."""
    shown = {name: url for name in STREAMS if (url := url_of(spec, name)) is not None}
    return {name: KnownUrl(url, _clear(row, name, url, vault)) for name, url in shown.items()}


def _clear(row: Row[Any], name: StreamName, shown: str, vault: Vault) -> str | None:
    """A URL in clear; None when it cannot be decrypted: whoever gives it anew must still be able to."""
    try:
        sealed = _sealed(row)
        return vault.unseal(sealed[name], row.camera_id, name) if name in sealed else shown
    except Unreadable:
        return None


def _sealed(row: Row[Any]) -> Mapping[str, str]:
    if row.sealed is None:
        return {}
    try:
        found = json.loads(row.sealed)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise Unreadable(f"credentials of camera {row.camera_id}: they are not as this release writes them")
    return found

"""Whether certificates that a configuration names can be used, before anybody needs them.

Apart from the server, so that a check of the configuration can ask without loading one.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

from nodeagent.contract.errors import Fault


class KeyPair(NamedTuple):
    """A server's certificate chain and its key, PEM; a key of None stands in the chain's file."""

    certificate: Path
    key: Path | None


def pair_fault(field: str, pair: KeyPair) -> Fault | None:
    """Why a server cannot speak HTTPS with this pair, which `field` names; None when it can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # No password is asked for: there is nobody to give it.
        context.load_cert_chain(pair.certificate, pair.key, password="")
    except (OSError, ValueError) as exc:
        why = f"the certificate and its key cannot be used: {_reason(exc)}"
        return Fault(field, why, repr(str(pair.certificate)))
    return None


def trust_fault(field: str, ca_file: Path) -> Fault | None:
    """Why a client cannot trust by this file, which `field` names; None when it can."""
    try:
        ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as exc:
        return Fault(field, f"expected certificates to trust, PEM: {_reason(exc)}", repr(str(ca_file)))
    return None


def _reason(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or type(exc).__name__

"""Whether the certificates that the configuration names can be used, before anybody needs them.

Apart from the server, so that `nodeagent config check` can ask without loading one.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence

from nodeagent.contract.errors import Fault
from nodeagent.infra.settings.endpoint import EndpointSettings, PeerSettings


def certificate_faults(endpoint: EndpointSettings | None, peers: Sequence[PeerSettings] = ()) -> Iterator[Fault]:
    """A fault for a certificate of ours that cannot be used, and for each peer's that cannot be trusted."""
    if endpoint is not None and endpoint.tls_cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # No password is asked for: there is nobody to give it.
            context.load_cert_chain(endpoint.tls_cert, endpoint.tls_key, password="")
        except (OSError, ValueError) as exc:
            why = f"the certificate and its key cannot be used: {_reason(exc)}"
            yield Fault("endpoint.tls_cert", why, repr(str(endpoint.tls_cert)))
    for i, peer in enumerate(peers):
        if peer.ca_file is None:
            continue
        try:
            ssl.create_default_context(cafile=peer.ca_file)
        except (OSError, ValueError) as exc:
            why = f"expected certificates to trust, PEM: {_reason(exc)}"
            yield Fault(f"peers[{i}].ca_file", why, repr(str(peer.ca_file)))


def _reason(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or type(exc).__name__

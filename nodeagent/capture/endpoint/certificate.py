"""Whether the certificates that the configuration names can be used, before anybody needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nodeagent.contract.errors import Fault
from nodeagent.infra.settings.endpoint import EndpointSettings, PeerSettings
from nodeagent.infra.web.certificates import KeyPair, pair_fault, trust_fault


def key_pair(endpoint: EndpointSettings) -> KeyPair | None:
    """What the endpoint speaks HTTPS with; None: it speaks HTTP."""
    return KeyPair(endpoint.tls_cert, endpoint.tls_key) if endpoint.tls_cert is not None else None


def certificate_faults(endpoint: EndpointSettings | None, peers: Sequence[PeerSettings] = ()) -> Iterator[Fault]:
    """A fault for a certificate of ours that cannot be used, and for each peer's that cannot be trusted."""
    pair = key_pair(endpoint) if endpoint is not None else None
    if pair is not None and (fault := pair_fault("endpoint.tls_cert", pair)):
        yield fault
    for i, peer in enumerate(peers):
        if peer.ca_file is not None and (fault := trust_fault(f"peers[{i}].ca_file", peer.ca_file)):
            yield fault

"""Reads a request's body: bounded in size and time, decoded once.

Whatever JSON may hold arrives as a value or as a fault: halves of characters, numbers too large and lists too deep are
refused here, before anything else sees them.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError

from nodeagent.infra.web.problems import Problem
from registry.http.gate import too_large
from registry.http.problems import faults_in, not_understood

#: Largest body when a route says nothing else, bytes: a camera with hundreds of rules has a tenth of it.
BODY_BYTES: Final = 2_000_000
#: Largest body that the event loop decodes by itself, bytes: a few ms.  For the ten thousand cameras of an import all
#: nodes would wait with their reports.
AT_ONCE_BYTES: Final = 250_000
#: Seconds that a client has to send it.
BODY_S: Final = 20.0


class JsonBody:
    """A dependency of a route: its body as a `kind`.

    Attributes:
        most_bytes: largest body that is read.
        adapter: of the `kind`, a model or a union of them.
    """

    def __init__(self, kind: Any, most_bytes: int = BODY_BYTES, root: type[BaseModel] | None = None) -> None:
        """`root`: the model whose keys are suggested when one is misspelt; left out: `kind`."""
        self.most_bytes = most_bytes
        self.adapter: TypeAdapter[Any] = TypeAdapter(kind)
        self._root: type[BaseModel] = root or kind

    async def __call__(self, request: Request) -> Any:
        """Read and decode it.

        Raises:
            Problem: it is too large, too slow, or not as expected.
        """
        body = await whole(request, self.most_bytes)
        if len(body) > AT_ONCE_BYTES:
            return await to_thread.run_sync(self.decoded, body)
        return self.decoded(body)

    def decoded(self, body: bytes) -> Any:
        """Decode it.

        Raises:
            Problem: it is not as expected.
        """
        try:
            return self.adapter.validate_json(body)
        except ValidationError as exc:
            raise not_understood(faults_in(exc.errors(include_url=False), self._root)) from None


async def whole(request: Request, most_bytes: int) -> bytes:
    """All of a request's body.

    Raises:
        Problem: it is too large, or the client too slow.
    """
    taken = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                taken += piece
                if len(taken) > most_bytes:
                    raise too_large(most_bytes)
    except TimeoutError:
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the body did not come within {BODY_S:.0f} s") from None
    return bytes(taken)

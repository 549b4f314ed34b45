"""Routes of tokens: made, listed and revoked by administrators."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from registry.http.answers_kept import Token, TokenDraft, TokenMade, Tokens
from registry.http.body import JsonBody
from registry.http.paging import ROWS, After, Limit, next_part
from registry.http.parts import PREFIX, Allowed, PartsHere, private
from registry.http.ports import Contradicted
from registry.tokens import ID_BYTES, Bearer, Deed

Keeper = Annotated[Bearer, Depends(Allowed(Deed.TOKENS))]
TokenPath = Annotated[str, Path(pattern=rf"^[0-9a-f]{{{2 * ID_BYTES}}}$")]

router = APIRouter(prefix=PREFIX, dependencies=[Depends(private)], tags=["tokens"])


@router.get("/tokens")
def tokens(request: Request, parts: PartsHere, _caller: Keeper, after: After = "", limit: Limit = ROWS) -> Tokens:
    """Tokens, revoked ones too, without their secrets."""
    rows, more = parts.tokens.page(after or None, limit)
    return Tokens(tokens=tuple(Token.of(row) for row in rows), next=next_part(request, "after", more))


@router.post("/tokens", status_code=HTTPStatus.CREATED)
def make_token(
    parts: PartsHere,
    caller: Keeper,
    draft: Annotated[TokenDraft, Depends(JsonBody(TokenDraft))],
) -> TokenMade:
    """Make a token, which is shown here and never again.  A node's other tokens stay good."""
    now_ns = parts.clock.wall_ns()
    if draft.role is not None:
        bearer, secret = parts.tokens.make_for_person(draft.name, draft.role, caller.name, now_ns)
    else:
        assert draft.node_id is not None  # noqa: S101  (the draft has either)
        bearer, secret = parts.tokens.make_for_node(draft.name, draft.node_id, caller.name, now_ns)
    return TokenMade(token_id=bearer.token_id, token=secret.get_secret_value())


@router.delete("/tokens/{token_id}", status_code=HTTPStatus.NO_CONTENT)
def revoke(parts: PartsHere, caller: Keeper, token_id: TokenPath) -> None:
    """Make a token good for nothing: here at once, at other registries within half a minute."""
    if token_id == caller.token_id:
        raise Contradicted("this is the token that you show: revoke it with another one, or nobody might be let in")
    parts.tokens.revoke(token_id, caller.name, parts.clock.wall_ns())
    parts.doorkeeper.forget(token_id)

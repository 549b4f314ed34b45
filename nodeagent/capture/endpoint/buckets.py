"""How much a client may ask for, and how fast all of them are served.  Pure: `now_s` is handed in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

#: Clients that are remembered; the one that was not heard of for longest is forgotten, and begins with a full bucket.
CLIENTS_MAX = 4096


@dataclass(slots=True)
class Bucket:
    """Tokens that flow in at `per_s`, up to `most`.

    Attributes:
        left: what is in it; below 0 it is lent.
        at_s: when that was so.
    """

    per_s: float
    most: float
    left: float
    at_s: float

    def take(self, amount: float, now_s: float) -> float:
        """Take it if something is there; return 0, or the seconds after which to ask again."""
        self._fill(now_s)
        if self.left < amount:
            return (amount - self.left) / self.per_s
        self.left -= amount
        return 0.0

    def lend(self, amount: float, now_s: float) -> float:
        """Take it in any case; return the seconds to wait until it would have been there."""
        self._fill(now_s)
        self.left -= amount
        return max(0.0, -self.left / self.per_s)

    def _fill(self, now_s: float) -> None:
        self.left = min(self.most, self.left + max(0.0, now_s - self.at_s) * self.per_s)
        self.at_s = now_s


class Clients:
    """One bucket for each client, made at its first request."""

    def __init__(self, per_s: float, most: float) -> None:
        self._per_s = per_s
        self._most = most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, client: str, now_s: float) -> float:
        """Count one request; return 0, or the seconds after which the client may ask again."""
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = Bucket(self._per_s, self._most, self._most, now_s)
            if len(self._buckets) > CLIENTS_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return bucket.take(1.0, now_s)

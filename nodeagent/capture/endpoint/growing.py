"""Playlists that grow, as their players know them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from threading import Lock

from nodeagent.capture.endpoint.access import Scope
from nodeagent.capture.endpoint.playlist import Segment, appended
from nodeagent.infra.clip_folders import StoredClip

#: Segments of all growing playlists together that are remembered: a dozen whole days, some 35 MB.
SEGMENTS_MOST = 200_000


class Growing:
    """What playlists that grow have shown.

    A player counts their segments from the begin.  So none may go, though retention takes its clip, and none may come
    between, though a slow disk had its clip for long.  Forgotten at a restart, and when too many grow: then a player
    perhaps shows some seconds twice, or not.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[Scope, list[Segment]] = OrderedDict()
        self._lock = Lock()

    def rows(self, scope: Scope, clips_after: Callable[[int], Iterable[StoredClip]], *, ended: bool) -> list[Segment]:
        """The segments of a playlist, now.

        Args:
            scope: whose.
            clips_after: its clips that start after an instant, in order of time.
            ended: it will not be asked for again.
        """
        with self._lock:
            shown = self._lists.get(scope, [])
        # Disks are asked without the lock; whoever did so meanwhile may have shown more.
        clips = list(clips_after(shown[-1].start_ns if shown else 0))
        with self._lock:
            rows = appended(self._lists.get(scope, shown), clips)
            if not ended:
                self._lists[scope] = rows
                self._lists.move_to_end(scope)
                while len(self._lists) > 1 and sum(map(len, self._lists.values())) > SEGMENTS_MOST:
                    self._lists.popitem(last=False)
        return rows

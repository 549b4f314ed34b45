"""Which of a camera's two streams is analysed: the sub-stream, and the main one while that is away.  Pure."""

from __future__ import annotations

from nodeagent.contract.clip import StreamName

#: The sub-stream may be away for so long before the main one is analysed, seconds: opening a source anew takes less.
PATIENCE_S = 5.0
#: The sub-stream must deliver for so long before it is analysed again, seconds: each change costs the samples up to a
#: key frame of both streams.
TRUST_S = 10.0
#: A sub-stream that fails again within this time of its return must deliver for twice as long the next time, seconds:
#: one that sends packets without a picture would else be tried every few seconds.
RELAPSE_S = 60.0
#: Longest that it must deliver, seconds.
TRUST_MOST_S = 600.0


class Chooser:
    """Decides from what is known of the sub-stream; it is the choice at first."""

    def __init__(self, now_s: float) -> None:
        self._changed_s = now_s
        self._returned_s = now_s - RELAPSE_S
        self._trust_s = TRUST_S
        self._delivers = False
        self.choice: StreamName = "analyse"

    def look(self, *, delivers: bool, now_s: float, main_delivers: bool = True) -> StreamName:
        """The stream to analyse, now that the sub-stream, and the main one, do or do not deliver.

        While neither does, it is the sub-stream, which is then analysed from its first key frame on; and it need not
        earn trust while the main stream has no pictures.
        """
        if delivers is not self._delivers:
            self._delivers, self._changed_s = delivers, now_s
        lasted_s = now_s - self._changed_s
        if not delivers and not main_delivers:
            self.choice = "analyse"
        elif self.choice == "analyse" and not delivers and lasted_s >= PATIENCE_S:
            relapsed = now_s - self._returned_s < RELAPSE_S
            self._trust_s = min(TRUST_MOST_S, self._trust_s * 2) if relapsed else TRUST_S
            self.choice = "record"
        elif self.choice == "record" and delivers and (lasted_s >= self._trust_s or not main_delivers):
            self._returned_s = now_s
            self.choice = "analyse"
        return self.choice

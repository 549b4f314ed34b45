"""What happens to recordings when the registry's leader dies, Redis restarts or forgets all, or no registry answers.

Two agents, two registries, RabbitMQ and one Redis at default settings.  Nothing may happen to a camera: its capture is
the same process before and after, every second is in a clip, and every clip is judged.  At the end agents may not hear
broadcasts any more, and cameras are moved by hand: how long until the new node knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import redis

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.ownership import CHANNEL, LEASE_S, RECONCILE_S
from nodeagent.infra.storage import Storage, StoredClip
from nodeagent.judge.store import Account, read_account
from tests.bench.harness import Result, result
from tests.support.accounting import not_recorded
from tests.support.cluster import AGENTS, FOREVER_NS, Cluster
from tests.support.eventually import eventually
from tests.support.log_lines import first

CAMERAS, QUICK_CAMERAS = 20, 4
#: How long no registry answers, seconds.
AWAY_S, QUICK_AWAY_S = 300.0, 20.0
#: How long Redis is away when it is restarted, seconds: longer than a lease.
REDIS_AWAY_S = LEASE_S + 2.0
#: After a fault, seconds in which a node that is wrongly taken for dead would lose its cameras.
CALM_S = 2 * LEASE_S + 2.0
#: Seconds within which a cluster must be whole again.
BACK_S = 90.0
#: Seams between clips are the spacing of frames, seconds.
SEAM_S = 0.2
#: Cameras that are moved while nobody hears broadcasts.
MOVES, QUICK_MOVES = 10, 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: of its figures.
        what: in words.
        do: begins and ends it.
    """

    name: str
    what: str
    do: Callable[[Cluster], None]


def run(quick: bool) -> Iterator[Result]:
    """One fault after the other in one cluster, then the account of all of it."""
    away_s = QUICK_AWAY_S if quick else AWAY_S
    faults = (
        Fault("leader_kill", "kill -9 of the registry that leads, and its restart", _kill_leader),
        Fault("redis_restart", f"Redis stopped, and started after {REDIS_AWAY_S:g} s", _restart_redis),
        Fault("redis_flush", "FLUSHALL", _flush_redis),
        Fault("registries_away", f"kill -9 of both registries, away for {away_s:g} s", lambda one: _away(one, away_s)),
    )
    with Cluster(cameras=QUICK_CAMERAS if quick else CAMERAS) as cluster:
        cluster.bring_in()
        from_ns = time.time_ns()
        before = cluster.captured()
        for fault in faults:
            fault.do(cluster)
            _settle(cluster)
            after = cluster.captured()
            changed = [name for name in before if before[name] != after.get(name)]
            detail = f"{fault.what}: {', '.join(changed[:3]) or f'all {len(before)} went on in the same process'}"
            yield result(f"restarted_by_{fault.name}", len(changed), "cameras", "== 0", detail)
            before = after
        to_ns = time.time_ns()
        yield from _clips(cluster, from_ns, to_ns)
        cluster.rtsp.start()
        eventually(cluster.each_once, within_s=BACK_S, every_s=0.5)
        yield from _deaf(cluster, QUICK_MOVES if quick else MOVES)


def _settle(cluster: Cluster) -> None:
    """Wait until all is whole, and longer than it takes to evict somebody."""
    cluster.all_live()
    time.sleep(CALM_S)
    cluster.all_live()
    eventually(cluster.each_once, within_s=BACK_S, every_s=0.5)


def _kill_leader(cluster: Cluster) -> None:
    name = cluster.ask("/cluster")["leader"]
    leader = next(one for one in cluster.registries if one.name == name)
    leader.kill9()
    eventually(lambda: cluster.ask("/cluster")["leader"] not in (None, "", name), within_s=BACK_S, every_s=0.2)
    leader.start()


def _restart_redis(cluster: Cluster) -> None:
    cluster.redis.stop()
    time.sleep(REDIS_AWAY_S)
    cluster.redis.start()


def _flush_redis(cluster: Cluster) -> None:
    cluster.redis.flush()


def _away(cluster: Cluster, away_s: float) -> None:
    for registry in cluster.registries:
        registry.kill9()
    time.sleep(away_s)
    for registry in cluster.registries:
        registry.start()


def _deaf(cluster: Cluster, moves: int) -> Iterator[Result]:
    """Let no agent hear broadcasts, and move cameras by hand, one at a time."""
    client = redis.Redis.from_url(cluster.redis.url)
    took_s: list[tuple[float, float]] = []
    try:
        # Redis ends the subscriptions of who may not have them, and refuses new ones.
        client.acl_setuser(AGENTS, enabled=True, nopass=True, reset_channels=True)
        eventually(lambda: dict(client.pubsub_numsub(CHANNEL)) == {CHANNEL.encode(): 0}, within_s=BACK_S)
        for number in range(moves):
            camera = cluster.cameras[number % len(cluster.cameras)]
            took_s.append(_moved(cluster, camera))
        eventually(cluster.each_once, within_s=BACK_S, every_s=0.5)
    finally:
        client.acl_setuser(AGENTS, enabled=True, nopass=True, channels=["*"])
        client.close()
    taken_s, left_s = zip(*took_s, strict=True)
    detail = (
        f"{moves} cameras moved by hand while no agent heard a broadcast; from the grant until the new node had taken "
        f"it; nodes look every {RECONCILE_S:g} s"
    )
    yield result("deaf_taken_max", round(max(taken_s), 2), "s", "<= 2.5", detail)
    detail = (
        "from the grant until the old node let it go: it goes on until the new one captures, so that nothing is lost"
    )
    yield result("deaf_let_go_max", round(max(left_s), 2), "s", "", detail)


def _moved(cluster: Cluster, camera: str) -> tuple[float, float]:
    """Move a camera to the other node; seconds from the grant until the new node took it and the old one let go."""
    ((old, _),) = cluster.captured()[camera]
    new = next(node for node in cluster.agents if node != old)
    from_ns = time.time_ns() - NS_PER_S // 1000
    cluster.move([camera], new)

    def ends() -> tuple[int, int, int] | None:
        granted = first(cluster.registries_logged(), "camera_granted", from_ns, camera=camera)
        taken = first(cluster.logged(new), "granted", from_ns, camera=camera)
        left = first(cluster.logged(old), "let_go", from_ns, camera=camera)
        return (granted.at_ns, taken.at_ns, left.at_ns) if granted and taken and left else None

    found = eventually(ends, within_s=BACK_S, every_s=0.2)
    assert found is not None
    # The next move looks where the camera is captured.
    eventually(lambda: [node for node, _ in cluster.captured().get(camera, [])] == [new], within_s=BACK_S, every_s=0.2)
    return (found[1] - found[0]) / NS_PER_S, (found[2] - found[0]) / NS_PER_S


def _clips(cluster: Cluster, from_ns: int, to_ns: int) -> Iterator[Result]:
    """Switch the cameras off, wait until all is judged, and add up."""
    cluster.rtsp.kill9()
    clips = _finished(cluster)
    lost = {name: not_recorded(_bridged(found), from_ns, to_ns) for name, found in clips.items()}
    detail = f"of {(to_ns - from_ns) / NS_PER_S * len(lost):.0f} s while the faults came; between clips of all nodes"
    yield result("unrecorded_s", round(sum(lost.values()), 2), "s", "== 0", detail)
    made = sum(map(len, clips.values()))
    # When they are not judged in time, the figure says it.
    with suppress(AssertionError):
        eventually(lambda: sum(one.clips for one in _judged(cluster)) >= made, within_s=BACK_S, every_s=0.5)
    judged = _judged(cluster)
    lacking = made - sum(one.clips for one in judged)
    yield result("clips_not_judged", lacking, "clips", "== 0", f"of {made} on the disks of both nodes")
    yield result("clips_judged_blind", sum(one.unknown for one in judged), "clips", "", "what was in them is not known")


def _judged(cluster: Cluster) -> list[Account]:
    """What the judge of its node says of each camera; the cameras did not move."""
    folders = [agent.settings.node.state_dir for agent in cluster.agents.values()]
    return [
        max((read_account(folder, name) for folder in folders), key=lambda account: account.clips)
        for name in cluster.cameras
    ]


def _finished(cluster: Cluster) -> Mapping[str, Sequence[StoredClip]]:
    """Every camera's clips on the disks of all nodes, when none is being written any more."""
    storages = [Storage(agent.settings.pools) for agent in cluster.agents.values()]

    def none_open() -> bool:
        return not any(storage.parts(name) for storage in storages for name in cluster.cameras)

    eventually(none_open, within_s=BACK_S, every_s=0.5)
    return {
        name: [clip for storage in storages for clip in storage.clips(name, 0, FOREVER_NS)] for name in cluster.cameras
    }


def _bridged(clips: Sequence[StoredClip]) -> list[StoredClip]:
    """Clips made longer by the spacing of frames, which is between any two."""
    seam_ns = round(SEAM_S * NS_PER_S)
    return [StoredClip(one.clip, one.duration_ns + seam_ns, one.path) for one in clips]

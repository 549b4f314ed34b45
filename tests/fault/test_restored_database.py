"""Last night's database is restored under a whole cluster that records, judges and pushes, with nothing stopped."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import httpx
import pytest

from nodeagent.infra.alarm_records import AlarmState, list_alarms
from nodeagent.infra.database import open_database
from nodeagent.infra.wanted import read_wanted
from nodeagent.judge.store import Account, read_account
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.receiver import PushReceiver
from tests.support.rtsp import need_rtsp
from tests.support.services import MariaDb

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(300)]

SECRET = "k3y"
#: One alarm a loop and camera, seconds.
LOOP_S = 8.0
MOVED, EDITED, BUSY = "cam00", "cam01", "cam02"
#: Seconds within which something must have come about on a busy machine.
SOON_S = 60.0
SECTIONS = f"""[capture]
clip_s = 2
[alarm]
replay_before_s = 2
replay_after_s = 2
[[push]]
name = "crm"
url = "{{url}}"
secret = "{SECRET}"
"""


def episodes(cluster: Cluster) -> set[str]:
    """Keys of all alarms that any judge made."""
    return {
        str(line.fields["key"])
        for node in cluster.agents
        for line in cluster.logged(node)
        if line.says("episode", stage="started")
    }


def owners(cluster: Cluster) -> dict[str, tuple[str, int]]:
    """By camera, its node and epoch."""
    listed = cluster.ask("/assignments")["assignments"]
    return {one["camera_id"]: (one["owner"]["node_id"], one["owner"]["epoch"]) for one in listed if one["owner"]}


def books(cluster: Cluster) -> dict[str, Account]:
    """What the judge of its node says of each camera."""
    return {
        camera: read_account(cluster.agents[node].settings.node.state_dir, camera)
        for camera, (node, _) in owners(cluster).items()
    }


def finished(database_url: str) -> set[str]:
    """Keys of all alarms whose push is recorded."""
    engine = open_database(database_url)
    try:
        return {row.dedup_key for row in list_alarms(engine) if row.state is AlarmState.PUSHED}
    finally:
        engine.dispose()


def severity(cluster: Cluster, camera: str) -> str:
    """That of a camera's rule, as its node's judge has it."""
    node = owners(cluster)[camera][0]
    wanted = read_wanted(cluster.agents[node].settings.node.state_dir / "wanted.json")
    (spec,) = (spec for spec in wanted.cameras if spec.camera_id == camera)
    return spec.rules[0].severity


def change_severity(cluster: Cluster, camera: str, severity: str) -> None:
    with cluster.people() as people:
        kept = people.get(f"/cameras/{camera}/rules/red")
        rule = kept.json()["rule"] | {"severity": severity}
        answer = people.put(f"/cameras/{camera}/rules/red", json=rule, headers={"If-Match": kept.headers["etag"]})
        assert answer.is_success, answer.text


@contextmanager
def editing(cluster: Cluster, camera: str) -> Iterator[None]:
    """Somebody edits a camera all the time, and does not mind that it is refused."""
    ended = threading.Event()

    def edit() -> None:
        for number in range(10_000):
            if ended.wait(0.05):
                return
            with suppress(AssertionError, httpx.HTTPError, KeyError, ValueError):
                change_severity(cluster, camera, ("info", "critical")[number % 2])

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[PushReceiver]:
    with PushReceiver(SECRET) as running:
        yield running


@pytest.fixture
def cluster(mysql_url: str, receiver: PushReceiver) -> Iterator[Cluster]:
    need_rtsp()
    sections = SECTIONS.format(url=receiver.url)
    with Cluster(cameras=3, database_url=mysql_url, sections=sections, loop_s=LOOP_S) as made:
        made.bring_in()
        yield made


def test_an_older_database_under_load_costs_no_camera_and_pushes_no_alarm_twice(
    cluster: Cluster, receiver: PushReceiver, mariadb: MariaDb, mysql_url: str
) -> None:
    eventually(lambda: receiver.keys, within_s=SOON_S)
    dump = mariadb.dump(mysql_url)
    ((old, _),) = cluster.captured()[MOVED]
    new = next(node for node in cluster.agents if node != old)
    cluster.move([MOVED], new)
    eventually(lambda: MOVED in cluster.on(new) and cluster.each_once(), within_s=SOON_S)
    change_severity(cluster, EDITED, "critical")
    eventually(lambda: severity(cluster, EDITED) == "critical", within_s=SOON_S)
    since = len(receiver.keys)
    eventually(lambda: len(receiver.keys) >= since + 2, within_s=SOON_S)
    pushed = finished(mysql_url)
    # Seconds go by: none of them is in hand any more.
    eventually(lambda: len(receiver.keys) >= since + 3, within_s=SOON_S)
    captured, granted, judged = cluster.captured(), owners(cluster), books(cluster)
    with editing(cluster, BUSY):
        mariadb.restore(mysql_url, dump)
        eventually(lambda: severity(cluster, EDITED) == "warning", within_s=SOON_S)
    _goes_on(cluster, receiver, captured, granted, judged)
    for registry in cluster.registries:
        registry.kill9()
    for registry in cluster.registries:
        registry.start()
    cluster.all_live()
    _goes_on(cluster, receiver, captured, granted, judged)
    pushes = Counter(push.key for push in receiver.pushes)
    # One whose row was lost while it was in hand comes again, with its key: only these may be two.
    assert len(pushed) >= 2
    assert {key: pushes[key] for key in pushed} == dict.fromkeys(pushed, 1)
    told = [line for line in cluster.registries_logged() if line.says("database_restored")]
    assert len(told) == len(cluster.registries)


def _goes_on(
    cluster: Cluster,
    receiver: PushReceiver,
    captured: Mapping[str, list[tuple[str, int]]],
    granted: Mapping[str, tuple[str, int]],
    judged: Mapping[str, Account],
) -> None:
    """Every camera in the same process with the same epoch, its clips judged, its alarms pushed."""
    until = len(receiver.keys) + 2
    eventually(lambda: len(receiver.keys) >= until, within_s=SOON_S)
    made = episodes(cluster)
    eventually(lambda: made <= set(receiver.keys), within_s=SOON_S)
    assert set(receiver.keys) <= episodes(cluster)
    assert cluster.captured() == captured
    assert owners(cluster) == granted
    eventually(
        lambda: all(account.clips > judged[camera].clips for camera, account in books(cluster).items()), within_s=SOON_S
    )
    for camera, account in books(cluster).items():
        if camera != MOVED:
            # Of one that moved a moment ago the old node's last clips may be late, and copies of those that its fence
            # refused come again and are refused again.  Its new node's are not: `granted` says that no epoch is above
            # theirs.
            before = judged[camera]
            assert (account.fenced, account.late, account.gaps) == (before.fenced, before.late, before.gaps)

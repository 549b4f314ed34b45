"""Cameras and rules in the registry's store, on both databases: versions, secrets, lists, imports, restored backups."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text, update

from nodeagent.contract.camera import CameraSpec, redact_url
from nodeagent.contract.errors import Unavailable
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.registry_tables import camera
from registry.store.camera_record import CameraDraft, CameraFilter
from registry.store.cameras import Cameras
from registry.store.errors import Invalid, Stale, Unknown
from registry.store.rules import rule_history
from tests.support.registry_store import (
    NEW_KEY,
    OLD_KEY,
    PASSWORD,
    T0,
    copy_of,
    draft,
    in_clear,
    restore,
    rule,
    url,
    vault,
    writer,
)


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.services)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    where = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("mysql_url")
    opened = open_database(where)
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Engine]:
    """For what is the same on both."""
    opened = open_database(f"sqlite:///{tmp_path}/lite.db")
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def cameras(engine: Engine) -> Cameras:
    return Cameras(engine, vault())


def at_once(*deeds: Callable[[], Any]) -> list[Any]:
    """What each deed returned or raised, all begun together."""
    begin, results = threading.Barrier(len(deeds)), [None] * len(deeds)

    def run(number: int) -> None:
        begin.wait()
        try:
            results[number] = deeds[number]()
        except Exception as exc:
            results[number] = exc  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(deeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# Secrets.


def test_a_password_is_nowhere_but_where_it_is_asked_for(engine: Engine, cameras: Cameras) -> None:
    made = cameras.make(draft(analyse={"url": url(path="sub?token=hunter2")}, rules=[rule()]), writer())
    assert made.spec.record.url.get_secret_value() == "rtsp://***@gate-1.example:554/main"
    shown = cameras.get("gate-1", reveal=True)
    assert shown.spec.record.url.get_secret_value() == url()
    assert shown.spec.analyse and shown.spec.analyse.url.get_secret_value() == url(path="sub?token=hunter2")
    for everything in (in_clear(engine), repr(made), repr(shown), shown.spec.model_dump_json(), repr(cameras)):
        assert PASSWORD not in everything and "viewer" not in everything
    assert "gate-1.example" in in_clear(engine)
    assert cameras.holds_credentials()


@pytest.mark.parametrize(
    "given",
    [
        "rtsp://admin:p@ss@10.0.0.1/main",
        "rtsp://10.0.0.1/user=admin&password=hunter2&channel=1",
        "http://cam/live.flv?access_key=abc;sign=def",
        "rtsp://admin:***@10.0.0.1/main",
        "rtsp://用户:密码@10.0.0.1/main",
    ],
)
def test_a_url_comes_back_as_it_was_given(lite: Engine, given: str) -> None:
    cameras = Cameras(lite, vault())
    cameras.make(draft(record={"url": given}), writer())
    assert cameras.get("gate-1", reveal=True).spec.record.url.get_secret_value() == given
    assert cameras.get("gate-1").spec.record.url.get_secret_value() == redact_url(given) != given


def test_a_url_without_a_secret_is_not_encrypted(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    cameras.make(draft(record={"url": "/videos/a.mp4"}), writer())
    assert not cameras.holds_credentials()
    assert cameras.get("gate-1", reveal=True).spec.record.url.get_secret_value() == "/videos/a.mp4"


def test_a_redacted_url_that_comes_back_keeps_its_secret(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    cameras.make(draft(analyse={"url": url(path="sub")}), writer())
    seen = cameras.get("gate-1")
    spec = seen.spec.model_copy(update={"sample_fps": 2.0})
    changed = cameras.change(seen.draft.model_copy(update={"spec": spec}), 1, writer())
    assert changed.version == 2
    shown = cameras.get("gate-1", reveal=True).spec
    assert shown.record.url.get_secret_value() == url() and shown.sample_fps == 2.0
    assert [one.what for one in cameras.history("gate-1")] == ["changed: sample_fps", "made"]


@pytest.mark.parametrize(
    "given",
    [
        # A password is sent to no other host, nor under another path, because somebody edited the rest of its URL.
        "rtsp://***@evil.example:554/main",
        "rtsp://***@gate-1.example:554/other",
        "rtsp://***@gate-1.example:554/main?password=real",
    ],
)
def test_a_redacted_url_that_was_edited_is_refused(lite: Engine, given: str) -> None:
    cameras = Cameras(lite, vault())
    cameras.make(draft(), writer())
    with pytest.raises(Invalid) as caught:
        cameras.change(draft(record={"url": given}), 1, writer())
    assert [fault.path for fault in caught.value.faults] == ["record.url"]
    with pytest.raises(Invalid):
        cameras.make(draft("gate-2", record={"url": given}), writer())
    assert cameras.get("gate-1").version == 1


def test_a_url_that_could_not_be_read_again_is_refused(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    with pytest.raises(Invalid) as caught:
        cameras.make(draft(record={"url": "http://u:hunter2@cam/live@"}), writer())
    assert [fault.path for fault in caught.value.faults] == ["record.url"]
    assert PASSWORD not in str(caught.value)


def test_a_new_password_alone_is_a_change(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    cameras.make(draft(), writer())
    changed = cameras.change(draft(record={"url": url(password="other")}), 1, writer())
    assert changed.version == 2
    assert cameras.history("gate-1")[0].what == "changed: stream credentials"
    assert cameras.get("gate-1", reveal=True).spec.record.url.get_secret_value() == url(password="other")


def test_a_camera_whose_key_is_lost_does_not_hide_the_others(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    cameras.make(draft("gate-1"), writer())
    other = Cameras(lite, vault(NEW_KEY))
    other.make(draft("gate-2"), writer())
    got = other.get_many(["gate-1", "gate-2"], reveal=True)
    assert "0000000a" in got["gate-1"].trouble and got["gate-2"].trouble == ""
    assert got["gate-1"].spec.record.url.get_secret_value() == redact_url(url("gate-1"))
    assert got["gate-2"].spec.record.url.get_secret_value() == url("gate-2")
    with pytest.raises(Invalid, match="cannot be decrypted any more"):
        other.change(got["gate-1"].draft.model_copy(update={"enabled": False}), 1, writer())
    assert other.change(draft("gate-1", enabled=False), 1, writer()).version == 2
    assert other.get("gate-1", reveal=True).trouble == ""


def test_a_credential_that_was_copied_to_another_camera_or_changed_opens_nothing(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    cameras.make(draft("gate-1"), writer())
    cameras.make(draft("gate-2"), writer())
    rows = {row["camera_id"]: row["sealed"] for row in copy_of(lite)[camera]}
    flipped = rows["gate-1"][:-4] + ("A" if rows["gate-1"][-4] != "A" else "B") + rows["gate-1"][-3:]
    for sealed in (rows["gate-2"], flipped, '{"record": 5}', "not JSON", '{"record": "v2.0000000a.x"}'):
        with lite.begin() as connection:
            connection.execute(update(camera).where(camera.c.camera_id == "gate-1").values(sealed=sealed))
        got = cameras.get("gate-1", reveal=True)
        assert got.trouble and PASSWORD not in got.trouble
        assert got.spec.record.url.get_secret_value() == redact_url(url("gate-1"))
    # Whoever gives the password anew mends it.
    cameras.change(draft("gate-1"), 1, writer())
    assert cameras.get("gate-1", reveal=True).trouble == ""


def test_credentials_are_encrypted_anew_with_a_new_key(engine: Engine, cameras: Cameras) -> None:
    for number in range(5):
        cameras.make(draft(f"gate-{number}"), writer())
    both = Cameras(engine, vault(OLD_KEY, NEW_KEY))
    assert [both.rekey(limit=3), both.rekey(limit=3), both.rekey(limit=3)] == [3, 2, 0]
    new_only = Cameras(engine, vault(NEW_KEY))
    assert new_only.get("gate-3", reveal=True).spec.record.url.get_secret_value() == url("gate-3")
    assert new_only.get("gate-3").version == 1


def test_no_secret_is_told_when_the_database_refuses(engine: Engine, cameras: Cameras) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE camera_history"))
    with pytest.raises(Unavailable) as caught:
        cameras.make(draft(), writer())
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


# Versions.


def test_of_two_writers_with_one_version_one_wins(engine: Engine, cameras: Cameras) -> None:
    cameras.make(draft(), writer())
    results = at_once(*(lambda n=n: cameras.change(draft(sample_fps=6 + n), 1, writer()) for n in range(4)))
    won = [one for one in results if not isinstance(one, Exception)]
    lost = [one for one in results if isinstance(one, Stale)]
    assert (len(won), len(lost)) == (1, 3)
    assert {(one.expected, one.found) for one in lost} == {(1, 2)}
    assert cameras.get("gate-1").spec == won[0].spec


def test_of_two_who_make_one_camera_one_wins(cameras: Cameras) -> None:
    results = at_once(*(lambda n=n: cameras.make(draft(name=f"n{n}"), writer()) for n in range(3)))
    assert sorted(type(one).__name__ for one in results) == ["CameraRow", "Stale", "Stale"]
    assert {(one.expected, one.found) for one in results if isinstance(one, Stale)} == {(0, 1)}


def test_no_update_is_lost_among_writers_that_try_again(cameras: Cameras) -> None:
    cameras.make(draft(sample_width=640), writer())

    def wider() -> None:
        for _ in range(4):
            while True:
                seen = cameras.get("gate-1")
                spec = seen.spec.model_copy(update={"sample_width": seen.spec.sample_width + 2})
                try:
                    cameras.change(seen.draft.model_copy(update={"spec": spec}), seen.version, writer())
                except Stale:
                    continue
                break

    assert at_once(wider, wider, wider) == [None] * 3
    got = cameras.get("gate-1", reveal=True)
    assert (got.version, got.spec.sample_width) == (13, 640 + 2 * 12)
    assert got.spec.record.url.get_secret_value() == url()
    assert [one.version for one in cameras.history("gate-1", below=4)] == [3, 2, 1]


def test_what_changes_nothing_makes_no_version(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    first = cameras.make(draft(labels={"site": "north"}), writer())
    number = cameras.version()
    again = cameras.change(draft(labels={"site": "north"}), 1, writer(5, by="bob"))
    assert (again, cameras.version()) == (first, number)
    assert len(cameras.history("gate-1")) == 1


def test_a_deleted_camera_is_gone_and_its_versions_go_on(engine: Engine, cameras: Cameras) -> None:
    cameras.make(draft(rules=[rule()], labels={"site": "north"}), writer())
    with pytest.raises(Stale):
        cameras.delete("gate-1", 2, writer())
    cameras.delete("gate-1", 1, writer(1, by="bob"))
    for gone in (lambda: cameras.get("gate-1"), lambda: cameras.delete("gate-1", 2, writer())):
        with pytest.raises(Unknown):
            gone()
    assert not cameras.holds_credentials()
    assert cameras.page().rows == cameras.page(which=CameraFilter(labels={"site": "north"})).rows == ()
    assert [(one.deleted, one.changed_by) for one in cameras.history("gate-1")] == [(True, "bob"), (False, "anna")]
    with pytest.raises(Invalid):
        # Its password is gone for good.
        cameras.make(draft(record={"url": redact_url(url())}), writer(2))
    again = cameras.make(draft(), writer(2, by="eve"))
    assert (again.version, again.created_by, again.changed_ns) == (3, "eve", T0 + 2_000_000_000)
    assert [one.rule is None for one in rule_history(engine, "gate-1", "no-entry")] == [True, False]


def test_unknown_cameras_are_told(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    with pytest.raises(Unknown, match="camera gate-9"):
        cameras.change(draft("gate-9"), 1, writer())
    with pytest.raises(Unknown, match="camera gate-9"):
        cameras.put_rule("gate-9", rule(), 0, writer())
    assert cameras.get_many(["gate-9"]) == {}


def test_who_knows_a_number_hears_of_every_change_since(cameras: Cameras) -> None:
    assert cameras.version() == 0
    cameras.bring_in([draft(f"gate-{n}") for n in range(3)], False, writer())
    imported = cameras.version()
    cameras.make(draft("hall-1"), writer())
    cameras.delete("gate-1", 1, writer())
    first = cameras.changed_since(0, limit=1)
    assert [row.camera_id for row in first] == ["gate-0", "gate-2"], "an import is told as a whole"
    assert first[-1].change_no == imported
    rest = cameras.changed_since(imported)
    assert [(row.camera_id, row.deleted) for row in rest] == [("hall-1", False), ("gate-1", True)]
    assert rest[-1].change_no == cameras.version()
    assert cameras.changed_since(cameras.version()) == []


# Rules.


def test_each_version_of_a_rule_is_kept(engine: Engine, cameras: Cameras) -> None:
    cameras.make(draft(rules=[rule("a")]), writer())
    cameras.put_rule("gate-1", rule("b", kind="loitering", dwell_s=20), 0, writer(by="bob"))
    changed = cameras.put_rule("gate-1", rule("a", enter_s=3), 1, writer(by="eve"))
    assert (changed.version, cameras.rule_versions("gate-1")) == (3, {"a": 2, "b": 1})
    assert [one.rule_id for one in changed.spec.rules] == ["a", "b"]
    for stale in (0, 1, 3):
        with pytest.raises(Stale, match="rule a"):
            cameras.put_rule("gate-1", rule("a", enter_s=9), stale, writer())
    cameras.take_out_rule("gate-1", "a", 2, writer())
    with pytest.raises(Unknown, match="rule a"):
        cameras.take_out_rule("gate-1", "a", 3, writer())
    again = cameras.put_rule("gate-1", rule("a"), 0, writer())
    assert (again.version, cameras.rule_versions("gate-1")) == (5, {"a": 4, "b": 1})
    known = [
        (one.version, one.author, one.rule and one.rule.model_dump().get("enter_s"))
        for one in rule_history(engine, "gate-1", "a")
    ]
    assert known == [(4, "anna", 0.6), (3, "anna", None), (2, "eve", 3.0), (1, "anna", 0.6)]
    assert cameras.get("gate-1", reveal=True).spec.record.url.get_secret_value() == url()


def test_rules_that_are_written_at_once_all_stay(cameras: Cameras) -> None:
    cameras.make(draft(), writer())
    results = at_once(*(lambda n=n: cameras.put_rule("gate-1", rule(f"r{n}"), 0, writer()) for n in range(4)))
    assert not [one for one in results if isinstance(one, Exception)]
    got = cameras.get("gate-1")
    assert got.version == 5
    assert {one.rule_id for one in got.spec.rules} == {"r0", "r1", "r2", "r3"}


# Lists and imports.


def test_the_list_comes_in_parts_and_is_narrowed(cameras: Cameras) -> None:
    drafts = [
        draft("gate-1", group="north/hall-1", labels={"site": "north", "gpu": "l4"}, name="Tor 100%"),
        draft("gate-2", group="north/hall-10", labels={"site": "north"}, enabled=False),
        draft("Gate-2", group="north", name="东门"),
        draft("yard", group="north/hall-1/line 2", labels={"site": "south", "gpu": "l4"}),
    ]
    cameras.bring_in(drafts, False, writer())
    first = cameras.page(limit=3)
    assert [row.camera_id for row in first.rows] == ["Gate-2", "gate-1", "gate-2"]
    last = cameras.page(after=first.after, limit=3)
    assert ([row.camera_id for row in last.rows], last.after) == (["yard"], None)
    for which, found in (
        (CameraFilter(group="north"), {"gate-1", "gate-2", "Gate-2", "yard"}),
        (CameraFilter(group="north/hall-1"), {"gate-1", "yard"}),
        (CameraFilter(group="north/hall_1"), set()),
        (CameraFilter(labels={"site": "north"}), {"gate-1", "gate-2"}),
        (CameraFilter(labels={"site": "north", "gpu": "l4"}), {"gate-1"}),
        (CameraFilter(enabled=False), {"gate-2"}),
        (CameraFilter(text="GATE-2"), {"gate-2", "Gate-2"}),
        (CameraFilter(text="100%"), {"gate-1"}),
        (CameraFilter(text="t%r"), set()),
        (CameraFilter(text="东"), {"Gate-2"}),
        (CameraFilter(text="gate", enabled=True, group="north/hall-1"), {"gate-1"}),
    ):
        assert {row.camera_id for row in cameras.page(which=which).rows} == found, which
    cameras.change(draft("gate-1", labels={"site": "south"}), 1, writer())
    for labels, found in (({"site": "north"}, {"gate-2"}), ({"site": "south"}, {"gate-1", "yard"})):
        assert {row.camera_id for row in cameras.page(which=CameraFilter(labels=labels)).rows} == found


def test_an_import_is_written_whole_or_not_at_all(engine: Engine, cameras: Cameras) -> None:
    cameras.make(draft("gate-1"), writer())
    before = copy_of(engine)
    bad = draft("gate-3", record={"url": "rtsp://***@gate-3.example/main"})
    with pytest.raises(Invalid) as faulty:
        cameras.bring_in([draft("gate-2"), bad, draft("gate-4", name="x" * 201)], True, writer())
    assert [fault.path for fault in faulty.value.faults] == ["gate-3.record.url", "gate-4.name"]
    with pytest.raises(Stale, match="camera gate-1"):
        cameras.bring_in([draft("gate-2"), draft("gate-1", name="x")], False, writer())
    with pytest.raises(Invalid, match="two cameras"):
        cameras.bring_in([draft("gate-2"), draft("gate-2")], False, writer())
    assert copy_of(engine) == before


def test_an_import_tells_what_it_did(cameras: Cameras) -> None:
    cameras.bring_in([draft("gate-1"), draft("gate-2")], False, writer())
    done = cameras.bring_in([draft("gate-3"), draft("gate-2", name="x"), draft("gate-1")], True, writer())
    assert (done.made, done.changed, done.same) == (("gate-3",), ("gate-2",), ("gate-1",))
    again = cameras.bring_in([draft("gate-3"), draft("gate-2", name="x"), draft("gate-1")], False, writer())
    assert (again.made, again.changed, again.same) == ((), (), ("gate-1", "gate-2", "gate-3"))


def test_many_cameras_are_imported_and_found_again(cameras: Cameras) -> None:
    drafts = [draft(f"cam-{n:04}", rules=[rule()], labels={"n": str(n % 3)}) for n in range(1200)]
    assert len(cameras.bring_in(drafts, False, writer()).made) == 1200
    found = cameras.get_many([one.camera_id for one in drafts])
    assert len(found) == 1200 and {row.version for row in found.values()} == {1}


def test_imports_at_once_of_the_same_cameras_do_not_mix(cameras: Cameras) -> None:
    def load(name: str) -> Callable[[], Any]:
        return lambda: cameras.bring_in([draft(f"gate-{n}", name=name) for n in range(20)], True, writer())

    results = at_once(load("a"), load("b"))
    assert not [one for one in results if isinstance(one, Exception)]
    assert len({row.spec.name for row in cameras.page().rows}) == 1
    assert {row.version for row in cameras.page().rows} == {2}


# An older database is restored.


def test_versions_grow_through_a_restored_backup(engine: Engine, cameras: Cameras) -> None:
    cameras.make(draft("gate-1"), writer())
    cameras.make(draft("gate-2"), writer())
    backup = copy_of(engine)
    for n in range(3):
        cameras.change(draft("gate-1", name=f"n{n}"), n + 1, writer(n))
    told = cameras.version()
    restore(engine, backup)
    assert cameras.get("gate-1").version == 1
    # What agents hold: version 4 of what is at 1 again, and a camera that nobody here knows.
    assert cameras.outgrow({"gate-1": 4, "gate-2": 1, "gate-9": 7}, writer(60)) == ["gate-1"]
    got = cameras.get("gate-1", reveal=True)
    assert (got.version, got.spec.name) == (5, "")
    assert got.spec.record.url.get_secret_value() == url()
    assert cameras.version() > told, "no number of `cameras_version` comes twice"
    assert cameras.outgrow({"gate-1": 4, "gate-2": 1}, writer(61)) == []


def test_a_draft_is_what_a_row_says(lite: Engine) -> None:
    cameras = Cameras(lite, vault())
    made = cameras.make(draft(group="a/b", labels={"x": "y"}, enabled=False, rules=[rule()]), writer())
    assert isinstance(made.draft, CameraDraft) and isinstance(made.draft.spec, CameraSpec)
    assert cameras.change(made.draft, 1, writer(1)) == made

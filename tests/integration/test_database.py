"""The database adapter: errors named for the caller, nothing secret in them, conflicts tried again."""

from __future__ import annotations

import threading
import traceback
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from nodeagent.contract.errors import ConfigError, Unavailable
from nodeagent.infra.alarm_records import list_alarms
from nodeagent.infra.database import open_database, ping, reading, translated, write


def test_a_server_that_is_away_is_unavailable_and_no_secret_is_told() -> None:
    engine = open_database("mysql://operator:hunter2@127.0.0.1:1/agents")
    with pytest.raises(Unavailable) as caught:
        ping(engine)
    assert str(caught.value) == "database: ping: OperationalError 2003"
    engine.dispose()


def test_a_driver_that_lacks_a_package_is_unavailable_with_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_named: object) -> None:
        raise RuntimeError("'cryptography' package is required for sha256_password or caching_sha2_password")

    monkeypatch.setattr("pymysql.connect", refuse)
    engine = open_database("mysql://operator:hunter2@127.0.0.1:1/agents")
    with pytest.raises(Unavailable, match="database: connect: 'cryptography' package is required"):
        ping(engine)
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql://user:s3cret@pw:12x@host:3306/db", "s3cret", "mysql://u:s3cret@h:s3cret/x"])
def test_a_url_that_is_none_is_a_fault_of_the_configuration_and_no_secret_is_told(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_database(url)
    assert "database.url: cannot be read as a URL" in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.services
def test_a_refused_password_is_unavailable_and_no_secret_is_told(mysql_url: str) -> None:
    server = mysql_url.rpartition("@")[2]
    engine = open_database(f"mysql://operator:hunter2@{server}")
    with pytest.raises(Unavailable) as caught:
        ping(engine)
    assert "hunter2" not in str(caught.value) and "operator" not in str(caught.value)
    engine.dispose()


def test_a_database_without_tables_is_unavailable(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/new/a.db")
    with pytest.raises(Unavailable, match="list alarms"):
        list_alarms(engine)
    engine.dispose()


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="folder"):
        open_database(f"sqlite:///{tmp_path}/file/a.db")


def test_sqlite_keeps_a_log_and_syncs_every_commit(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/a.db")
    with reading(engine, "pragma") as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    engine.dispose()


def test_a_reader_does_not_wait_for_a_writer_on_sqlite(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/a.db")
    write(engine, "make", lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")))

    def change(connection: Connection) -> int:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        with reading(engine, "look") as reader:
            return int(reader.execute(text("SELECT count(*) FROM t")).scalar_one())

    assert write(engine, "insert", change) == 0
    engine.dispose()


def test_read_then_write_of_two_writers_loses_nothing_on_sqlite(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/a.db")
    write(engine, "make", lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")))
    write(engine, "fill", lambda connection: connection.execute(text("INSERT INTO t VALUES (0)")))

    def add(connection: Connection) -> None:
        seen = connection.execute(text("SELECT n FROM t")).scalar_one()
        connection.execute(text("UPDATE t SET n = :n"), {"n": seen + 1})

    def work() -> None:
        for _ in range(20):
            write(engine, "add", add)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine, "look") as connection:
        assert connection.execute(text("SELECT n FROM t")).scalar() == 60
    engine.dispose()


@pytest.mark.services
def test_a_deadlock_is_tried_again_on_mysql(mysql_url: str) -> None:
    engine = open_database(mysql_url)
    with translated("make"), engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER) ENGINE=InnoDB"))
        connection.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)"))
    both_hold_one = threading.Barrier(2)

    def work(order: tuple[int, int]) -> None:
        first = True

        def change(connection: Connection) -> None:
            nonlocal first
            connection.execute(text("UPDATE t SET n = n + 1 WHERE id = :id"), {"id": order[0]})
            if first:
                first = False
                both_hold_one.wait(10)
            connection.execute(text("UPDATE t SET n = n + 1 WHERE id = :id"), {"id": order[1]})

        write(engine, "both", change)

    threads = [threading.Thread(target=work, args=(order,)) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine, "look") as connection:
        assert connection.execute(text("SELECT id, n FROM t ORDER BY id")).all() == [(1, 2), (2, 2)]
    engine.dispose()

"""Migrations: from nothing, by several processes at once, after a killed one, and equal to what the code believes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import ExecutableDDLElement

from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.registry_tables import camera

#: Of the registry's tables and the agents': they share one.
METADATA = camera.metadata


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.services)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("mysql_url")


def run_migrate(url: str) -> None:
    engine = open_database(url)
    migrate(engine)
    engine.dispose()


def difference(url: str) -> list[object]:
    engine = open_database(url)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), METADATA)
    engine.dispose()
    return list(found)


def test_from_nothing_gives_the_tables_that_the_code_knows(url: str) -> None:
    run_migrate(url)
    assert difference(url) == []
    run_migrate(url)
    assert difference(url) == []


def test_no_statement_is_one_that_only_mariadb_knows(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/a.db")
    made: list[str] = []

    @event.listens_for(engine, "before_execute")
    def _compile(_connection: object, statement: object, *_rest: object) -> None:
        if isinstance(statement, ExecutableDDLElement):
            made.append(str(statement.compile(dialect=mysql.dialect())))

    migrate(engine)
    engine.dispose()
    for index in ("ix_alarm_state ON alarm", "ix_assignment_open ON assignment"):
        assert any(f"CREATE INDEX {index}" in statement for statement in made)
    assert [statement for statement in made if "INDEX IF NOT EXISTS" in statement] == []


def test_processes_that_start_at_once_all_succeed(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=run_migrate, args=(url,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert difference(url) == []


def test_an_upgrade_that_was_killed_half_way_is_completed(url: str) -> None:
    run_migrate(url)
    engine = open_database(url)
    with engine.begin() as connection:
        for name in ("push_attempt", "alarm_key", "alembic_version", "node", "counter"):
            connection.execute(text(f"DROP TABLE {name}"))
        for index, table in (("ix_alarm_state", "alarm"), ("ix_assignment_open", "assignment")):
            on = f" ON {table}" if engine.dialect.name == "mysql" else ""
            connection.execute(text(f"DROP INDEX {index}{on}"))
    engine.dispose()
    run_migrate(url)
    assert difference(url) == []


def test_a_database_of_the_release_before_the_registry_gets_its_tables_and_keeps_its_own(url: str) -> None:
    run_migrate(url)
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO alarm_slot (camera_id, rule_id, zone) VALUES ('a', 'b', 'c')"))
        for name in sorted(set(METADATA.tables) - {"alarm", "alarm_slot", "alarm_key", "push_attempt"}):
            connection.execute(text(f"DROP TABLE {name}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    run_migrate(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alarm_slot")).scalar() == 1
    engine.dispose()
    assert difference(url) == []

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
from nodeagent.infra.tables import metadata


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
        found = compare_metadata(MigrationContext.configure(connection), metadata)
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
    assert any("CREATE INDEX ix_alarm_state ON alarm" in statement for statement in made)
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
        for name in ("push_attempt", "alarm_key", "alembic_version"):
            connection.execute(text(f"DROP TABLE {name}"))
        on = " ON alarm" if engine.dialect.name == "mysql" else ""
        connection.execute(text(f"DROP INDEX ix_alarm_state{on}"))
    engine.dispose()
    run_migrate(url)
    assert difference(url) == []

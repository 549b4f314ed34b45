"""The database: MySQL (or MariaDB) through pymysql, or SQLite in one file.  SQLAlchemy's errors stop here.

A transaction on SQLite begins with BEGIN IMMEDIATE: one that reads first and writes later could not wait for a second
writer, it would fail at once.  On MySQL transactions are READ COMMITTED: whoever needs more locks a row (`FOR UPDATE`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, text
from sqlalchemy.engine import make_url

from nodeagent.contract.errors import ConfigError, DecodeError, Fault, Unavailable
from nodeagent.contract.url import HINT

#: Seconds that a statement on SQLite waits for another process's transaction.
SQLITE_BUSY_S = 10.0
#: Seconds to wait for MySQL: to connect, and for one answer.  Long enough for a lock that is held, short enough for a
#: worker's beat.
MYSQL_CONNECT_S = 3
MYSQL_ANSWER_S = 15
#: Seconds after which a pooled connection is made anew: less than any sensible `wait_timeout`.
POOL_RECYCLE_S = 300
#: Times that a transaction is tried when it loses against another one.
CONFLICT_TRIES = 8
#: Ceiling of the first pause between two tries, seconds; doubles.
CONFLICT_PAUSE_S = 0.02
#: Seconds that a starting process waits while another one migrates.
MIGRATE_WAIT_S = 60
#: MySQL's codes for "deadlock", "lock wait timeout", "duplicate key" and "record changed since last read" (MariaDB).
CONFLICT_CODES = frozenset({1213, 1205, 1062, 1020})
#: Longest text of a cause in an error, characters.
CAUSE_MAX = 120
#: Execution option of a connection that only reads: on SQLite it does not take the writer's lock.
READ_ONLY = "nodeagent_read_only"

_Result = TypeVar("_Result")


def open_database(url: str) -> Engine:
    """An engine for `mysql://...`, `mysql+pymysql://...` or `sqlite:///path`.  Connects at the first use.

    Raises:
        ConfigError: it is no such URL.
        Unavailable: the folder of a SQLite file cannot be made.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    engine = create_engine(
        parsed.set(drivername="mysql+pymysql"),
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_recycle=POOL_RECYCLE_S,
        hide_parameters=True,
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": MYSQL_CONNECT_S,
            "read_timeout": MYSQL_ANSWER_S,
            "write_timeout": MYSQL_ANSWER_S,
        },
    )

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, _record: Any, args: Any, named: Any) -> Any:
        try:
            return dialect.connect(*args, **named)
        except RuntimeError as error:
            # The driver's own: it needs `cryptography` for a sha2 password without TLS.
            raise Unavailable(f"database: connect: {error}"[:CAUSE_MAX]) from error

    return engine


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; none for a server, and for one that lives in memory.

    Raises:
        ConfigError: it is no such URL.
    """
    parsed = _parsed(url)
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    return None if not file or file == ":memory:" else Path(file)


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ValueError, exc.ArgumentError):
        # What they say quotes the URL.
        raise ConfigError([Fault("database.url", f"cannot be read as a URL; {HINT}")]) from None


def _open_sqlite(url: str) -> Engine:
    file = sqlite_file(url)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"database: folder of {file}: {error.strerror}") from error
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": SQLITE_BUSY_S})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN comes too late (before the first write); `_begin` sends it.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(SQLITE_BUSY_S * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        # FULL: a row that was answered for outlives a power cut; alarms are rare enough to pay for it.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(READ_ONLY)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _code(error: exc.DBAPIError) -> int:
    args = getattr(error.orig, "args", ())
    return args[0] if args and isinstance(args[0], int) else 0


def _is_conflict(error: exc.DBAPIError) -> bool:
    return _code(error) in CONFLICT_CODES or isinstance(error, exc.IntegrityError)


def _why(error: Exception) -> str:
    """The cause without statement, parameters, user or host."""
    if isinstance(error, exc.DBAPIError):
        code = _code(error)
        return (
            f"{type(error.orig).__name__} {code}" if code else f"{type(error.orig).__name__}: {error.orig}"[:CAUSE_MAX]
        )
    return type(error).__name__


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn SQLAlchemy's errors into Unavailable("database: what: cause"); a value that no column holds: DecodeError."""
    try:
        yield
    except exc.DataError as error:
        raise DecodeError(f"database: {what}: {_why(error)}") from error
    except (exc.DBAPIError, exc.TimeoutError) as error:
        raise Unavailable(f"database: {what}: {_why(error)}") from error


def write(engine: Engine, what: str, change: Callable[[Connection], _Result]) -> _Result:
    """Run `change` in one transaction and commit it; a transaction that lost against another one is tried again.

    `change` may run several times, so it must not do anything outside its connection.

    Raises:
        Unavailable: the database is away or will not have it; nothing was committed, or (connection lost during the
            commit) perhaps all of it: `change` must be harmless when repeated.
    """
    with translated(what):
        for left in reversed(range(CONFLICT_TRIES)):
            try:
                with engine.begin() as connection:
                    return change(connection)
            except exc.DBAPIError as error:
                if not left or not _is_conflict(error):
                    raise
                time.sleep(random.uniform(0, CONFLICT_PAUSE_S * 2 ** (CONFLICT_TRIES - left)))
    raise AssertionError("unreachable")


@contextmanager
def reading(engine: Engine, what: str) -> Iterator[Connection]:
    """A connection for reads.

    Raises:
        Unavailable: the database is away.
    """
    with translated(what), engine.connect().execution_options(**{READ_ONLY: True}) as connection:
        yield connection


def ping(engine: Engine) -> None:
    """Ask the database whether it is there.

    Raises:
        Unavailable: it is not.
    """
    with reading(engine, "ping") as connection:
        connection.execute(text("SELECT 1"))


def migrate(engine: Engine) -> None:
    """Bring the tables to what this release expects.  Any number of processes may call it at once.

    SQLite: the whole upgrade is one transaction under the writer's lock.  MySQL commits after every CREATE TABLE, so a
    killed upgrade leaves a part of it: migrations only make what is missing, and GET_LOCK lets one process in at a time
    (the server frees it when that process dies).

    Raises:
        Unavailable: the database is away, or another process has been migrating for a minute.
    """
    with translated("migrate"):
        if engine.dialect.name == "sqlite":
            with engine.begin() as connection:
                _upgrade(connection)
            return
        with engine.connect() as holder:
            got = holder.execute(text("SELECT GET_LOCK('nodeagent.migrate', :wait)"), {"wait": MIGRATE_WAIT_S // 6})
            if got.scalar() != 1:
                raise Unavailable("database: migrate: another process holds the lock")
            try:
                with engine.begin() as connection:
                    _upgrade(connection)
            finally:
                holder.execute(text("SELECT RELEASE_LOCK('nodeagent.migrate')"))


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)

    def steps(current: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", current)

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()

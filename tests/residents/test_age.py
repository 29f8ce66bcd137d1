"""What residents forgets: refused rows once an import is long over, working times after two years, sessions a day after their end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from services.chassis import retention
from services.chassis.db import Database
from services.chassis.testing import advance
from tests.residents import workbooks as make
from tests.residents.registers import Imported, contents, rows

Import = Callable[..., Imported]


def test_an_import_and_all_it_refused_goes_180_days_after_its_end_and_nothing_of_the_register_does(
    database: Database, import_file: Import
) -> None:
    file = make.workbook(units=[make.unit("1"), make.unit("2", 建筑面积=-5)])
    old, young = import_file(file), import_file(file)
    with database.transaction() as tx:
        for done, age in ((old, "180 days 1 minute"), (young, "179 days")):
            tx.execute("UPDATE operations SET ended_at = now() - %s::interval WHERE id = %s", (age, done.id))
        tx.execute("INSERT INTO imports (id, filename, created_at) VALUES (gen_random_uuid(), 'queued', now() - interval '300 days')")
    before = contents(database)
    retention.forget(database)
    assert {str(row[0]) for row in rows(database, "SELECT id FROM imports WHERE filename <> 'queued'")} == {str(young.id)}
    assert {str(row[0]) for row in rows(database, "SELECT DISTINCT import_id FROM import_refusals")} == {str(young.id)}
    assert rows(database, "SELECT count(*) FROM imports WHERE filename = 'queued'") == [(1,)], "what has not ended is not old"
    assert contents(database) == before
    assert rows(database, "SELECT count(*) FROM operations") == [(2,)], "what became of it is known a little longer"


def test_who_worked_when_is_known_for_two_years(database: Database, import_file: Import) -> None:
    import_file(make.workbook(employees=[make.staff()]))
    with database.transaction() as tx:
        tx.execute(
            "INSERT INTO shifts (id, group_id, company_id, estate_id, version, created_at, updated_at, staff_id, role, early_shift, starts_at,"
            " ends_at, deleted) SELECT gen_random_uuid(), s.group_id, s.company_id, s.estate_id, 1, now(), now(), s.id, 'TECHNICIAN', false,"
            " now() - make_interval(days => n, hours => 8), now() - make_interval(days => n), false FROM staff s, unnest(ARRAY[0, 1]) n"
        )
    advance(database, timedelta(days=729, hours=1))
    retention.forget(database)
    assert rows(database, "SELECT count(*) FROM shifts") == [(1,)]
    advance(database, timedelta(days=1))
    retention.forget(database)
    assert rows(database, "SELECT count(*) FROM shifts") == [(0,)]


def test_a_session_goes_a_day_after_its_end_with_its_refresh_tokens(database: Database) -> None:
    with database.transaction() as tx:
        for number, (expires, ended) in enumerate((("20 days", "25 hours"), ("20 days", None), ("-25 hours", None), ("-23 hours", None))):
            tx.execute(
                "INSERT INTO sessions (id, principal, access_hash, access_expires_at, expires_at, ended_at) VALUES"
                " (gen_random_uuid(), %s, %s, now(), now() + %s::interval, now() - %s::interval)",
                (f"staff/{number}", bytes([number]), expires, ended),
            )
        tx.execute("INSERT INTO refresh_tokens (hash, session_id) SELECT access_hash, id FROM sessions")
    retention.forget(database)
    assert rows(database, "SELECT principal FROM sessions ORDER BY 1") == [("staff/1",), ("staff/3",)]
    assert rows(database, "SELECT count(*) FROM refresh_tokens") == [(2,)]

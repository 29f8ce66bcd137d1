"""A group whose register was imported, and the people at its desks."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.jobs import work_once
from services.chassis.testing import Api, Caller, Refused
from services.residents import importing
from tests.residents import workbooks as make
from tests.residents.registers import Imported, look, rows

POSTS = ("客服助理", "楼栋管家", "档案员", "收银员", "维修员", "客服主管", "项目经理")


@dataclass
class Desk:
    """One group with one or more estates. `codes[0]` is where things happen unless said otherwise."""

    api: Api
    database: Database
    group: str
    codes: list[str]
    staff: dict[tuple[str, str], Caller] = field(default_factory=dict)  # by estate code ("" above them) and role

    @property
    def code(self) -> str:
        return self.codes[0]

    @property
    def parent(self) -> str:
        return f"estates/{self.code}"

    def who(self, role: str, code: str = "") -> Caller:
        return self.staff.get((code or self.code, role)) or self.staff["", role]

    def call(self, who: Caller | str, rpc: str, /, **fields: Any) -> Any:
        return self.api.call(self.who(who) if isinstance(who, str) else who, rpc, **fields)

    def refused(self, who: Caller | str, rpc: str, /, **fields: Any) -> Refused:
        with pytest.raises(Refused) as refused:
            self.call(who, rpc, **fields)
        return refused.value

    def take_in(self, **sheets: list[dict[str, Any]]) -> Imported:
        """Imports rows of the group's own estates; those without 项目编号 of theirs get the first one's."""
        for name, kept in sheets.items():
            for row in kept:
                if name == "estates":
                    row["所属集团"] = self.group
                elif row.get("项目编号") == "TFHY":
                    row["项目编号"] = self.code
        with self.database.transaction() as tx:
            identifier = importing.start(tx, "r.xlsx", make.workbook(**{"estates": [], "units": [], **sheets}), None)
        while work_once(self.database, "test"):
            pass
        done = look(self.database, identifier)
        assert done.state == "SUCCEEDED", done.error
        return done

    def person_id(self, name: str) -> UUID:
        """The living record of a name in the group."""
        sql = "SELECT p.id FROM people p JOIN groups g ON g.id = p.group_id WHERE g.name = %s AND p.name = %s AND merged_into IS NULL"
        found = rows(self.database, sql, self.group, name)
        assert len(found) == 1, f"{name}: {found}"
        return found[0][0]

    def name_of(self, name: str, code: str = "") -> str:
        return f"estates/{code or self.code}/people/{self.person_id(name)}"

    def unit(self, number: str = "1-1-0101", code: str = "") -> str:
        return f"estates/{code or self.code}/units/{number}"

    def members(self, number: str = "1-1-0101", **more: Any) -> dict[str, Any]:
        """Of a unit now or to come, by name."""
        found = self.call("CS_SUPERVISOR", "GetUnit", name=self.unit(number), **more).members
        return {member.display_name: member for member in found}

    def search(self, query: str, who: Caller | str = "CUSTOMER_ASSISTANT", **more: Any) -> list[str]:
        reply = self.call(who, "SearchPeople", **{"parent": self.parent, "query": query, **more})
        return [person.display_name for person in reply.people]

    def resident(self, name: str) -> Caller:
        """Signed in, with the grants of the moment."""
        person = self.person_id(name)
        grants = rows(self.database, "SELECT kind, unit_id, estate_id FROM dir_members WHERE person_id = %s AND NOT deleted", person)
        return Caller("people", person, tuple(Grant(kind, "unit", unit, estate) for kind, unit, estate in grants))


def a_desk(api: Api, database: Database, estates: int = 1, **sheets: list[dict[str, Any]]) -> Desk:
    """With one unit, 1-1-0101, in each estate unless `units` says otherwise; staff of every post of POSTS at each estate."""
    token = secrets.token_hex(4).upper()
    codes = [f"E{token}{n}" for n in range(estates)]
    desk = Desk(api, database, f"集团{token}", codes)
    employees = [make.staff(f"{code}-{n}", 岗位=post, 所属项目=code, 姓名=f"{post}{n}") for code in codes for n, post in enumerate(POSTS)]
    employees += [
        make.staff(f"{token}-C", 岗位="管理部经理", 所属项目=f"公司{token}"),
        make.staff(f"{token}-G", 岗位="集团运营", 所属项目=desk.group),
    ]
    places = [make.estate(code, 所属公司=f"公司{token}") for code in codes]
    units = sheets.pop("units", [make.unit(项目编号=code) for code in codes])
    desk.take_in(estates=places, employees=employees, units=units, **sheets)
    posts = rows(
        database,
        "SELECT p.staff_id, p.role, lower(n.kind), n.id, n.code FROM posts p JOIN dir_nodes n ON n.id = p.node_id"
        " JOIN groups g ON g.id = p.group_id WHERE g.name = %s",
        desk.group,
    )
    for staff, role, level, node, code in posts:
        at = code if level == "estate" else ""
        known = desk.staff.get((at, role))
        grants = (*(known.grants if known and known.id == staff else ()), Grant(role, level, node))
        desk.staff[at, role] = Caller("staff", staff, grants)
    return desk

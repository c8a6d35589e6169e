"""A made-up company: what OA and DiDi hold before a run, and what a right run does to it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

FIELDS = [
    {"name": "field0001", "display": "工号", "fieldType": "VARCHAR", "inputType": "text"},
    {"name": "field0002", "display": "姓名", "fieldType": "VARCHAR", "inputType": "text"},
    {"name": "field0003", "display": "所属公司", "fieldType": "VARCHAR", "inputType": "account"},
]

# Near-equal names: a fuzzy keyword finds several, and only one is meant. Ids exceed 2^53, one even 64 bits.
ENTITIES = {
    "上海示例科技有限公司": "9007199254740993",
    "上海示例科技有限公司 ": "9007199254740995",
    "上海示例科技有限公司（分公司）": "9007199254740997",
    "上海示例科技有限公司二部": "18446744073709551617",
    "北京示例科技有限公司": "9007199254740999",
    "北京示例科技 有限公司": "9007199254741001",
    "深圳市前海“示例”供应链有限公司": "9007199254741003",
    "Example & Söhne (中国) = 100% 有限公司": "9007199254741005",
}
# Two entities of one name: nobody can say which is meant.
TWINS = {"9007199254741007": "广州双胞胎有限公司", "9007199254741009": "广州双胞胎有限公司"}
_MEANT = [name for name in ENTITIES if name == name.strip()]
_UNKNOWN = ["不存在的有限公司", "上海示例科技", "上海示例科技有限公司(分公司)"]
_BLANKS = ["", "", "", " ", "  ", "\u3000", "\t", "\n"]
_SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨"
_GIVEN = "伟芳娜敏静秀英丽强磊军洋勇艳杰娟涛明超兰霞平刚桂𠮷"

# Of a thousand rows so many are special; there is at least one of each kind.
_PER_MILLE = {
    "edit": 32,
    "unknown_company": 7,
    "twin_company": 2,
    "unknown_employee": 6,
    "blank_number": 3,
    "blank_company": 2,
    "repeat": 2,
}
_FAILED = {"unknown_company", "twin_company", "unknown_employee", "blank_number", "blank_company"}


@dataclass(frozen=True)
class Expected:
    """What a right run reports and does: `edits` is employee number -> id of the new legal entity."""

    edits: dict[str, str]
    skipped: int
    failed_rows: list[int]

    @property
    def success(self) -> int:
        return len(self.edits)

    @property
    def failed(self) -> int:
        return len(self.failed_rows)

    @property
    def total(self) -> int:
        return self.success + self.skipped + self.failed


@dataclass
class Dataset:
    """`rows` as OA exports them, `entities` as (id, name), `members` of DiDi by employee number."""

    rows: list[dict[str, Any]]
    entities: list[tuple[str, str]]
    members: dict[str, dict[str, Any]]
    expected: Expected
    fields: list[dict[str, str]] = field(default_factory=lambda: list(FIELDS))


def oa_row(
    number: str, company: str, name: str = "张三", company_id: str = "-6012345678901234567"
) -> dict[str, Any]:
    """A row of the export; the company is an organisation field: an id is stored, the name displayed."""
    return {
        "masterData": {
            "field0001": {"value": number, "showValue": number},
            "field0002": {"value": name, "showValue": name},
            "field0003": {"value": company_id if company.strip() else "", "showValue": company},
        },
        "subData": {},
    }


def member(number: str, legal_entity_id: str, name: str = "张三") -> dict[str, Any]:
    """A member as DiDi holds it."""
    return {
        "member_id": str(1125899906842624 + int(number.lstrip("E"))),
        "phone": f"138{int(number.lstrip('E')):08d}",
        "realname": name,
        "employee_number": number,
        "legal_entity_id": legal_entity_id,
        "status": 1,
    }


def make_dataset(rows: int = 1250, seed: int = 7) -> Dataset:
    """`rows` (20 at least) shuffled rows, the same for the same `seed`: 40 of 1,250 need an edit."""
    dice = random.Random(seed)
    kinds = [kind for kind, share in _PER_MILLE.items() for _ in range(max(1, rows * share // 1000))]
    kinds += ["same"] * (rows - len(kinds))
    dice.shuffle(kinds)
    kinds.remove("same")
    kinds.insert(0, "same")  # so that a repeated row has one to repeat
    data = Dataset([], [*((i, n) for n, i in ENTITIES.items()), *TWINS.items()], {}, Expected({}, 0, []))
    edits: dict[str, str] = {}
    for number, kind in enumerate(kinds, 1):
        _add(data, kind, number, edits, dice)
    failed = [number for number, kind in enumerate(kinds, 1) if kind in _FAILED]
    data.expected = Expected(edits, rows - len(edits) - len(failed), failed)
    return data


def _add(data: Dataset, kind: str, number: int, edits: dict[str, str], dice: random.Random) -> None:
    """Add one row of a kind, and what DiDi holds of its employee."""
    if kind == "repeat":
        data.rows.append(data.rows[0])
        return
    employee, name = f"E{number:05d}", dice.choice(_SURNAMES) + dice.choice(_GIVEN) + dice.choice(_GIVEN)
    company = dice.choice(_MEANT)
    held = ENTITIES[company]
    if kind == "edit":
        held = dice.choice([other for other in ENTITIES.values() if other != ENTITIES[company]])
        edits[employee] = ENTITIES[company]
    data.members[employee] = member(employee, held, name)
    shown = {
        "unknown_company": dice.choice(_UNKNOWN),
        "twin_company": "广州双胞胎有限公司",
        "blank_company": "",
    }
    written = {"unknown_employee": employee.lower(), "blank_number": ""}
    data.rows.append(
        oa_row(
            _padded(written.get(kind, employee), dice),
            _padded(shown.get(kind, company), dice),
            name,
            str(dice.randrange(2**53, 2**63)),
        )
    )


def _padded(text: str, dice: random.Random) -> str:
    return dice.choice(_BLANKS) + text + dice.choice(_BLANKS)

"""`python -m tests.benchmarks.page [FILE]`: the figures of benchmarks.json as the tables of docs/performance*.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

_DOCS = Path(__file__).parents[2] / "docs"
_TABLE = re.compile(r"^\| (?:row|行) \|.*?\n\n", re.M | re.S)
_HEADS = {
    "performance.md": "| row | measure | goal | figure | of the goal |\n| --- | --- | --- | --- | --- |\n",
    "performance.zh-CN.md": "| 行 | 指标 | 目标 | 结果 | 对目标 |\n| --- | --- | --- | --- | --- |\n",
}
_BOUNDS = {"performance.md": ("at most", "at least"), "performance.zh-CN.md": ("不超过", "不低于")}
_MISSED = {"performance.md": "missed", "performance.zh-CN.md": "未达到"}
# What the figures are called in Chinese, as patterns of what they are called.
_CHINESE = {
    r"(\d+) due: tick to last SUCCESS, in floors": r"\1 个任务同时到期：从调度到最后一次成功，对下限的倍数",
    r"the same in seconds \(4 floors of this run\)": "同上，秒（目标为本次的 4 倍下限）",
    r"a floor with the table of runs itself, its indexes and checks, in floors": "执行记录表自身（含索引和检查）的下限，对下限的倍数",
    r"of which until the tick is stored": "其中调度写入完成",
    r"processor time of the hub, a run": "每次执行占用的处理器时间：hub",
    r"processor time of its sessions in PostgreSQL, a run": "每次执行占用的处理器时间：其 PostgreSQL 会话",
    r"the tick alone, a run": "单独的调度，每次执行",
    r"claims of (\d+) alone, a run": r"单独的领取（每批 \1 个），每次执行",
    r"ends of (\d+) alone, a run": r"单独的写入结果（每批 \1 个），每次执行",
    r".*: processor time of PostgreSQL, a run": "同上，PostgreSQL 的处理器时间",
    r"the old design, runs/s": "旧方案，每秒执行数",
    r"faster than the old design, by runs/s": "比旧方案快（每秒执行数之比）",
    r"pgqueuer, runs/s at (\d+) places": r"pgqueuer，每秒执行数，\1 个执行位",
    r"apscheduler, runs/s of (\d+) due, one by one": r"APScheduler（SQLAlchemy 存储），每秒执行数，\1 个到期，逐个执行",
    r"the hub's, of those of (\w+)": r"hub 对 \1",
    r"(\d+) due, sync plugins in threads, in floors": r"\1 个同时到期，同步插件在线程中，对下限的倍数",
    r"(\d+) due, 50 ms each on the loop, of the ideal (\S+) s": r"\1 个同时到期，各等 50 ms，在事件循环上，对理想值 \2 s",
    r"the same in threads": "同上，在线程中",
    r"tick with (\d+) due: (\d+) Jobs against (\d+)": r"\1 个到期的一次调度：\2 个任务对 \3 个",
    r"the tick of (\d+) Jobs, from the minute mark": r"\1 个任务时这样的一次调度，自整分起",
    r"an empty tick of (\d+) Jobs, from the minute mark": r"\1 个任务都未到期的一次调度，自整分起",
    r"the old design, tick of (\d+) Jobs, (\d+) due": r"旧方案的一次调度，\1 个任务，\2 个到期",
    r"minute mark to plugin start, (\d+) due, (\d+) places, p99": r"整分到插件开始，\1 个到期，\2 个执行位，p99",
    r"the same of the first tick after the hub's start, p99": "同上，启动后的第一次调度，p99",
    r"apscheduler, moment to start, (\d+) due, (p\d+)": r"APScheduler，到期到开始，\1 个到期，\2",
    r"run now, POST to plugin start, p50": "「立即执行」：从 POST 到插件开始，p50",
    r"the same, p99": "同上，p99",
    r"the same while (\d+) due Jobs run, p99": r"同上，同时有 \1 个到期任务在执行，p99",
    r"the hub, enqueue to start, (p\d+)": r"hub，从排队到开始（不经页面），\1",
    r"pgqueuer, enqueue to start, (p\d+)": r"pgqueuer，从排队到开始，\1",
    r"the old design, enqueue to start, (p\d+)": r"旧方案，从排队到开始，\1",
    r"runs/s over (\d+) s back to back": r"连续执行 \1 秒，每秒执行数",
    r"memory of the hub grew by": "hub 内存增长",
    r"old runs that retention deleted meanwhile, of those that are to go": "期间清理的旧执行记录，占应清理的比例",
    r"as they go on, between two autovacuums: dead rows for each row, at most": "继续执行时，两次 autovacuum 之间每行对应的死行，最多",
    r"overview and runs page while runs drain, whole answer p99": "执行进行中的概览与执行记录页，完整响应 p99",
    r"of (\d+) looks at the event loop, those over 20 ms late": r"\1 次事件循环检查中晚于 20 ms 的比例",
    r"idle with 1,000 Jobs: memory of the hub": "空闲，1,000 个任务：hub 内存",
    r"of one core": "占一个核",
    r"memory once it has run each Job and shown its pages": "每个任务执行过一次、页面打开过之后的内存",
    r"pgqueuer, idle: memory": "pgqueuer，空闲：内存",
    r"apscheduler, idle with (\d+) jobs: memory": r"APScheduler，空闲，\1 个任务：内存",
    r"the old design, idle: memory of beat, worker and Redis": "旧方案，空闲：beat、worker 与 Redis 的内存",
    r"overview at (\d+) runs, first byte p99": r"\1 条执行记录时的概览，首字节 p99",
    r"runs page at (\d+) runs, first byte p99": r"\1 条执行记录时的执行记录页，首字节 p99",
    r"Job page at (\d+) runs, first byte p99": r"\1 条执行记录时的任务页，首字节 p99",
    r".* at \d+ runs, first byte of the first look": "同上，hub 启动后的第一次",
    r"a run that logs (\d+) lines, of a plain file": r"一次执行写 \1 行日志，对普通文件",
    r"a hundred runs that log as much together": "一百次执行共写同样多",
    r"memory of the hub at its peak, over what it was before": "hub 内存峰值，比之前多出",
    r"(\d+) hubs on one database, of one hub's runs/s": r"\1 个 hub 共用数据库，对一个 hub 的每秒执行数",
    r"(\d+) s beside an open transaction: runs/s, end against beginning": r"旁边有未结束的事务，\1 秒：每秒执行数，末段对初段",
    r"a claim, end against beginning": "一次领取所需的时间，末段对初段",
    r"an unrelated indexed query, p50": "无关的索引查询，p50，末段对初段",
    r"row 1 with secrets, logged and returned": "第 1 行加上密钥（解密、写日志、返回）",
    r"processor time of the hub, a run that decrypts, logs, masks and returns": "每次执行占用的处理器时间：解密、写日志、脱敏并返回时的 hub",
}


def main() -> None:
    """Rewrite the two tables."""
    measured = json.loads(Path(*(sys.argv[1:] or ["benchmarks.json"])).read_text())
    figures = sorted(measured["figures"], key=lambda figure: int(figure["row"]))
    for name, head in _HEADS.items():
        file = _DOCS / name
        before = file.read_text("utf-8")
        table = _TABLE.search(before)
        if table is None:
            raise SystemExit(f"{file} has no table to put the figures into")
        lines = "".join(_line(name, figure) for figure in figures)
        file.write_text(f"{before[: table.start()]}{head}{lines}\n{before[table.end() :]}", "utf-8")


def _line(page: str, figure: dict[str, Any]) -> str:
    what, unit = figure["what"], figure["unit"]
    if page.endswith("zh-CN.md"):
        what = in_chinese(what)
    goal = ratio = ""
    if figure["goal"] is not None:
        goal = f"{_BOUNDS[page][figure['is_least']]} {_number(figure['goal'])} {unit}"
        ratio = f"{figure['ratio']:.2f}" + ("" if figure["is_met"] else f" **{_MISSED[page]}**")
    return f"| {figure['row']} | {what} | {goal} | {_number(figure['value'])} {unit} | {ratio} |\n"


def in_chinese(what: str) -> str:
    """What a figure is called in Chinese."""
    for pattern, chinese in _CHINESE.items():
        if found := re.fullmatch(pattern, what):
            return found.expand(chinese)
    raise SystemExit(f"{what!r} has no Chinese name in {__file__}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()

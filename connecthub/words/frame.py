"""Texts of the frame around every page: by key, English and Chinese."""

from typing import Final

TEXTS: Final[dict[str, tuple[str, str]]] = {
    "nav": ("Main navigation", "主导航"),
    "more": ("More", "更多"),
    "audit": ("Audit", "审计"),
    "users": ("Users", "用户"),
    "skip": ("Skip to the content", "跳到正文"),
    "search_everything": ("Job, tag, #run", "任务、标签、#执行编号"),
    "other_language": ("中文", "English"),
    "keys": ("Keyboard shortcuts", "快捷键"),
    "keys_on": ("Shortcuts work in this browser", "在此浏览器中启用快捷键"),
    "key.search": ("Search", "搜索"),
    "key.overview": ("Overview", "概览"),
    "key.jobs": ("Jobs", "任务"),
    "key.runs": ("Runs", "执行记录"),
    "key.rows": ("Next and previous row", "下一行、上一行"),
    "key.open": ("Open the row", "打开该行"),
    "key.tick": ("Tick the row", "勾选该行"),
    "key.run": ("Run now (asks first)", "立即执行（先确认）"),
    "key.edit": ("Edit", "编辑"),
    "key.beside": ("Run before and after", "上一次、下一次执行"),
    "key.follow": ("Follow the log", "跟随日志"),
    "key.wrap": ("Wrap the log's lines", "日志换行"),
    "key.save": ("Save", "保存"),
    "key.list": ("This list", "本列表"),
    "pause": ("Pause", "暂停调度"),
    "pause_all": ("Pause all", "全部暂停"),
    "resume": ("Resume", "恢复调度"),
    "pause_question": ("Pause all hubs?", "暂停所有节点的调度？"),
    "pause_says": (
        "{jobs:Job stops|Jobs stop} firing on all hubs, {running:running run goes|running runs go} on. What people start waits in the queue. "
        "Fire times meanwhile are handled as missed ones after the resume.",
        "所有节点上的 {jobs} 个任务不再触发，正在执行的 {running} 个不受影响。手动启动的执行会排队等待。"
        "暂停期间的触发时间在恢复后按错过处理。",
    ),
    "pause_now": ("Pause {jobs:Job|Jobs}", "暂停 {jobs} 个任务"),
    "paused_by": (
        "Paused by {by} since {at}: no Job starts.",
        "{by} 于 {at} 暂停了调度，所有任务不再启动。",
    ),
    "outdated": (
        "A newer version has migrated the database: this hub fires and starts nothing any more. "
        "Stop it, and start the newer version.",
        "数据库已被新版本升级，本节点不再触发或启动任何执行。请停止本节点，改用新版本启动。",
    ),
    "old_code": (
        "{hub} runs code from before a change of {modules}. Start it again to use what is in the files now.",
        "节点 {hub} 运行的仍是修改前的 {modules}，重启该节点后才使用新代码。",
    ),
    "crashed": (
        "This page failed (request {number}). Runs go on. The hub's log has the error under this number.",
        "页面出错（请求编号 {number}）。任务执行不受影响，可按此编号在系统日志中查找原因。",
    ),
}

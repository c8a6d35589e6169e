"""Texts of the pages of runs: by key, English and Chinese."""

from typing import Final

TEXTS: Final[dict[str, tuple[str, str]]] = {
    "run_number": ("run #{id}", "执行 #{id}"),
    "retry": ("Retry as it ran", "按当时配置重试"),
    "cancel_run": ("Cancel run", "终止执行"),
    "cancel_hint": (
        "What the run has already changed in other systems stays.",
        "已写入外部系统的内容不会撤回。",
    ),
    "search_runs": ("Job id", "任务 ID"),
    "no_runs": ("No run matches.", "没有符合条件的执行记录。"),
    "no_log": ("This run has written nothing.", "本次执行没有日志。"),
    "bad_number": ("The number of a run is expected, such as 18431.", "需要执行编号，例如 18431。"),
    "no_run": ("There is no run #{id}.", "没有执行 #{id}。"),
    "still_running": (
        "still running: wait until the run has ended, then retry",
        "正在运行中，请结束后再重试",
    ),
    "run_ended": ("Run #{id} has ended already.", "执行 #{id} 已经结束。"),
    "latest_runs": ("Latest runs", "最近执行"),
    "all_runs": ("all runs", "全部执行记录"),
    "snapshot": ("What it ran with", "执行时配置"),
    "message": ("Message", "消息"),
    "result": ("Result", "结果"),
    "progress": ("Progress", "进度"),
    "traceback": ("Traceback", "堆栈"),
    "log": ("Log", "日志"),
    "detail": ("Detail", "详情"),
    "retry_of": ("Retry of", "重试自"),
    "cancelling": ("Cancelling…", "终止中…"),
    "lost_hint": (
        "Result unknown: the hub stopped answering. Look in the outside system before you retry.",
        "结果未知：执行节点失联，重试前请先核对外部系统。",
    ),
}

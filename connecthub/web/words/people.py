"""Texts of the doors: log-in, accounts, audit: by key, English and Chinese."""

from typing import Final

TEXTS: Final[dict[str, tuple[str, str]]] = {
    "login": ("Log in", "登录"),
    "logout": ("Log out", "退出"),
    "username": ("User", "用户名"),
    "password": ("Password", "密码"),
    "login_wrong": ("Name or password is wrong.", "用户名或密码错误。"),
    "login_needed": ("Log in first.", "请先登录。"),
    "forged": (
        "This request did not come from a page of this hub. Open the page again and repeat it there.",
        "请求不是来自本系统的页面，请重新打开页面后再试。",
    ),
}

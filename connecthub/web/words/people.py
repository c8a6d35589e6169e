"""Texts of the doors: log-in, accounts, audit: by key, English and Chinese."""

from typing import Final

TEXTS: Final[dict[str, tuple[str, str]]] = {
    "login": ("Log in", "登录"),
    "logout": ("Log out", "退出"),
    "username": ("User", "用户名"),
    "password": ("Password", "密码"),
    "show": ("Show", "显示"),
    "login_wrong": ("Name or password is wrong.", "用户名或密码错误。"),
    "login_needed": ("Log in first.", "请先登录。"),
    "login_throttled": (
        "Too many wrong passwords. Try again in {wait}.",
        "密码错误次数过多，请在 {wait} 后重试。",
    ),
    "forged": (
        "This request did not come from a page of this hub. Open the page again and repeat it there.",
        "请求不是来自本系统的页面，请重新打开页面后再试。",
    ),
    "wrong_host": (
        "This hub does not answer under this host name ([server] allowed_hosts).",
        "不允许使用该主机名访问（[server] allowed_hosts）。",
    ),
    "role": ("Role", "角色"),
    "role.viewer": ("viewer", "只读"),
    "role.operator": ("operator", "操作员"),
    "role.admin": ("admin", "管理员"),
    "role_needed": (
        "This needs the role {role}. An admin can give it to your account.",
        "此操作需要「{role}」角色，请联系管理员授权。",
    ),
    "password_first": (
        "Change the password first.",
        "请先修改密码。",
    ),
    "account": ("My account", "我的账号"),
    "account_of": ("Account of {user}", "{user} 的账号"),
    "preferences": ("Preferences", "偏好设置"),
    "language": ("Language", "语言"),
    "language.auto": ("as the browser", "跟随浏览器"),
    "theme": ("Theme", "主题"),
    "theme.auto": ("as the system", "跟随系统"),
    "theme.light": ("light", "浅色"),
    "theme.dark": ("dark", "深色"),
    "zone_auto": ("as the browser", "跟随浏览器"),
    "zone_unknown": (
        "Must be a time zone such as Asia/Shanghai, got “{zone}”.",
        "必须是时区名称，例如 Asia/Shanghai，当前为“{zone}”。",
    ),
    "change_password": ("Change password", "修改密码"),
    "password_current": ("Present password", "当前密码"),
    "password_new": ("New password", "新密码"),
    "password_again": ("New password, again", "再次输入新密码"),
    "password_hint": (
        "At least {low} characters; several words are fine. All your other sessions end.",
        "至少 {low} 个字符，可以是几个词。其他已登录的会话会全部退出。",
    ),
    "password_must": (
        "This password was made for the first log-in. Choose one of your own to go on.",
        "当前是首次登录用的密码，请设置自己的密码后继续。",
    ),
    "password_wrong": ("The present password is wrong.", "当前密码错误。"),
    "password_differs": ("The two entries differ.", "两次输入不一致。"),
    "password_same": ("The new password is the present one.", "新密码与当前密码相同。"),
    "password_length": (
        "Must have {low} to {high} characters.",
        "长度必须为 {low} 到 {high} 个字符。",
    ),
    "password_weak": (
        "Must not contain the user name, nor be made of fewer than 4 different characters.",
        "不能包含用户名，且至少由 4 种不同的字符组成。",
    ),
    "my_sessions": ("My sessions", "我的会话"),
    "session_this": ("this one", "当前会话"),
    "session_since": ("since", "登录于"),
    "session_seen": ("last seen", "最近活动"),
    "session_from": ("from", "来源地址"),
    "session_browser": ("browser", "浏览器"),
    "session_end": ("End", "退出该会话"),
    "session_others": ("End all others", "退出其他会话"),
}

"""What keeps the hub from starting: one line that says what, where and what to do, exit status 2."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.program import AS_OTHERS, ROOT, Person, Program


def refused(folder: Path, status: int = 2, *, before: Sequence[str] = (), **environ: str) -> str:
    """The one line of a start that fails."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "connecthub"],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("CONNECTHUB_")},
            "PYTHONPATH": str(ROOT),
            "CONNECTHUB_DATA__DIR": str(folder / "data"),
            "CONNECTHUB_SERVER__PORT": "0",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_wrong_setting(tmp_path: Path) -> None:
    line = refused(tmp_path, CONNECTHUB_POOL__SIZE="many")
    assert "CONNECTHUB_POOL__SIZE" in line


def test_an_unreachable_database(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    line = refused(tmp_path, CONNECTHUB_DATABASE__URL=f"postgresql://u:canary-password@127.0.0.1:{port}/x")
    assert "database" in line and "[database] url" in line and "canary-password" not in line


@pytest.mark.parametrize("password", ["12?canary-password", "12@localhost:canary-password"])
def test_a_password_with_unquoted_characters_is_not_shown(tmp_path: Path, password: str) -> None:
    line = refused(tmp_path, CONNECTHUB_DATABASE__URL=f"postgresql://u:{password}@127.0.0.1/x")
    assert "CONNECTHUB_DATABASE__URL" in line and "%40" in line and "canary-password" not in line


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, CONNECTHUB_SERVER__PORT=str(port))
    assert f"127.0.0.1:{port}" in line and "[server] port" in line


def test_an_unwritable_data_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refused(tmp_path, CONNECTHUB_DATA__DIR=str(tmp_path / "file" / "data"))
    assert "data folder" in line and "[data] dir" in line


def test_a_plugin_folder_that_is_none(tmp_path: Path) -> None:
    line = refused(tmp_path, CONNECTHUB_PLUGINS__PATH=str(tmp_path / "nowhere"))
    assert "nowhere" in line and "[plugins] path" in line


@pytest.mark.parametrize("place", ["CONNECTHUB_PLUGINS__PATH", "CONNECTHUB_CONFIG"])
def test_a_place_that_this_user_may_not_enter(tmp_path: Path, place: str) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), place: str(tmp_path / "closed" / "there")}
    line = refused(tmp_path, 78, before=AS_OTHERS, **environ)
    assert "closed/there" in line and "this user may not enter" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others do not get there")
def test_a_current_folder_that_this_user_may_not_look_into(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    assert "CONNECTHUB_POOL__SIZE" in refused(closed, before=AS_OTHERS, CONNECTHUB_POOL__SIZE="many")


def test_a_service_manager_can_tell_wrong_settings_from_what_may_pass(tmp_path: Path) -> None:
    manager = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    assert "must be" in refused(tmp_path, 78, **manager, CONNECTHUB_POOL__SIZE="many")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "end what listens there" in refused(tmp_path, 2, **manager, CONNECTHUB_SERVER__PORT=port)
    url = f"postgresql://u@127.0.0.1:{port}/x"
    assert "that the server runs" in refused(tmp_path, 2, **manager, CONNECTHUB_DATABASE__URL=url)


def test_a_key_that_others_can_read_and_a_key_that_does_not_fit(tmp_path: Path) -> None:
    with Program(tmp_path) as program:
        assert program.stop() == 0
    key = tmp_path / "data" / "fernet.key"
    key.chmod(0o644)
    assert f"chmod 600 {key}" in refused(tmp_path)
    key.unlink()
    assert "key" in refused(tmp_path), "the database holds a canary of the lost key"


def test_the_example_configuration_starts_as_it_is(tmp_path: Path) -> None:
    shutil.copy(ROOT / "config.example.toml", tmp_path / "config.toml")
    with Program(tmp_path) as program:
        person = Person(program.url)
        person.sign_in(program.password)
        ready = person.get("/health/ready")
        assert ready.status_code == 200, ready.text
        assert program.stop() == 0


def test_the_setting_gives_the_first_password(tmp_path: Path) -> None:
    with Program(tmp_path, {"CONNECTHUB_SECURITY__ADMIN_PASSWORD": "chosen by hand"}) as program:
        assert not (program.data / "admin-password").exists()
        Person(program.url).sign_in("chosen by hand")
        with pytest.raises(AssertionError):
            Person(program.url).sign_in("something else")


def test_the_hub_goes_on_after_a_kill(tmp_path: Path) -> None:
    with Program(tmp_path) as program:
        program.process.kill()
        program.process.wait()
    with Program(tmp_path) as program:
        assert program.stop() == 0


def test_the_first_password_is_shown_on_a_terminal_alone(tmp_path: Path) -> None:
    with Program(tmp_path / "piped") as program:
        assert program.password not in "".join(program.lines)
        assert program.stop() == 0
    mine, its = pty.openpty()
    environ = {
        **os.environ,
        "CONNECTHUB_DATA__DIR": str(tmp_path / "data"),
        "CONNECTHUB_SERVER__PORT": "0",
        "CONNECTHUB_PLUGINS__PATH": str(ROOT),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "connecthub"]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=its, stderr=its) as process:
        os.close(its)
        said = ""
        while "the password is in" not in said or not said.endswith("\n"):
            said += os.read(mine, 4096).decode()
        process.send_signal(signal.SIGTERM)
        while reading(mine):
            pass
    os.close(mine)
    assert (tmp_path / "data" / "admin-password").read_text().strip() in said


def reading(terminal: int) -> bool:
    """Read on until the other side has gone, which Linux tells as an error."""
    try:
        return bool(os.read(terminal, 4096))
    except OSError:
        return False


def test_ctrl_c_while_it_loads_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(9)"
    )
    # What a shell starts in the background without job control ignores SIGINT, and so would its children.
    with_default = (
        "import os, signal, sys\nsignal.signal(2, signal.SIG_DFL)\nos.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", with_default, sys.executable, "-m", "connecthub", "check"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")

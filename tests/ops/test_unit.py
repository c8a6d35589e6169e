"""connecthub.service under its hardening, with the embedded PostgreSQL, on a machine with systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path

from tests.faults.conftest import needs
from tests.ops.machine import Machine
from tests.program import ROOT, Person
from tests.test_run_life import create, run_now, wait_for

CONFIG = """
[server]
port = {port}
[data]
dir = "/var/lib/connecthub"
[security]
admin_password = "only root reads this"
[plugins]
packages = ["tests"]
"""

# The commands of docs/install.md, the lines before the second, and the mode of config.toml there.
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "install.md").read_text("utf-8"), re.S)
WRAPPER, AS_ROOT = [block for block in BLOCKS if block.startswith("#!/bin/sh\n")]
(KEY_OF_ROOT,) = [block for block in BLOCKS if "LoadCredential=" in block]
COMMAND_LINE = """printf %s "$0" > /usr/local/bin/connecthub; chmod 755 /usr/local/bin/connecthub
chgrp connecthub /etc/connecthub /etc/connecthub/config.toml; chmod 750 /etc/connecthub
chmod 640 /etc/connecthub/config.toml
"""

IMPATIENT = "mkdir -p $0; printf '[Service]\\nWatchdogSec=5\\n' > $0/test.conf\n"
# The hub is started again while the rotation waits for it.
ROTATE = "connecthub key rotate & sleep 5; systemctl restart connecthub; wait $!"

# Settings that are wrong, and none at all, by the status of the start.
SPOILT = {"sed -i 's/^port = .*/port = \"many\"/'": "78", "rm": "243"}


def test_the_unit_runs_jobs_drains_them_and_is_started_again_when_it_stands_still(tmp_path: Path) -> None:
    needs("root", os.geteuid() == 0)
    for program in ("systemd-nspawn", "debootstrap", "nsenter"):
        needs(program, shutil.which(program) is not None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with Machine(tmp_path, url, CONFIG.format(port=port)) as machine:
        # It answers a moment before it says so.
        machine.until(
            lambda: (machine.unit("ActiveState"), machine.unit("SubState")) == ("active", "running")
        )
        person = Person(url)
        person.sign_in("only root reads this")

        create(person, "echo", "EchoJob", secret_cfg='{"token": "canary-7f3a"}')
        wait_for(person, run_now(person, "echo"), "Success")
        handlers = {"limited": "tests.engine.process_jobs:FatJob", "slow": "tests.faults.jobs:AsyncJob"}
        slow = {"witness": "/var/lib/connecthub/witness", "seconds": 5}
        for (job_id, handler), params in zip(handlers.items(), ({}, slow), strict=True):
            create(person, job_id, "", handler_path=handler, public_cfg=json.dumps(params))
        wait_for(person, run_now(person, "limited"), "it may use 200 MiB (memory_mb)")

        machine.run("sh", "-ec", COMMAND_LINE, WRAPPER)
        checked = machine.run("connecthub", "check")  # beside the hub, as its user and with its settings
        assert "ok       hubs: alive" in checked and "fault" not in checked, checked
        assert "echo" in machine.run("connecthub", "job", "list")
        machine.run("connecthub", "backup", "/var/lib/connecthub/b.zip")

        going = run_now(person, "slow")
        wait_for(person, going, "Running")
        machine.run("systemctl", "stop", "connecthub")
        assert (machine.unit("Result"), machine.unit("ExecMainStatus")) == ("success", "0")
        machine.run("systemctl", "start", "connecthub")
        wait_for(person, going, "Success")

        machine.run("sh", "-ec", IMPATIENT + KEY_OF_ROOT, "/run/systemd/system/connecthub.service.d")
        machine.run("sh", "-ec", COMMAND_LINE, AS_ROOT)
        rotated = machine.run("sh", "-ec", ROTATE)
        assert "waiting for" in rotated and "secrets re-encrypted" in rotated, rotated
        machine.run("connecthub", "key", "retire")
        assert "fault" not in machine.run("connecthub", "check")
        owners = machine.run(
            "find", "/var/lib/connecthub", "-ignore_readdir_race", "!", "-user", "connecthub"
        )
        assert not owners, owners
        wait_for(person, run_now(person, "echo"), "Success")  # its secrets by the key that is root's
        machine.run("systemctl", "kill", "--signal=STOP", "--kill-who=main", "connecthub")
        machine.until(lambda: machine.unit("NRestarts") == "1" and machine.answers())

        for (
            spoil,
            status,
        ) in SPOILT.items():  # `failed` is the end; what is to be started again is `activating`
            machine.run(
                "sh", "-c", f"{spoil} /etc/connecthub/config.toml; systemctl restart connecthub; true"
            )
            assert (machine.unit("ActiveState"), machine.unit("ExecMainStatus")) == ("failed", status)

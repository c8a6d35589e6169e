"""The alert rules, as Prometheus reads them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.faults.conftest import needs
from tests.program import ROOT


@pytest.mark.ci
def test_prometheus_takes_the_rules() -> None:
    needs("promtool", shutil.which("promtool") is not None)
    argv = ["promtool", "check", "rules", str(ROOT / "docs" / "alerts.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr

"""The alert rules, as Prometheus reads them, and what they say to figures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.conftest import needs
from tests.program import ROOT

RULES = ROOT / "docs" / "alerts.yml"


def promtool(*words: str) -> str:
    needs("promtool (package prometheus)", shutil.which("promtool") is not None)
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.ci
def test_prometheus_takes_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


@pytest.mark.ci
def test_they_speak_where_they_should_and_nowhere_else(tmp_path: Path) -> None:
    cases = tmp_path / "alerts_test.yml"
    cases.write_text((Path(__file__).parent / "alerts_test.yml").read_text().replace("RULES", str(RULES)))
    assert "SUCCESS" in promtool("test", "rules", str(cases))

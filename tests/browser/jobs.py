"""Jobs whose runs a test conducts: they do what a file says, line by line, while it is written."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from connecthub.plugins import BaseJob

log = logging.getLogger(__name__)


class ScriptJob(BaseJob):
    """Do what the lines of a file say, as they are written.

    A line is a word and its text: `say`, `warn`, `progress 3/10`, `fail`, `end`.
    """

    class Params(BaseModel):
        script: str = Field(description="Path of the file")
        tone: Literal["calm", "loud"] = Field("calm", description="How it is said")
        pages: int = Field(1, ge=1, le=168, description="How often the last line is said")
        dry_run: bool = Field(False, description="Say what would be said, and say nothing")

    class Secrets(BaseModel):
        token: str | None = Field(None, description="Needed by nobody")

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
        if params.get("dry_run"):
            return {"message": "nothing was said", "dry_run": True}
        done = 0
        while not self.ctx.cancelled:
            lines = Path(params["script"]).read_text(encoding="utf-8").splitlines()
            for line in lines[done:]:
                word, _, text = line.partition(" ")
                if word == "end":
                    return {"message": f"said {done} lines", "total": done}
                self._do(word, text)
                done += 1
            time.sleep(0.02)  # the file is written by another process
        return {"message": "was told to stop"}

    def _do(self, word: str, text: str) -> None:
        if word == "progress":
            number, _, total = text.partition("/")
            self.ctx.progress(int(number), int(total))
        elif word == "fail":
            log.error("%s", text)
            raise RuntimeError(text)
        elif word == "warn":
            log.warning("%s", text)
        else:
            log.info("%s", text)

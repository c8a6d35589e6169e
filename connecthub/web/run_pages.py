"""What a run's page and the list of runs hand out beside themselves: the log live and as a file, and CSV."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from connecthub.storage import run_page
from connecthub.storage.database import Database
from connecthub.web import run_csv
from connecthub.web.csv_file import csv_response
from connecthub.web.run_list import read_filter
from connecthub.web.run_log import stream
from connecthub.web.views import run_number


class RunFiles:
    """A run's log as a stream and as a file, and all runs that match as CSV."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def routes(self) -> list[BaseRoute]:
        """To be guarded by roles.NEEDED, by name."""
        return [
            Route("/joblogs/csv", self.csv, name="runs_csv"),
            Route("/joblogs/{log_id}/log", self.download, name="run_log"),
            Route("/joblogs/{log_id}/log/stream", self.stream, name="run_stream"),
        ]

    async def csv(self, request: Request) -> Response:
        """The runs that match, newest first."""
        zone = request.state.zone
        wanted = read_filter(request.query_params, zone, datetime.now(UTC))
        name = f"runs-{datetime.now(zone):%Y%m%d-%H%M%S}.csv"
        return csv_response(name, run_csv.COLUMNS, run_csv.batches(self._database, wanted, zone))

    async def stream(self, request: Request) -> Response:
        """The log from the line after Last-Event-ID on, as server-sent events."""
        log_id = run_number(request.path_params["log_id"])
        last = request.headers.get("last-event-id") or request.query_params.get("line", "0")
        if not (last.isascii() and last.isdigit() and len(last) < 10):
            raise HTTPException(400, "bad_request")
        if await run_page.read_growth(self._database, log_id) is None:
            raise HTTPException(404, "not_found")
        events = stream(self._database, log_id, int(last))
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def download(self, request: Request) -> Response:
        """The log as a file of text."""
        log_id = run_number(request.path_params["log_id"])
        row = await run_page.read_growth(self._database, log_id)
        if row is None:
            raise HTTPException(404, "not_found")
        name = f'attachment; filename="run-{log_id}.log"'
        return PlainTextResponse(row["run_log"] or "", headers={"Content-Disposition": name})

"""`python -m tests.standins`: both stand-ins on fixed ports, to try the example Jobs by hand."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from pathlib import Path
from typing import Any

from tests.standins.dataset import make_dataset
from tests.standins.didi import SECRETS as DIDI_SECRETS
from tests.standins.didi import DidiStandin
from tests.standins.oa import SECRETS as OA_SECRETS
from tests.standins.oa import TEMPLATE, OaStandin


def job_settings(oa_url: str, didi_url: str) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Class name of each example Job -> its public_cfg and secret_cfg for these stand-ins."""
    return {
        "SyncOAToDidiTokenJob": ({"base_url": oa_url}, OA_SECRETS),
        "SyncOAToDidiExportFormJob": ({"base_url": oa_url, "templateCode": TEMPLATE}, OA_SECRETS),
        "SyncOAToDidiLegalEntitySyncJob": (
            {"oa_base_url": oa_url, "oa_templateCode": TEMPLATE, "didi_base_url": didi_url},
            {**OA_SECRETS, **DIDI_SECRETS},
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.standins", description=__doc__)
    parser.add_argument("--oa-port", type=int, default=18081, help="0 takes a free one (default: 18081)")
    parser.add_argument("--didi-port", type=int, default=18082, help="0 takes a free one (default: 18082)")
    parser.add_argument("--rows", type=int, default=1250, help="rows of the OA form (default: 1250)")
    parser.add_argument(
        "--ready-file", type=Path, help="written as JSON with both addresses once they listen"
    )
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    data = make_dataset(options.rows)
    try:
        standins = OaStandin(data, options.oa_port), DidiStandin(data, options.didi_port, _print_edit)
    except OSError as error:
        parser.error(f"a port cannot be used ({error}); choose others with --oa-port and --didi-port")
    with standins[0] as oa, standins[1] as didi:
        _print_settings(oa.url, didi.url, data.expected.success)
        if options.ready_file:
            _write(options.ready_file, {"oa_url": oa.url, "didi_url": didi.url})
        stop.wait()


def _write(path: Path, addresses: dict[str, str]) -> None:
    """In one step: who waits for the file never reads half of it."""
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(json.dumps(addresses), encoding="utf-8")
    draft.rename(path)


def _print_settings(oa_url: str, didi_url: str, edits: int) -> None:
    print(f"致远 OA       {oa_url}   state: {oa_url}/_standin/state")
    print(f"滴滴企业版    {didi_url}   state: {didi_url}/_standin/state")
    for name, (public, secret) in job_settings(oa_url, didi_url).items():
        print(f"\nhandler_path  extensions.sync_oa_to_didi.job:{name}")
        print(f"public_cfg    {json.dumps(public, ensure_ascii=False)}")
        print(f"secret_cfg    {json.dumps(secret, ensure_ascii=False)}")
    print(f"\nA first synchronisation makes {edits} edits, a second one none. Ctrl+C ends.\n", flush=True)


def _print_edit(edit: dict[str, Any]) -> None:
    print(
        f"edit  {edit['employee_number']}  {edit['before']} -> {edit['legal_entity_id']}  "
        f"gap {edit['gap_ms']} ms",
        flush=True,
    )


if __name__ == "__main__":
    main()

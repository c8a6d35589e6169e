"""Stand-ins of the outside systems: real HTTP servers on loopback that speak their wire formats and oddities.

In a test: `with OaStandin(data) as oa, DidiStandin(data) as didi: ...`. By hand: `python -m tests.standins`.
"""

from tests.standins.dataset import Dataset, make_dataset, member, oa_row
from tests.standins.didi import DidiStandin
from tests.standins.oa import OaStandin
from tests.standins.server import Fault, Standin

__all__ = ["Dataset", "DidiStandin", "Fault", "OaStandin", "Standin", "make_dataset", "member", "oa_row"]

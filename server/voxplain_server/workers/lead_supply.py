"""Where a call gets its workers from, its lead among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from voxplain_server.workers.leases import Supply

if TYPE_CHECKING:
    from voxplain_server.workers.call import Call


class LeadSupply(Supply, Protocol):
    """As Supply, and finds a new lead."""

    def replace_lead(self, call: Call) -> None:
        """Find a new lead, before all who wait; it comes by `Call.join`."""

    def lend(self) -> None:
        """Lend idle workers to calls that want help; they come by `Call.join`."""

"""The client: typed calls, the `voxplain` command, NIfTI in and out, pictures.

Importing it needs the base installation only; NIfTI files, pictures and the command need the extra `imaging`.
"""

from voxplain.errors import VoxplainError
from voxplain.volume import Geometry, Volume

from voxplain_client.access import Access
from voxplain_client.async_client import AsyncClient
from voxplain_client.async_explanation import AsyncExplanation
from voxplain_client.client import Client
from voxplain_client.events import Accepted, Event, MapReceived, MethodResult, Prediction, Progress, Record, Resuming
from voxplain_client.explanation import Explanation
from voxplain_client.explanation_result import ExplanationResult
from voxplain_client.method_names import METHOD_NAMES, make_method
from voxplain_client.retry_policy import RetryPolicy
from voxplain_client.targets import contrast, make_target, predicted_class

__all__ = [
    "METHOD_NAMES",
    "Accepted",
    "Access",
    "AsyncClient",
    "AsyncExplanation",
    "Client",
    "Event",
    "Explanation",
    "ExplanationResult",
    "Geometry",
    "MapReceived",
    "MethodResult",
    "Prediction",
    "Progress",
    "Record",
    "Resuming",
    "RetryPolicy",
    "Volume",
    "VoxplainError",
    "contrast",
    "make_method",
    "make_target",
    "predicted_class",
]

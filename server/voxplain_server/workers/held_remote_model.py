"""A remote model as a worker holds it: a description and a way to ask."""

from __future__ import annotations

from voxplain.errors import UnsupportedByModel

from voxplain_server.engines.engine import Differentiable
from voxplain_server.engines.file_session import FileSession
from voxplain_server.engines.remote_engine import RemoteEngine
from voxplain_server.models.model import Model
from voxplain_server.models.remote_access import RemoteAccess


class HeldRemoteModel:
    """As HeldModel, for a model that another server holds. It was read when it was checked, and the engine looks at every job's
    beginning whether the other server still tells the same.

    Args:
        model: as it was checked.
        access: which servers may be asked.
    """

    def __init__(self, model: Model, *, access: RemoteAccess) -> None:
        self.model = model
        self.evaluator = RemoteEngine(model, access=access)
        self.gradient_engine = self.evaluator.name

    def evaluator_named(self, engine: str) -> RemoteEngine:
        """The one there is."""
        return self.evaluator

    def incremental_named(self, engine: str) -> None:
        """None: what a perturbation changes inside the model is out of sight."""
        return None

    @property
    def twin(self) -> Differentiable:
        """There is none. Raises UnsupportedByModel: REMOTE_MODEL."""
        raise UnsupportedByModel("REMOTE_MODEL", "another server holds the model and answers with scores, not with gradients")

    @property
    def file(self) -> FileSession:
        """There is none. Raises UnsupportedByModel: REMOTE_MODEL."""
        raise UnsupportedByModel(
            "REMOTE_MODEL", "another server holds the model; ask that one for predictions", field="model_name"
        )

    def forget(self) -> None:
        """Close the connection; called when a call has ended."""
        self.evaluator.forget()

    def rest(self) -> None:
        """The same."""
        self.forget()

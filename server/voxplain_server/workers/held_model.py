"""A model in a worker's memory, ready to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from voxplain.errors import UnsupportedByModel

from voxplain_server.engines.engine import Differentiable, Evaluator
from voxplain_server.engines.file_session import FileSession
from voxplain_server.engines.onnx_engine import OnnxEngine
from voxplain_server.graph.model_file_error import ModelFileError
from voxplain_server.graph.onnx_file import read_onnx_file
from voxplain_server.models.bundle_place import BundlePlace
from voxplain_server.models.loading import MAX_MODEL_BYTES, LoadedModel, load_model
from voxplain_server.models.model import Model
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.remote_access import NO_REMOTE, RemoteAccess
from voxplain_server.workers.held_remote_model import HeldRemoteModel

if TYPE_CHECKING:
    from voxplain_server.engines.incremental_engine import IncrementalEvaluator
    from voxplain_server.engines.torch_evaluator import TorchEvaluator


class HeldModel:
    """A loaded model with its engines; the twin is built when the first gradient method asks for it, and the engine that
    recomputes only what changes when the first call names it.

    Args:
        loaded: the model.
        threads: compute threads.
        device: where it computes.
    """

    def __init__(self, loaded: LoadedModel, *, threads: int, device: Literal["cpu", "cuda"] = "cpu") -> None:
        self.model: Model = loaded.model
        self.evaluator = OnnxEngine(loaded.proto, loaded.model, threads=threads, device=device)
        self.gradient_engine = f"torch-{device}"
        self._graph = loaded.graph
        self._threads = threads
        self._device: Literal["cpu", "cuda"] = device
        self._twin: Differentiable | None = None
        self._torch: TorchEvaluator | None = None
        self._incremental: dict[str, IncrementalEvaluator] = {}
        self._file: FileSession | None = None

    def evaluator_named(self, engine: str) -> Evaluator:
        """The engine that scores perturbed cases in a call; ONNX Runtime where the name is not of another one."""
        return self.incremental_named(engine) or self._whole_passes(engine)

    def incremental_named(self, engine: str) -> IncrementalEvaluator | None:
        """The engine that recomputes only what changes, where it is the one that is named.

        Raises:
            voxplain_server.graph.unsupported_operator.UnsupportedOperator: the model has none; checking it has said so.
        """
        if engine not in (f"incremental-{self._device}", f"incremental-torch-{self._device}"):
            return None
        if engine not in self._incremental:
            from voxplain_server.engines.incremental_engine import IncrementalEvaluator

            dense = self._whole_passes(engine.removeprefix("incremental-"))
            self._incremental[engine] = IncrementalEvaluator(
                self._graph, self.model, dense, device=self._device, threads=self._threads
            )
        return self._incremental[engine]

    def _whole_passes(self, engine: str) -> Evaluator:
        if engine != f"torch-{self._device}":
            return self.evaluator
        if self._torch is None:
            from voxplain_server.engines.torch_evaluator import TorchEvaluator
            from voxplain_server.graph.twin import build_twin

            twin = build_twin(self._graph, outputs=[self.model.output.score_name])
            self._torch = TorchEvaluator(twin, self.model, device=self._device, threads=self._threads)
        return self._torch

    @property
    def twin(self) -> Differentiable:
        """The differentiable engine."""
        if self._twin is None:
            # torch takes seconds and hundreds of MiB: perturbation methods do without.
            from voxplain_server.engines.torch_engine import TorchEngine
            from voxplain_server.graph.twin import build_twin

            twin = build_twin(self._graph, outputs=[self.model.output.score_name])
            self._twin = TorchEngine(twin, self.model, device=self._device, threads=self._threads)
        return self._twin

    @property
    def file(self) -> FileSession:
        """The model's file as it is, read anew when the first raw tensors come: a second copy of its weights.

        Raises:
            voxplain.errors.UnsupportedByModel: MODEL_CHANGED; there is another file now.
        """
        if self._file is None:
            try:
                read = read_onnx_file(self.model.onnx_path, max_bytes=MAX_MODEL_BYTES)
            except (ModelFileError, OSError) as error:
                raise _changed() from error
            if read.digest != self.model.digest:
                raise _changed()
            self._file = FileSession(read.proto, threads=self._threads, device=self._device)
        return self._file

    def forget(self) -> None:
        """Let go of the last case; called when its call has ended."""
        for engine in self._incremental.values():
            engine.forget()

    def rest(self) -> None:
        """Give back the memory that engines keep between passes; called when a job has ended."""
        self.forget()
        self.evaluator.shrink()


Held = HeldModel | HeldRemoteModel
"""Whatever a worker holds of a model."""


class HeldModels:
    """The models that a worker keeps loaded; the one used longest ago goes first.

    Args:
        threads: compute threads.
        device: where they compute.
        remote: which inference servers may be asked for models that lie there.
    """

    def __init__(self, *, threads: int, device: Literal["cpu", "cuda"] = "cpu", remote: RemoteAccess = NO_REMOTE) -> None:
        self._threads = threads
        self._device: Literal["cpu", "cuda"] = device
        self._remote = remote
        self._held: dict[str, Held] = {}

    def hold(self, checked: Model, *, most: int) -> Held:
        """The model that was checked, from memory or from its folder.

        Raises:
            voxplain.errors.UnsupportedByModel: MODEL_CHANGED; the folder holds another model now.
        """
        key = f"{checked.digest} {checked.metadata_digest}"
        held = self._held.pop(key, None)
        if held is None:
            while len(self._held) >= max(most, 1):
                del self._held[next(iter(self._held))]
            held = self._load(checked)
        self._held[key] = held
        return held

    def _load(self, checked: Model) -> Held:
        if checked.remote is not None:
            return HeldRemoteModel(checked, access=self._remote)
        try:
            loaded = load_model(BundlePlace(checked.name, checked.version, checked.folder))
        except ModelRefused as error:
            raise _changed() from error
        if (loaded.model.digest, loaded.model.metadata_digest) != (checked.digest, checked.metadata_digest):
            raise _changed()
        return HeldModel(loaded, threads=self._threads, device=self._device)


def _changed() -> UnsupportedByModel:
    return UnsupportedByModel(
        "MODEL_CHANGED",
        "the model's files changed since the server checked them; ask again when it has looked at them",
        field="model",
    )

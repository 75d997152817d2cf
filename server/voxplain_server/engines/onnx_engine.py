"""Full forward passes by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from voxplain import errors

from voxplain_server.engines.batch_buffer import BatchBuffer
from voxplain_server.engines.batched_scores import ask, batched_scores
from voxplain_server.engines.engine import Cancelled
from voxplain_server.engines.input_assembly import assemble
from voxplain_server.engines.perturbation import Perturbation
from voxplain_server.models.case import Case
from voxplain_server.models.model import Model
from voxplain_server.models.score import Score

if TYPE_CHECKING:
    import torch

    from voxplain_server.engines.device_buffer import DeviceBuffer

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "tf32"]

_DTYPES: dict[str, str] = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_LOG_ERRORS_ONLY = 3


class OnnxEngine:
    """Evaluates perturbed cases by ONNX Runtime (an Evaluator).

    Scores are read at OutputSpec.score_name, which may lie inside the graph: it is made the only output of a copy.

    Args:
        model_file: the ONNX file's bytes or the parsed model; weights inside.
        model: the bundle's description of it.
        threads: compute threads.
        device: where it runs.
        precision: "tf32" lets a GPU round products to 10 bits: it moves differences of scores and is off by default.

    Raises:
        voxplain.errors.UnsupportedByModel: an input holds elements other than floating-point numbers.
        voxplain.errors.ServerUnavailable: CUDA was asked for and ONNX Runtime did not get it.
    """

    def __init__(
        self,
        model_file: bytes | onnx.ModelProto,
        model: Model,
        *,
        threads: int,
        device: Device = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self._model = model
        self._device: Device = device
        self._run_options = onnxruntime.RunOptions()
        self._interrupted = False
        self._last_shapes: tuple[tuple[int, ...], ...] | None = None
        scored = with_score_output(model_file, model.output.score_name)
        self._session = open_session(scored, threads=threads, device=device, precision=precision)
        types = {value.name: value.type for value in self._session.get_inputs()}
        if any(types.get(spec.name) not in _DTYPES for spec in model.inputs):
            raise errors.UnsupportedByModel(
                "INPUT_TYPE", "an input of the model does not hold float16, float32 or float64; export it with float32 inputs"
            )
        self._dtypes = [_DTYPES[types[spec.name]] for spec in model.inputs]

    @property
    def name(self) -> str:
        """Stands in plans and records: "onnxruntime-cpu" or "onnxruntime-cuda"."""
        return f"onnxruntime-{self._device}"

    def answer(self, case: Case) -> npt.NDArray[np.float32]:
        """The raw answer on the unperturbed case, alone in its batch: as Score.of takes it."""
        self._interrupted = False
        return self._answer(case).astype(np.float32)

    def scores(
        self,
        case: Case,
        score: Score,
        perturbations: Sequence[Perturbation],
        *,
        batch_size: int,
        cancelled: Cancelled,
    ) -> npt.NDArray[np.float64]:
        """As Evaluator.scores. The batch is the only memory that grows with `batch_size`."""
        self._interrupted = False
        size = batch_size if self._model.batched else 1
        rows, run = self._rows(case, size)
        return batched_scores(
            case,
            perturbations,
            rows=rows,
            batch_size=size,
            score_rows=lambda: score.of(self._with_batch_axis(self._guarded(run))),
            score_base=lambda: score.of(self._answer(case)),
            cancelled=lambda: self._interrupted or cancelled(),
        )

    def interrupt(self) -> None:
        """Stop the pass that is running, from another thread: `scores` or `answer` raises Cancelled."""
        self._interrupted = True
        self._run_options.terminate = True

    def shrink(self) -> None:
        """Give memory that ONNX Runtime keeps for later passes back to the allocator; call it after a job.

        ONNX Runtime does so at the end of a pass only: it costs one pass on zeros, none if nothing ran since the last time.
        """
        if self._last_shapes is None:
            return
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "gpu:0" if self._device == "cuda" else "cpu:0")
        rows = 1 if self._model.batched else None
        feeds = {
            spec.name: np.zeros(shape if rows is None else (rows, *shape[1:]), kind)
            for spec, shape, kind in zip(self._model.inputs, self._last_shapes, self._dtypes, strict=True)
        }
        self._last_shapes = None
        self._session.run(None, feeds, options)

    def _answer(self, case: Case) -> npt.NDArray[Any]:
        inputs = assemble(case.model, case.volumes, batch=1, dtypes=self._dtypes)
        return self._with_batch_axis(self._guarded(lambda: self._run(inputs)))

    def _rows(self, case: Case, batch_size: int) -> tuple[BatchBuffer | DeviceBuffer, Callable[[], npt.NDArray[Any]]]:
        if self._device == "cpu":
            rows = BatchBuffer(case, batch_size=batch_size, dtypes=self._dtypes)
            return rows, lambda: self._run(rows.inputs)
        import torch

        from voxplain_server.engines.device_buffer import DeviceBuffer

        kinds = [getattr(torch, kind) for kind in self._dtypes]
        bound = DeviceBuffer(case, batch_size=batch_size, dtypes=kinds, device=torch.device("cuda"))
        return bound, lambda: self._run_bound(bound.inputs)

    def _run(self, inputs: tuple[npt.NDArray[Any], ...]) -> npt.NDArray[Any]:
        self._last_shapes = tuple(array.shape for array in inputs)
        feeds = {spec.name: array for spec, array in zip(self._model.inputs, inputs, strict=True)}
        answers: npt.NDArray[Any] = self._session.run(None, feeds, self._run_options)[0]
        return answers

    def _run_bound(self, inputs: tuple[torch.Tensor, ...]) -> npt.NDArray[Any]:
        import torch

        self._last_shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        binding = self._session.io_binding()
        for spec, tensor, kind in zip(self._model.inputs, inputs, self._dtypes, strict=True):
            binding.bind_input(spec.name, "cuda", 0, np.dtype(kind), tuple(tensor.shape), tensor.data_ptr())
        binding.bind_output(self._model.output.score_name, "cpu")
        # Voxels were written on torch's stream; ONNX Runtime reads on its own.
        torch.cuda.synchronize()
        self._session.run_with_iobinding(binding, self._run_options)
        answers: npt.NDArray[Any] = binding.copy_outputs_to_cpu()[0]
        return answers

    def _guarded(self, run: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        ask(lambda: self._interrupted)
        self._run_options.terminate = False
        try:
            return run()
        except Exception:
            ask(lambda: self._interrupted)
            raise

    def _with_batch_axis(self, answers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return answers if self._model.output.has_batch_axis else answers[None]


def with_score_output(model_file: bytes | onnx.ModelProto, score_name: str) -> onnx.ModelProto:
    """A copy of a model whose only output is `score_name`, which may be a value inside the graph."""
    changed = onnx.ModelProto()
    if isinstance(model_file, bytes):
        changed.ParseFromString(model_file)
    else:
        changed.CopyFrom(model_file)
    known = {value.name: value for value in (*changed.graph.output, *changed.graph.value_info)}
    output = onnx.ValueInfoProto()
    output.CopyFrom(known.get(score_name, onnx.ValueInfoProto(name=score_name)))
    del changed.graph.output[:]
    changed.graph.output.append(output)
    return changed


def open_session(
    proto: onnx.ModelProto, *, threads: int, device: Device, precision: Precision = "float32", arena: bool = True
) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime on a model whose weights are inside.

    Args:
        proto: the model.
        threads: compute threads.
        device: where it runs.
        precision: as for OnnxEngine.
        arena: whether the CPU's memory is kept between passes.

    Raises:
        voxplain.errors.ServerUnavailable: CUDA was asked for and ONNX Runtime did not get it.
    """
    if device == "cuda":
        # CUDA and cuDNN may lie in wheels beside onnxruntime, where the loader does not look; without them it only logs.
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(),
        sess_options=_session_options(threads, arena=arena),
        providers=_providers(device, precision),
    )
    # A session that does not get its provider only logs, and computes on the CPU.
    if _PROVIDERS[device] not in session.get_providers():
        raise errors.ServerUnavailable(
            "DEVICE_UNAVAILABLE", "ONNX Runtime could not use CUDA; check the driver and the onnxruntime-gpu wheel"
        )
    return session


def _session_options(threads: int, *, arena: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = arena
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Patterns are kept for every shape that was ever seen.
    options.enable_mem_pattern = False
    options.use_deterministic_compute = True
    options.log_severity_level = _LOG_ERRORS_ONLY
    # Spinning threads take the cores from torch between two passes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers(device: Device, precision: Precision) -> list[Any]:
    if device == "cpu":
        return [_PROVIDERS["cpu"]]
    options = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "1" if precision == "tf32" else "0"}
    return [(_PROVIDERS["cuda"], options), _PROVIDERS["cpu"]]

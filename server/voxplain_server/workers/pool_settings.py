"""What an operator can set about the compute processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxplain_server.models.engine_choice import EnginePreference
from voxplain_server.models.remote_access import NO_REMOTE, RemoteAccess
from voxplain_server.workers.process import WorkerStart

ADDRESS_SPACE_BESIDES = 16 * 1024**3
"""What libraries and stacks of threads take of the address space without touching it: 3 to 5 GiB were measured. The kernel
refuses at once what exceeds it together with the resident memory allowed; what is touched, the front watches."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Settings of a WorkerPool.

    Attributes:
        workers: compute processes.
        threads_per_worker: compute threads of each.
        device: where they compute; all workers of a pool are alike, or their maps would not be.
        engine: which engine evaluates perturbed cases; "auto": for each model the one that was measured to be faster.
        preload: whether workers import torch before the first gradient is asked for: seconds saved, 300 MiB spent.
        max_loaded_models: models that one worker keeps loaded.
        queue_limit: calls that may wait for a worker; more are refused at once.
        job_seconds: longest time one call may compute.
        cancel_grace_s: time a worker has to stop after a cancel; then it is killed and replaced.
        silence_s: longest time a worker with work may be silent; then it is killed and its blocks go to another.
        start_s: longest time a worker may take to start.
        settled_s: a worker that has been up for so long has started well.
        progress_s: time between two Progress events.
        checkpoint_s: least time between two checkpoints.
        checkpoint_bytes: largest checkpoint that is handed out or taken back; the message must stay below 4 MiB.
        checkpoint_key: authenticates checkpoints; replicas that shall take over from each other share it. None: random.
        estimate_s: least time between two estimates of the standard error for Progress.
        check_memory_bytes: resident memory of the process that checks a bundle; beyond it the process is killed.
        check_seconds: longest time one bundle may take to be checked.
        cache: folder where measurements of models are kept; None: nowhere.
        remote: which inference servers bundles may name.
    """

    workers: int = 1
    threads_per_worker: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    engine: EnginePreference = "auto"
    preload: bool = True
    max_loaded_models: int = 2
    queue_limit: int = 16
    job_seconds: float = 24 * 3600.0
    cancel_grace_s: float = 10.0
    silence_s: float = 300.0
    start_s: float = 120.0
    settled_s: float = 10.0
    progress_s: float = 1.0
    checkpoint_s: float = 2.0
    checkpoint_bytes: int = 2 * 1024 * 1024
    checkpoint_key: bytes | None = None
    estimate_s: float = 5.0
    check_memory_bytes: int = 4 * 1024**3
    check_seconds: float = 300.0
    cache: Path | None = None
    remote: RemoteAccess = NO_REMOTE

    @property
    def worker_start(self) -> WorkerStart:
        """How workers are started."""
        return WorkerStart(threads=self.threads_per_worker, device=self.device, preload=self.preload, remote=self.remote)

    @property
    def check_start(self) -> WorkerStart:
        """How the process that checks bundles is started."""
        address_space = self.check_memory_bytes + ADDRESS_SPACE_BESIDES
        return WorkerStart(threads=self.threads_per_worker, device=self.device, memory_bytes=address_space, remote=self.remote)

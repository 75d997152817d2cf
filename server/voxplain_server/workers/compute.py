"""The compute process: hears commands on a channel, computes, and ends with its front.

Started as `python -m voxplain_server.workers.compute` by process.py; nothing else imports it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from voxplain.errors import Cancelled
from voxplain.worker.v1 import worker_pb2

from voxplain_server.engines.file_session import FileSession
from voxplain_server.models.description import model_from_json
from voxplain_server.models.remote_access import NO_REMOTE, RemoteAccess
from voxplain_server.workers.channel import Channel, ChannelBroken
from voxplain_server.workers.faults import describe_fault, tell_uncaught
from voxplain_server.workers.freed_memory import FreedMemory
from voxplain_server.workers.held_model import Held, HeldModels
from voxplain_server.workers.host_facts import device_name, package_versions
from voxplain_server.workers.memory import close_all
from voxplain_server.workers.raw_inference import infer
from voxplain_server.workers.session import Session

_HEARTBEAT_S = 1.0
_PR_SET_PDEATHSIG = 1


class Compute:
    """Carries out commands one after another; a thread of its own hears Cancel at once.

    Args:
        channel: to the front.
        threads: compute threads.
        device: where it computes.
        remote: which inference servers may be asked for models that lie there.
    """

    def __init__(
        self,
        channel: Channel[worker_pb2.Command],
        *,
        threads: int,
        device: Literal["cpu", "cuda"],
        remote: RemoteAccess = NO_REMOTE,
    ) -> None:
        self._channel = channel
        self._threads = threads
        self._device: Literal["cpu", "cuda"] = device
        self._commands: queue.SimpleQueue[tuple[worker_pb2.Command, list[int]]] = queue.SimpleQueue()
        self._remote = remote
        self._models = HeldModels(threads=threads, device=device, remote=remote)
        self._session: Session | None = None
        self._freed = FreedMemory()
        self._inference: tuple[int, FileSession] | None = None
        self._cancelled_call = 0
        self._cancelled_method: tuple[int, int] | None = None
        self._method = -1
        self._beat_at = 0.0

    def run(self, *, preload: bool) -> None:
        """Work until the front is gone.

        Args:
            preload: import torch and captum as soon as there is nothing else to do, and not when the first gradient waits.
        """
        threading.Thread(target=self._hear, daemon=True).start()
        self._channel.send(
            worker_pb2.Event(ready=worker_pb2.Ready(package_versions=package_versions(), device=device_name(self._device)))
        )
        while True:
            if preload and self._commands.empty():
                preload = False
                _preload()
            command, descriptors = self._commands.get()
            try:
                self._carry_out(command, descriptors)
            except ChannelBroken:
                return
            finally:
                close_all(descriptors)

    def _hear(self) -> None:
        while True:
            try:
                command, descriptors = self._channel.receive()
            except ChannelBroken:
                # Whatever is computed now is for nobody.
                os._exit(0)
            if command.WhichOneof("command") == "cancel":
                if command.cancel.HasField("method"):
                    self._cancelled_method = (command.call, command.cancel.method)
                else:
                    self._cancelled_call = command.call
                    self._interrupt(command.call)
            else:
                self._commands.put((command, descriptors))

    def _interrupt(self, call: int) -> None:
        session, inference = self._session, self._inference
        if session is not None and session.call == call:
            session.interrupt()
        if inference is not None and inference[0] == call:
            inference[1].interrupt()

    def _carry_out(self, command: worker_pb2.Command, descriptors: list[int]) -> None:
        call, kind = command.call, command.WhichOneof("command")
        if kind == "close":
            held = self._close()
            self._send(call, closed=worker_pb2.Closed())
            if self._commands.empty():
                # With a call behind this one the memory is needed again at once.
                self._rest(held)
            return
        if call and call == self._cancelled_call:
            return
        failed = worker_pb2.Failed()
        if kind in ("evaluate", "attribute", "estimate"):
            failed.method = getattr(command, kind).method
        if kind == "evaluate":
            failed.block = command.evaluate.block
        self._method = failed.method if failed.HasField("method") else -1
        try:
            self._dispatch(command, descriptors)
        except ChannelBroken:
            raise
        except BaseException as error:
            if isinstance(error, Cancelled) and call == self._cancelled_call:
                return
            failed.MergeFrom(describe_fault(error))
            self._send(call, failed=failed)

    def _dispatch(self, command: worker_pb2.Command, descriptors: list[int]) -> None:
        call, kind = command.call, command.WhichOneof("command")
        if kind == "check":
            from voxplain_server.workers.bundle_check import check_bundle

            checked = check_bundle(command.check, threads=self._threads, device=self._device, remote=self._remote)
            self._send(call, checked=checked)
        elif kind == "open":
            self._close()
            self._freed.begin()
            model, traits = model_from_json(command.open.model_json)
            held = self._models.hold(model, most=command.open.max_loaded_models)
            self._session = Session(
                call,
                command.open,
                held,
                traits=traits,
                memory=descriptors[0],
                labels=descriptors[1],
                channel=self._channel,
                cancelled=lambda: self._asked(call),
                abandoned=lambda: self._cancelled_call == call,
            )
            self._send(call, prepared=self._session.prepare())
        elif kind == "infer":
            self._infer(call, command.infer, descriptors[0])
        elif self._session is not None and self._session.call == call:
            if kind == "attach":
                self._session.attach(descriptors.pop(0), command.attach.evaluations)
            elif kind == "evaluate":
                self._turn_to(self._session, command.evaluate.method)
                self._send(call, block_done=self._session.evaluate(command.evaluate.method, command.evaluate.block))
            elif kind == "attribute":
                self._turn_to(self._session, command.attribute.method)
                self._send(call, estimated=self._session.attribute(command.attribute.method))
            elif kind == "estimate":
                self._send(call, estimated=self._session.estimate(command.estimate))

    def _turn_to(self, session: Session, method: int) -> None:
        self._freed.turn_to(method, evaluations=session.evaluations_of(method))

    def _infer(self, call: int, asked: worker_pb2.Infer, memory: int) -> None:
        self._close()
        model, _ = model_from_json(asked.model_json)
        file = self._models.hold(model, most=asked.max_loaded_models).file
        file.begin()
        # Announced before it is asked whether the client has left: what comes in between interrupts the pass.
        self._inference = call, file
        try:
            if self._cancelled_call == call:
                raise Cancelled("CANCELLED", "the client left")
            told, descriptor = infer(asked, memory, file)
        finally:
            self._inference = None
        try:
            self._channel.send(worker_pb2.Event(call=call, inferred=told), [descriptor])
        finally:
            close_all([descriptor])

    def _asked(self, call: int) -> bool:
        """Whether the front wants the work under way to stop; asked between batches and steps, so it also tells of life."""
        now = time.monotonic()
        if now - self._beat_at >= _HEARTBEAT_S:
            self._beat_at = now
            self._send(call, heartbeat=worker_pb2.Heartbeat())
        return self._cancelled_call == call or self._cancelled_method == (call, self._method)

    def _close(self) -> Held | None:
        """Forget the call; returns the model that it explained."""
        session, self._session = self._session, None
        if session is None:
            return None
        session.close()
        return session.held

    def _rest(self, held: Held | None) -> None:
        """Give back to the system what the last call needed."""
        if held is not None:
            held.rest()
        self._freed.give_back()

    def _send(self, call: int, **event: object) -> None:
        self._channel.send(worker_pb2.Event(call=call, **event))  # type: ignore[arg-type]


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, also if that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _offer_itself_to_the_kernel() -> None:
    """Where memory runs out, this process and not the front shall be killed: it is replaced, and its calls go on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _preload() -> None:
    importlib.import_module("captum.attr")


def main() -> None:
    """Run a worker on the channel that the command line names."""
    parser = argparse.ArgumentParser()
    for name in ("channel", "parent", "threads", "memory"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--preload", action="store_true")
    parser.add_argument("--remote-endpoints", default="")
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--remote-{name}", type=Path)
    given = parser.parse_args()
    _die_with(given.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The front drops what libraries print, tracebacks among it: the type of what ends this process must reach the log.
    sys.excepthook = tell_uncaught
    threading.excepthook = lambda told: tell_uncaught(told.exc_type, told.exc_value or told.exc_type())
    if given.memory:
        resource.setrlimit(resource.RLIMIT_AS, (given.memory, given.memory))
    _offer_itself_to_the_kernel()
    # A core file would hold a patient's volumes.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end = socket.socket(fileno=given.channel)
    remote = RemoteAccess(
        endpoints=tuple(filter(None, given.remote_endpoints.split(","))),
        ca=given.remote_ca,
        cert=given.remote_cert,
        key=given.remote_key,
    )
    compute = Compute(Channel(end, worker_pb2.Command), threads=given.threads, device=given.device, remote=remote)
    compute.run(preload=given.preload)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

"""Runs in the environment of tritonclient: nothing of voxplain is imported here."""

import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

RELATIVE = 1e-5


def told(title: str, check: Callable[[], object]) -> None:
    """Make one check and report it; it fails by an assertion, or any other exception."""
    try:
        check()
        fault = ""
    except Exception:
        fault = traceback.format_exc(limit=3)
    print(json.dumps({"title": title, "fault": fault}), flush=True)


class Case:
    """Tensors of one model, and what ONNX Runtime answers."""

    def __init__(self, path: str) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.facts = json.loads(str(file["facts"]))
            self.feeds = {name: file[f"in.{name}"] for name in self.facts["inputs"]}
            self.answers = {name: file[f"out.{name}"] for name in self.facts["outputs"]}

    def inputs(self, module: Any) -> list[Any]:
        """As the client takes them."""
        made = []
        for name, array in self.feeds.items():
            tensor = module.InferInput(name, list(array.shape), "FP32")
            tensor.set_data_from_numpy(array)
            made.append(tensor)
        return made

    def compare(self, result: Any) -> None:
        """Hold an answer against ONNX Runtime's."""
        for name, expected in self.answers.items():
            got = result.as_numpy(name)
            assert got.shape == expected.shape, (got.shape, expected.shape)
            assert got.dtype == expected.dtype, got.dtype
            difference = float(np.abs(got - expected).max() / np.abs(expected).max())
            assert difference <= RELATIVE, f"relative difference {difference:.1e}"


def refused(call: Callable[[], object], code: str) -> None:
    """Assert that the client is refused with a code."""
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{code}", error.status()
    else:
        raise AssertionError("it was not refused")


def check_model(client: Any, name: str, case: Case) -> None:
    """What one model tells of itself and answers."""

    def metadata() -> None:
        answer = client.get_model_metadata(name)
        assert [each.name for each in answer.inputs] == list(case.feeds)
        assert [each.name for each in answer.outputs] == list(case.answers)
        for each in answer.inputs:
            stated = list(each.shape)
            assert all(own in (-1, size) for own, size in zip(stated, case.feeds[each.name].shape, strict=True)), stated

    def chosen() -> None:
        wanted = [tritonclient.grpc.InferRequestedOutput(output) for output in case.answers]
        result = client.infer(name, case.inputs(tritonclient.grpc), model_version=case.facts["version"], outputs=wanted)
        case.compare(result)

    def unwaited() -> None:
        import queue

        answers: queue.Queue[Any] = queue.Queue()
        client.async_infer(name, case.inputs(tritonclient.grpc), callback=lambda result, error: answers.put((result, error)))
        result, error = answers.get(timeout=60)
        assert error is None, error
        case.compare(result)

    told(f"{name} is ready", lambda: _true(client.is_model_ready(name)))
    told(f"{name} tells its inputs and outputs", metadata)
    told(f"{name} answers as ONNX Runtime does", lambda: case.compare(client.infer(name, case.inputs(tritonclient.grpc))))
    told(f"{name} answers as ONNX Runtime does, version and outputs named", chosen)
    told(f"{name} answers as ONNX Runtime does, by a callback", unwaited)


def check_refusals(client: Any, name: str, case: Case) -> None:
    """What cannot be is refused with the code that it should have."""
    good = case.inputs(tritonclient.grpc)
    first = next(iter(case.feeds))
    odd = tritonclient.grpc.InferInput("nothing", [1], "FP32")
    odd.set_data_from_numpy(np.zeros(1, np.float32))
    flat = tritonclient.grpc.InferInput(first, [4], "FP32")
    flat.set_data_from_numpy(np.zeros(4, np.float32))
    whole = tritonclient.grpc.InferInput(first, list(case.feeds[first].shape), "INT32")
    whole.set_data_from_numpy(np.zeros(case.feeds[first].shape, np.int32))
    told("an unknown model is NOT_FOUND", lambda: refused(lambda: client.infer("nothing", good), "NOT_FOUND"))
    told("an unknown version is NOT_FOUND", lambda: refused(lambda: client.infer(name, good, "99"), "NOT_FOUND"))
    told("a wrong name is INVALID_ARGUMENT", lambda: refused(lambda: client.infer(name, [odd]), "INVALID_ARGUMENT"))
    told("a wrong shape is INVALID_ARGUMENT", lambda: refused(lambda: client.infer(name, [flat]), "INVALID_ARGUMENT"))
    told("a wrong datatype is INVALID_ARGUMENT", lambda: refused(lambda: client.infer(name, [whole]), "INVALID_ARGUMENT"))
    told("a model that there is not is not ready", lambda: _true(not client.is_model_ready("nothing")))
    told(
        "a deadline that passes is DEADLINE_EXCEEDED",
        lambda: refused(lambda: client.infer(name, good, client_timeout=0.00001), "DEADLINE_EXCEEDED"),
    )


def check_too_large(client: Any, name: str, case: Case) -> None:
    """A case larger than a message may be."""
    inputs = case.inputs(tritonclient.grpc)
    title = f"{name} is RESOURCE_EXHAUSTED: its case is larger than a message may be"
    told(title, lambda: refused(lambda: client.infer(name, inputs), "RESOURCE_EXHAUSTED"))


async def at_once(server: str, name: str, case: Case, count: int) -> None:
    """Many calls on the event loop at one time."""
    client = tritonclient.grpc.aio.InferenceServerClient(server)
    try:
        results = await asyncio.gather(*(client.infer(name, case.inputs(tritonclient.grpc.aio)) for _ in range(count)))
    finally:
        await client.close()
    for result in results:
        case.compare(result)


def main() -> None:
    """Check what the one argument names."""
    arguments = json.loads(sys.argv[1])
    cases = {name: Case(path) for name, path in arguments["cases"].items()}
    client = tritonclient.grpc.InferenceServerClient(arguments["server"])
    told("the server lives", lambda: _true(client.is_server_live()))
    told("the server is ready", lambda: _true(client.is_server_ready()))
    told("the server tells its name", lambda: _true(client.get_server_metadata().name == "voxplain"))
    for name, case in cases.items():
        check_model(client, name, case)
    name, case = next(iter(cases.items()))
    check_refusals(client, name, case)
    told("twenty calls at a time are all answered", lambda: asyncio.run(at_once(arguments["server"], name, case, 20)))
    for large, path in arguments["too_large"].items():
        check_too_large(client, large, Case(path))
    client.close()


def _true(value: object) -> None:
    assert value


if __name__ == "__main__":
    main()

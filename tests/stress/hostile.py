"""Model folders made to harm, published one after another to a server that is watched by strace while it answers calls."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import onnx
from voxplain.v1 import catalog_pb2, catalog_pb2_grpc

from tests import bundles
from tests.bundles import TinyBundle
from tests.oracle import settle_server
from tests.server.workers.test_hostile_bundles import HOSTILE
from tests.serving import RunningServer
from tests.stress.caller import Told, begin, case_of, finish, occlusion, warm_up
from tests.stress.mutants import mutant
from tests.stress.opened_files import opened, read, strace, traced
from tests.stress.row import Row, Scale

MUTANTS, SEED = 500, 20261123
BATCH = 25
JUDGED_SECONDS = 600.0
LOOK_SECONDS = 0.3
ROOT = Path(__file__).parents[2]
REAL = ROOT / "examples" / "glioma_demo" / "models" / "glioma-demo" / "1"
CODE = tuple({str(Path(each).resolve()) for each in (sys.prefix, sys.base_prefix, ROOT, "/usr", "/lib", "/lib64")})
SYSTEM = ("/proc/", "/sys/", "/dev/")


def hostile_files(scale: Scale) -> list[Row]:
    """Publish every hostile bundle and many mutants; the server goes on, and reads nothing beside them."""
    count = scale.of(MUTANTS, least=24)
    with tempfile.TemporaryDirectory() as folder:
        # Real paths, because strace tells real paths.
        place = Path(folder).resolve()
        at_rest = _at_rest(place)
        bundle = bundles.early_fusion_classes(place / "models")
        secret = place / "secret"
        secret.write_bytes(bytes(range(256)) * 256)
        account, stop, told = place / "account", threading.Event(), list[Told]()
        with _server(place, account) as server, grpc.insecure_channel(server.address) as channel:
            warm_up(server, bundle)
            caller = threading.Thread(target=_call, args=(channel, bundle, stop, told))
            caller.start()
            names = _publish_named(place)
            verdicts = _judged(channel, names)
            for first in range(0, count, BATCH):
                names = [_publish_mutant(place, number, secret) for number in range(first, min(first + BATCH, count))]
                verdicts |= _judged(channel, names)
                for name in names:
                    shutil.rmtree(place / "models" / name)
            stop.set()
            caller.join()
            settle_server(server.metrics_url, server.pid)
        clean = server.exit_status == 0
        outside = _outside(account, place, at_rest) if strace() else set[str]()
        seen = not strace() or str(bundle.folder / "model.onnx") in read(account)
    failed = [each for each in told if each.record is None]
    mixed = len({repr(sorted(each.maps.items())) for each in told}) != 1
    kinds = Counter(verdicts.values())
    wrong = [name for _, name, reason in _named() if verdicts[name] != reason]
    crashed = kinds["CHECK_CRASHED"]
    watched = f"{len(outside)} files read outside" if strace() else "strace is missing: what was opened was not looked at"
    return [
        Row(
            what="hostile model folders and mutants of a real model file, published to a server that answers calls",
            count=f"{len(HOSTILE)} named, {count} mutants",
            goal="every named one refused with its reason; no read outside the folder (strace); no call failed or changed",
            figure=f"{len(HOSTILE) - len(wrong)} of {len(HOSTILE)} refused by their reasons; of the mutants {kinds['served']} "
            f"served, the others refused, {crashed} of them because they ended the checking process; {watched}; {len(told)} "
            f"calls meanwhile, {len(failed)} failed, {'with different maps' if mixed else 'all with the same map'}",
            passed=not wrong
            and not outside
            and not failed
            and not mixed
            and clean
            and seen
            and len(verdicts) == count + len(HOSTILE),
            remark="reasons: " + ", ".join(f"{number} {reason}" for reason, number in kinds.most_common()),
        )
    ]


def _named() -> list[tuple[int, str, str]]:
    return [(number, f"named-{identifier.lower()}", reason) for number, (identifier, _, reason) in enumerate(HOSTILE)]


def _server(place: Path, account: Path) -> RunningServer:
    arguments = ("--engine", "onnxruntime", "--threads-per-worker", "1", "--reload-seconds", str(LOOK_SECONDS))
    return RunningServer(place / "models", (*arguments, "--check-seconds", "60"), before=traced(account) if strace() else ())


def _at_rest(place: Path) -> set[str]:
    """What a server opens that meets good models only, the same one twice under two names."""
    if not strace():
        return set()
    bundle = bundles.early_fusion_classes(place / "models")
    with _server(place, place / "before") as server, grpc.insecure_channel(server.address) as channel:
        warm_up(server, bundle)
        shutil.copytree(REAL, place / "coming" / "1")
        (place / "coming").rename(place / "models" / "real")
        _judged(channel, ["real"])
    found = opened(place / "before")
    shutil.rmtree(place / "models")
    return found


def _outside(account: Path, place: Path, at_rest: set[str]) -> set[str]:
    """Files of which something was read that are neither code, nor models, nor what is read anyway; and links to the secret."""
    inside, links = str(place / "models") + "/", set[str]()
    for path in read(account):
        if path.startswith(inside):
            # A hard link can only be told when it is open; nothing of it may be read then.
            links |= {path} if path.endswith("/w") and "/named-cve-2026-34446/" in path else set()
        elif path.startswith("/") and path not in at_rest and not path.startswith((*(f"{each}/" for each in CODE), *SYSTEM)):
            links.add(path)
    return {each for each in links if "memfd:" not in each}


def _publish_named(place: Path) -> list[str]:
    names = []
    for number, name, _ in _named():
        bundle = bundles.two_dimensional(place / "coming", name=name)
        model = onnx.load(bundle.folder / "model.onnx")
        HOSTILE[number][1](model, bundle.folder)
        (bundle.folder / "model.onnx").write_bytes(model.SerializeToString())
        names.append(name)
    for name in names:
        (place / "coming" / name).rename(place / "models" / name)
    (place / "coming").rmdir()
    return names


def _publish_mutant(place: Path, number: int, secret: Path) -> str:
    name, coming = f"mutant-{number}", place / "coming"
    metadata = json.loads((REAL / "metadata.json").read_text())
    # Its cases would have to be copied with it.
    metadata["voxplain"].pop("background_cases")
    folder = coming / "1"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    (folder / "model.onnx").write_bytes(mutant((REAL / "model.onnx").read_bytes(), number, seed=SEED, secret=secret))
    (folder / "link").symlink_to(secret)
    (folder / "linked").symlink_to(secret.parent)
    coming.rename(place / "models" / name)
    return name


def _judged(channel: grpc.Channel, names: list[str]) -> dict[str, str]:
    """Wait for the verdicts: `served`, or the reason of the refusal."""
    stub, until = catalog_pb2_grpc.CatalogServiceStub(channel), time.monotonic() + JUDGED_SECONDS
    while time.monotonic() < until:
        models = {model.name: model for model in stub.ListModels(catalog_pb2.ListModelsRequest()).models}
        if all(name in models for name in names):
            return {
                name: models[name].refused_versions[0].reason if models[name].refused_versions else "served" for name in names
            }
        time.sleep(0.1)
    raise TimeoutError("not all models were judged")


def _call(channel: grpc.Channel, bundle: TinyBundle, stop: threading.Event, told: list[Told]) -> None:
    messages = case_of(bundle, [occlusion(6, 5)])
    while not stop.is_set():
        told.append(finish(begin(channel, messages, timeout_s=120)))

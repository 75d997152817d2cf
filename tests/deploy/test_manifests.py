"""The image and the manifests agree with the server they start. Neither an engine nor a cluster is needed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from voxplain_server import app
from voxplain_server.settings import Limits, Settings, read_settings
from voxplain_server.workers.pool import _DRAINED_WITHIN_S

from tests.deploy.rendering import BASE, ROOT, render


def test_every_resource_of_the_kustomization_exists_and_none_is_left_out() -> None:
    named = set(_kustomization()["resources"])
    assert named == {each.name for each in BASE.glob("*.yaml")} - {"kustomization.yaml"}


def test_the_labels_of_pods_are_those_that_deployment_and_service_select(manifests: dict[str, Any]) -> None:
    deployment, service = manifests["Deployment"], manifests["Service"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "voxplain"
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector
        assert selector.items() <= labels.items()


def test_the_image_is_tagged_with_the_version_of_the_package(manifests: dict[str, Any]) -> None:
    assert _container(manifests)["image"] == f"voxplain:{_project()['version']}"


def test_container_ports_are_the_servers_defaults(manifests: dict[str, Any]) -> None:
    assert _container_ports(manifests) == {
        "grpc": Settings(models=ROOT).port,
        "health": Settings(models=ROOT).health_port,
        "metrics": Settings(models=ROOT).metrics_port,
    }


def test_the_service_leads_to_the_servers_ports_and_keeps_health_inside(manifests: dict[str, Any]) -> None:
    container = _container_ports(manifests)
    ports = {each["name"]: each for each in manifests["Service"]["spec"]["ports"]}
    assert set(ports) == {"grpc", "metrics"}
    for each in ports.values():
        assert container[each["targetPort"]] == each["port"]


def test_scraping_is_told_the_metrics_port(manifests: dict[str, Any]) -> None:
    annotations = manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(Settings(models=ROOT).metrics_port)


def test_every_probe_asks_the_health_port(manifests: dict[str, Any]) -> None:
    container, ports = _container(manifests), _container_ports(manifests)
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["grpc"]["port"] == ports["health"]
    # Draining answers NOT_SERVING; a liveness probe that read it would kill the explanations that may still end.
    assert "grpc" not in container["livenessProbe"]
    assert ports[container["livenessProbe"]["tcpSocket"]["port"]] == ports["health"]


def test_a_bundle_may_take_its_whole_time_to_check_before_the_startup_probe_gives_up(manifests: dict[str, Any]) -> None:
    probe = _container(manifests)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > Limits().check_seconds


def test_the_grace_of_the_pod_is_longer_than_the_longest_job_and_all_that_follows(
    manifests: dict[str, Any], tmp_path: Path
) -> None:
    environ = _image_variables() | _pod_variables(manifests)
    limits = read_settings(["--models", str(tmp_path)], environ).limits
    assert limits.drain_seconds >= limits.job_seconds
    before = int(_container(manifests)["lifecycle"]["preStop"]["exec"]["command"][1])
    after = limits.drain_seconds + _DRAINED_WITHIN_S + app.FAREWELL_SECONDS
    assert manifests["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > before + after
    assert limits.drain_seconds > Limits().drain_seconds


def test_memory_is_asked_for_as_it_is_limited(manifests: dict[str, Any]) -> None:
    resources = _container(manifests)["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_a_service_named_like_the_variables_cannot_set_the_servers_port(manifests: dict[str, Any]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--models", str(ROOT)], {"VOXPLAIN_PORT": "tcp://10.0.0.1:50051"})
    assert manifests["Deployment"]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_pod_gives_its_process_no_rights(manifests: dict[str, Any]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    container = _container(manifests)["securityContext"]
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}


def test_a_small_memory_volume_lies_where_matplotlib_writes_because_workers_die_without(manifests: dict[str, Any]) -> None:
    folder = Path(_image_variables()["MPLCONFIGDIR"])
    volumes = {each["name"]: each for each in manifests["Deployment"]["spec"]["template"]["spec"]["volumes"]}
    (mount,) = (each for each in _container(manifests)["volumeMounts"] if Path(each["mountPath"]) in folder.parents)
    assert not mount.get("readOnly")
    assert volumes[mount["name"]]["emptyDir"]["medium"] == "Memory"
    assert "sizeLimit" in volumes[mount["name"]]["emptyDir"]


def test_the_optional_checkpoint_key_comes_from_a_secret(manifests: dict[str, Any]) -> None:
    (key,) = (each for each in _container(manifests)["env"] if each["name"] == "VOXPLAIN_CHECKPOINT_KEY")
    assert "value" not in key
    assert key["valueFrom"]["secretKeyRef"]["optional"] is True


def test_pod_and_image_run_as_the_same_user(manifests: dict[str, Any]) -> None:
    context = manifests["Deployment"]["spec"]["template"]["spec"]["securityContext"]
    assert _last("USER") == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_every_variable_of_the_pod_is_one_that_the_server_reads(manifests: dict[str, Any], variables: set[str]) -> None:
    assert {each["name"] for each in _container(manifests)["env"]} <= variables


def test_every_variable_of_the_image_is_one_that_the_server_reads(variables: set[str]) -> None:
    own = {name for name in _image_variables() if name.startswith("VOXPLAIN_")}
    assert {"VOXPLAIN_MODELS", "VOXPLAIN_HOST"} <= own <= variables
    # Whoever runs it must say so: an image that opens its port to anybody by itself would be run that way.
    assert "VOXPLAIN_INSECURE" not in own


def test_the_variables_of_image_and_pod_make_settings_that_listen_beyond_loopback(
    manifests: dict[str, Any], tmp_path: Path
) -> None:
    environ = _image_variables() | _pod_variables(manifests)
    settings = read_settings(["--models", str(tmp_path)], environ)
    assert (settings.host, settings.insecure) == ("0.0.0.0", True)
    with pytest.raises(ValueError, match="plaintext"):
        read_settings(["--models", str(tmp_path)], environ | {"VOXPLAIN_INSECURE": ""})


def test_the_image_exposes_the_servers_ports() -> None:
    defaults = Settings(models=ROOT)
    assert _last("EXPOSE").split() == [str(each) for each in (defaults.port, defaults.health_port, defaults.metrics_port)]


def test_the_image_starts_a_command_of_the_package() -> None:
    assert yaml.safe_load(_last("ENTRYPOINT")) == ["voxplain-server"]
    assert "voxplain-server" in _project()["scripts"]


def test_what_the_image_copies_is_there_and_reaches_the_build() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for arguments in _context_copies() for source in arguments.split()[:-1]}
    assert "pyproject.toml" in copied
    for source in copied:
        assert (ROOT / source).exists(), source
    assert copied == let_in


def test_the_models_of_the_image_are_where_the_server_looks() -> None:
    bundles, place = next(each.split() for each in _context_copies() if "models" in each)
    assert place == _image_variables()["VOXPLAIN_MODELS"]
    assert list((ROOT / bundles).glob("*/*/model.onnx"))


def test_stale_stubs_of_a_checkout_do_not_reach_the_build() -> None:
    generated = {
        line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("proto/python/")
    }
    assert generated
    assert generated <= set((ROOT / ".dockerignore").read_text().split())


def test_the_targets_of_the_image_install_extras_of_the_package() -> None:
    installs = [arguments for word, arguments in _instructions() if word == "RUN" and "pip install" in arguments]
    extras = [re.search(r'"\.\[([a-z-]+)\]"', arguments) for arguments in installs]
    assert [found[1] for found in extras if found] == ["server-cpu", "server"]
    assert {"server-cpu", "server"} <= set(_project()["optional-dependencies"])
    assert all("--constraint constraints.txt" in arguments for arguments in installs)


def test_the_stage_that_builds_is_none_of_the_images() -> None:
    stages = {arguments.split()[-1]: arguments.split()[0] for word, arguments in _instructions() if word == "FROM"}
    assert (stages["cpu"], stages["gpu"], stages["runtime"], stages["source"]) == ("runtime", "runtime", "${BASE}", "${BASE}")
    assert list(stages)[-1] == "cpu"


def test_the_image_asks_after_its_own_health() -> None:
    assert yaml.safe_load(_last("HEALTHCHECK").partition("CMD ")[2]) == ["voxplain-server", "health"]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(params=["as written", "as rendered"])
def manifests(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The base's manifests by kind; as written: with the labels and the tag of the kustomization put in by hand."""
    if request.param == "as written":
        return _written()
    return {each["kind"]: each for each in render(BASE)}


@pytest.fixture
def variables(tmp_path: Path) -> set[str]:
    """Every variable that the settings look up."""
    asked = set()

    class Spy(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return default

    read_settings(["--models", str(tmp_path)], Spy())
    return asked


def _written() -> dict[str, Any]:
    kustomization = _kustomization()
    (labels,), (image,) = kustomization["labels"], kustomization["images"]
    assert labels["includeSelectors"] is True
    found = {each["kind"]: each for name in kustomization["resources"] for each in _documents(BASE / name)}
    template = found["Deployment"]["spec"]["template"]
    for place in (
        template["metadata"].setdefault("labels", {}),
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        place.update(labels["pairs"])
    (container,) = template["spec"]["containers"]
    assert container["image"] == image["name"]
    container["image"] += f":{image['newTag']}"
    return found


def _kustomization() -> dict[str, Any]:
    (document,) = _documents(BASE / "kustomization.yaml")
    return document


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def _container(manifests: dict[str, Any]) -> dict[str, Any]:
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def _pod_variables(manifests: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in _container(manifests)["env"] if "value" in each}


def _container_ports(manifests: dict[str, Any]) -> dict[str, int]:
    return {each["name"]: each["containerPort"] for each in _container(manifests)["ports"]}


def _project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def _instructions() -> Iterator[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", "").splitlines():
        if line.strip():
            word, _, arguments = line.partition(" ")
            yield word, arguments.strip()


def _last(word: str) -> str:
    return [arguments for each, arguments in _instructions() if each == word][-1]


def _context_copies() -> list[str]:
    return [arguments for word, arguments in _instructions() if word == "COPY" and not arguments.startswith("--from")]


def _image_variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for word, arguments in _instructions() if word == "ENV" for pair in arguments.split())

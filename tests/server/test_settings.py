"""Settings come from arguments, then variables, then defaults that are safe."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxplain_server.settings import Limits, SettingsRefused, available_cpus, available_memory, read_settings


def test_arguments_win_over_variables_and_variables_over_defaults(tmp_path: Path) -> None:
    environ = {"VOXPLAIN_MODELS": str(tmp_path), "VOXPLAIN_PORT": "1234", "VOXPLAIN_MAX_TENSORS": "7"}
    settings = read_settings(["--port", "0"], environ)
    assert (settings.models, settings.port, settings.health_port) == (tmp_path, 0, 50052)
    assert settings.limits.max_tensors == 7
    assert settings.limits.max_chunks == Limits().max_chunks
    assert settings.host == "127.0.0.1"
    assert not settings.reflection


def test_the_engine_is_chosen_by_measuring_unless_it_is_named(tmp_path: Path) -> None:
    assert read_settings(["--models", str(tmp_path)], {}).engine == "auto"
    assert read_settings(["--models", str(tmp_path)], {"VOXPLAIN_ENGINE": "onnxruntime"}).engine == "onnxruntime"


def test_flags_can_be_set_by_variables(tmp_path: Path) -> None:
    assert read_settings(["--models", str(tmp_path)], {"VOXPLAIN_REFLECTION": "true"}).reflection
    assert not read_settings(["--models", str(tmp_path)], {"VOXPLAIN_REFLECTION": "0"}).reflection


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "somewhere.example"])
def test_plaintext_leaves_the_host_only_when_told_so(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsRefused, match="insecure"):
        read_settings(["--models", str(tmp_path), "--host", host], {})
    assert read_settings(["--models", str(tmp_path), "--host", host, "--insecure"], {}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_loopback_needs_no_flag(tmp_path: Path, host: str) -> None:
    assert read_settings(["--models", str(tmp_path), "--host", host], {}).host == host


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--workers", "0"], "--workers"),
        (["--inference-workers", "-1"], "--inference-workers"),
        (["--max-inference-bytes", str(1 << 31)], "--max-inference-bytes"),
        (["--threads-per-worker", "-1"], "--threads-per-worker"),
        (["--device", "abacus"], "--device"),
        (["--engine", "steam"], "--engine"),
        (["--port", "70000"], "--port"),
        (["--max-tensors", "0"], "--max-tensors"),
        (["--queue-length", "-1"], "--queue-length"),
        (["--first-message-seconds", "nan"], "--first-message-seconds"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, arguments: list[str], named: str) -> None:
    with pytest.raises(SettingsRefused, match=named):
        read_settings(["--models", str(tmp_path), *arguments], {})


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match="--models"):
        read_settings(["--models", str(tmp_path / "nothing")], {})
    with pytest.raises(SettingsRefused, match="--models"):
        read_settings([], {})


def test_threads_default_to_the_processors_divided_by_the_workers(tmp_path: Path) -> None:
    cpus = available_cpus()
    assert read_settings(["--models", str(tmp_path)], {}).threads_per_worker == cpus
    assert read_settings(["--models", str(tmp_path), "--workers", "64"], {}).threads_per_worker == max(1, cpus // 64)


def test_a_containers_quota_bounds_the_processors(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    assert available_cpus(quota) == 1
    quota.write_text("50000 100000\n")
    assert available_cpus(quota) == 1
    quota.write_text("max 100000\n")
    assert available_cpus(quota) == available_cpus(tmp_path / "not there")


def test_the_ledger_defaults_to_a_third_of_the_containers_memory(tmp_path: Path) -> None:
    limits = read_settings(["--models", str(tmp_path)], {}).limits
    assert limits.max_in_flight_bytes == available_memory() // 3
    assert limits.check_memory_bytes == available_memory() // 2
    limit = tmp_path / "memory.max"
    limit.write_text("1000000\n")
    assert available_memory(limit) == 1_000_000
    limit.write_text("max\n")
    assert available_memory(limit) == available_memory(tmp_path / "not there") > 1_000_000


def test_a_checkpoint_key_comes_from_the_environment_only_and_is_never_shown(tmp_path: Path) -> None:
    settings = read_settings(["--models", str(tmp_path)], {"VOXPLAIN_CHECKPOINT_KEY": "k" * 32})
    assert settings.checkpoint_key == b"k" * 32
    assert "kkk" not in repr(settings)
    with pytest.raises(SettingsRefused, match="CHECKPOINT_KEY"):
        read_settings(["--models", str(tmp_path)], {"VOXPLAIN_CHECKPOINT_KEY": "short"})
    with pytest.raises(SystemExit):
        read_settings(["--models", str(tmp_path), "--checkpoint-key", "k" * 32], {})


def file_in(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("content")
    return str(path)


def test_off_loopback_tls_and_knowing_the_callers_are_wanted(tmp_path: Path) -> None:
    away = ["--models", str(tmp_path), "--host", "0.0.0.0"]
    tls = ["--tls-cert", file_in(tmp_path, "cert"), "--tls-key", file_in(tmp_path, "key")]
    mutual = ["--tls-client-ca", file_in(tmp_path, "ca")]
    tokens = ["--token-keys", file_in(tmp_path, "jwks"), "--token-issuer", "i", "--token-audience", "a"]
    assert read_settings([*away, *tls, *mutual], {}).access.encrypted
    assert read_settings([*away, *tls, *tokens], {}).access.knows_callers
    assert read_settings([*away, *tls, "--insecure"], {}).access.encrypted
    with pytest.raises(SettingsRefused, match="anybody"):
        read_settings([*away, *tls], {})
    with pytest.raises(SettingsRefused, match="plaintext"):
        read_settings([*away, *tokens], {})
    assert read_settings(["--models", str(tmp_path), *tokens], {}).access.token_issuer == "i"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"TLS_CERT": "cert"}, "--tls-key"),
        ({"TLS_KEY": "key"}, "--tls-cert"),
        ({"TLS_CLIENT_CA": "ca"}, "--tls-client-ca needs TLS"),
        ({"TOKEN_KEYS": "jwks"}, "--token-issuer"),
        ({"TOKEN_KEYS": "jwks", "TOKEN_ISSUER": "i"}, "--token-audience"),
        ({"TOKEN_ISSUER": "i", "TOKEN_AUDIENCE": "a"}, "--token-keys"),
        ({"POLICY": "missing"}, "--policy must name a file"),
    ],
)
def test_settings_of_access_that_do_not_go_together_are_named(tmp_path: Path, variables: dict[str, str], named: str) -> None:
    files = {name: file_in(tmp_path, name) for name in ("cert", "key", "ca", "jwks")} | {"missing": str(tmp_path / "missing")}
    environ = {f"VOXPLAIN_{name}": files.get(value, value) for name, value in variables.items()}
    with pytest.raises(SettingsRefused, match=named):
        read_settings(["--models", str(tmp_path)], environ)


def test_looking_at_the_models_folder_again_can_be_turned_off(tmp_path: Path) -> None:
    assert read_settings(["--models", str(tmp_path), "--reload-seconds", "0"], {}).limits.reload_seconds == 0

"""Every bound, once. A figure whose name is not here is printed without one."""

from __future__ import annotations

from tests.benchmarks.figure import Figure

BOUNDS: dict[str, tuple[float, str]] = {
    "parity/occlusion_vs_captum": (5e-4, "max"),
    "parity/occlusion_windows_vs_whole_passes": (5e-4, "max"),
    "parity/feature_ablation_vs_captum": (5e-4, "max"),
    "parity/gradient_methods_vs_captum": (1e-4, "max"),
    "upload/136MiB": (0.8, "min"),
    "upload/cpp_136MiB": (0.8, "min"),
    "upload/go_136MiB": (0.8, "min"),
    "upload/memory_growth_vs_payload": (1.1, "max"),
    "upload/left_after_1s": (32.0, "max"),
    "overhead/lime_call_vs_in_process": (1.05, "max"),
    "overhead/gradient_call_over_in_process": (0.100, "max"),
    "rate/occlusion_vs_captum": (1.8, "min"),
    "rate/feature_ablation_vs_captum": (1.8, "min"),
    "rate/kernel_shap_vs_captum": (1.8, "min"),
    "rate/lime_vs_captum": (1.8, "min"),
    "gradients/six_single_pass_vs_captum": (2.0, "min"),
    "memory/integrated_gradients_worker": (6144.0, "max"),
    "memory/steps_50_over_steps_10": (1.1, "max"),
    "memory/occlusion_windows_x4": (1.1, "max"),
    "snapshot/occlusion": (2.0, "max"),
    "snapshot/feature_ablation": (2.0, "max"),
    "snapshot/feature_permutation": (2.0, "max"),
}

LIMITS: dict[str, tuple[float, float]] = {
    "occlusion_11_5_zero": (150.0, 62.0),
    "occlusion_11_5_noise": (90.0, 37.0),
    "occlusion_11_5_noise_whole_grid": (90.0, 37.0),
    "feature_ablation_slic_50": (12.0, 5.5),
    "shapley_same_permutations": (7.0, 7.0),
    "shapley_equal_error": (25.0, 25.0),
    "feature_permutation_case_and_donor": (2.2, 1.1),
    "kernel_shap_same_samples": (2.2, 1.1),
    "lime_same_samples": (2.2, 1.1),
    "six_single_pass": (3.0, 2.0),
    "integrated_gradients": (2.0, 1.1),
    "smooth_grad": (1.8, 1.1),
    "gradient_shap": (1.8, 1.1),
    "deep_lift": (1.8, 1.1),
    "all_sixteen_one_call": (50.0, 21.0),
}
"""Rows of the table: at least so many times faster than Captum with glibc's default allocator, and with the tuned one."""

WORKER_MIB = 4096.0
"""What a worker may need for any method."""


def figure(name: str, value: float, unit: str, detail: str = "") -> Figure:
    """A figure with its bound looked up by name."""
    bound, kind = _bound(name)
    return Figure(name=name, value=float(value), unit=unit, bound=bound, kind=kind, detail=detail)


def _bound(name: str) -> tuple[float | None, str]:
    group, _, rest = name.partition("/")
    row, _, allocator = rest.partition("/vs_captum_")
    if group == "limit" and row in LIMITS:
        return LIMITS[row][allocator == "tuned"], "min"
    if name not in BOUNDS and group == "memory" and rest.startswith("worker_"):
        return WORKER_MIB, "max"
    return BOUNDS.get(name, (None, "max"))

"""Every bound, once. A figure whose name is not here is printed without one."""

from __future__ import annotations

from tests.benchmarks.figure import Figure

BOUNDS: dict[str, tuple[float, str]] = {
    "parity/occlusion_vs_captum": (5e-4, "max"),
    "parity/feature_ablation_vs_captum": (5e-4, "max"),
    "parity/gradient_methods_vs_captum": (1e-4, "max"),
    "upload/136MiB": (0.8, "min"),
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
}


def figure(name: str, value: float, unit: str, detail: str = "") -> Figure:
    """A figure with its bound looked up by name."""
    bound, kind = BOUNDS.get(name, (None, "max"))
    return Figure(name=name, value=float(value), unit=unit, bound=bound, kind=kind, detail=detail)

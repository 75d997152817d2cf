"""Why gradient methods refuse a model, said for each of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from voxplain_server.methods import (
    all_methods,
    deconvolution,
    deep_lift,
    grad_cam,
    gradient,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
    input_x_gradient,
    integrated_gradients,
    smooth_grad,
)
from voxplain_server.methods.method import GradientMethod
from voxplain_server.models.traits import ModelTraits

from tests.server.engines.tiny_models import early

METHODS: tuple[GradientMethod, ...] = (
    gradient.METHOD,
    input_x_gradient.METHOD,
    guided_backprop.METHOD,
    deconvolution.METHOD,
    grad_cam.METHOD,
    guided_grad_cam.METHOD,
    deep_lift.METHOD,
    gradient_shap.METHOD,
    integrated_gradients.METHOD,
    smooth_grad.METHOD,
)
GOOD = ModelTraits(twin_parity=1e-6, has_relu=True, cam_layers=("conv", "last"), default_cam_layers=("last",))
NEED_RELU = (guided_backprop.METHOD, deconvolution.METHOD, guided_grad_cam.METHOD)
NEED_LAYER = (grad_cam.METHOD, guided_grad_cam.METHOD)


def fatal(method: GradientMethod, traits: ModelTraits, tmp_path: Path, **changes: list[str]) -> list[str]:
    model = early(tmp_path).model
    params = method.defaults(model)
    for name, value in changes.items():
        getattr(params, name).extend(value)
    return [remark.reason for remark in method.remarks(params, model, traits) if remark.fatal]


@pytest.fixture(params=METHODS, ids=lambda method: method.name)
def method(request: pytest.FixtureRequest) -> GradientMethod:
    found: GradientMethod = request.param
    return found


def test_the_ten_are_registered(method: GradientMethod) -> None:
    assert all_methods()[method.name] is method
    assert isinstance(method, GradientMethod)
    assert method.needs_gradients
    assert method.citation and method.assumptions


def test_a_good_model_gets_no_remark(method: GradientMethod, tmp_path: Path) -> None:
    assert fatal(method, GOOD, tmp_path) == []


def test_unsupported_operators_are_named(method: GradientMethod, tmp_path: Path) -> None:
    traits = ModelTraits(unsupported_operators=("Foo", "Bar"))
    assert fatal(method, traits, tmp_path) == ["UNSUPPORTED_OPERATOR"]
    model = early(tmp_path / "again").model
    (remark,) = method.remarks(method.defaults(model), model, traits)
    assert "Foo" in remark.message and "Bar" in remark.message


def test_a_twin_that_differs_is_refused_with_the_figure(method: GradientMethod, tmp_path: Path) -> None:
    assert fatal(method, replace(GOOD, twin_parity=3e-3), tmp_path) == ["TWIN_PARITY"]
    model = early(tmp_path / "again").model
    (remark,) = method.remarks(method.defaults(model), model, replace(GOOD, twin_parity=3e-3))
    assert "3.0e-03" in remark.message


def test_models_without_relu_are_refused_where_it_matters(method: GradientMethod, tmp_path: Path) -> None:
    assert fatal(method, replace(GOOD, has_relu=False), tmp_path) == (["NO_RELU"] if method in NEED_RELU else [])


def test_models_without_a_convolution_layer_are_refused_where_it_matters(method: GradientMethod, tmp_path: Path) -> None:
    found = fatal(method, replace(GOOD, cam_layers=(), default_cam_layers=()), tmp_path)
    assert found == (["NO_CONVOLUTION_LAYER"] if method in NEED_LAYER else [])


@pytest.mark.parametrize("reader", NEED_LAYER, ids=lambda method: method.name)
def test_layers_are_checked_by_name(reader: GradientMethod, tmp_path: Path) -> None:
    assert fatal(reader, GOOD, tmp_path / "known", layers=["conv"]) == []
    assert fatal(reader, GOOD, tmp_path / "unknown", layers=["conv", "elsewhere"]) == ["UNKNOWN_LAYER"]


def test_operators_without_a_rule_limit_deep_lift_but_do_not_stop_it(tmp_path: Path) -> None:
    model = early(tmp_path).model
    traits = replace(GOOD, deep_lift_rule_missing=("Erf", "InstanceNormalization"))
    found = deep_lift.METHOD.remarks(deep_lift.METHOD.defaults(model), model, traits)
    assert [(remark.reason, remark.fatal) for remark in found] == [("DEEP_LIFT_RULE_MISSING", False)] * 2
    assert found[0].message.startswith("Erf")

"""`--method`: names, keys and all."""

from __future__ import annotations

import pytest
from voxplain.v1 import catalog_pb2
from voxplain_client.command.method_choice import choose_methods, reasons_in_words
from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.method_names import method_key, method_name


@pytest.fixture
def model() -> catalog_pb2.Model:
    """A model on which one method does not work."""
    refused = catalog_pb2.MethodAvailability(method="guided-backprop")
    refused.reasons.add(code="NO_RELU", description="the model has no ReLU")
    works = [catalog_pb2.MethodAvailability(method=name, available=True) for name in ("gradient", "occlusion")]
    return catalog_pb2.Model(methods=[works[0], refused, works[1]])


def test_all_are_those_that_work_and_the_others_are_told_with_the_reason(model: catalog_pb2.Model) -> None:
    choice = choose_methods(["all"], ["occlusion.window=3"], model)
    assert [method_name(method) for method in choice.methods] == ["gradient", "occlusion"]
    assert choice.methods[1].occlusion.window == [3]
    assert choice.left_out == (("guided-backprop", "NO_RELU: the model has no ReLU"),)


def test_a_variant_is_not_among_all_and_runs_where_it_is_named(model: catalog_pb2.Model) -> None:
    model.methods.add(method="kernel-shap", available=True)
    model.methods.add(method="leverage-shap", available=True, variant_of="kernel-shap")
    choice = choose_methods(["all"], [], model)
    assert [method_name(method) for method in choice.methods] == ["gradient", "occlusion", "kernel-shap"]
    assert "leverage-shap" not in dict(choice.left_out)
    both = choose_methods(["all", "leverage-shap"], ["leverage-shap.samples=90"], model)
    assert [method_name(method) for method in both.methods][-1] == "leverage-shap"
    assert both.methods[-1].leverage_shap.samples == 90


def test_a_method_runs_twice_under_two_keys(model: catalog_pb2.Model) -> None:
    choice = choose_methods(["occlusion", "big=occlusion"], ["big.window=21"], model)
    assert [method_key(method) for method in choice.methods] == ["occlusion", "big"]
    assert [list(method.occlusion.window) for method in choice.methods] == [[], [21]]


def test_all_and_a_second_run_of_one_go_together(model: catalog_pb2.Model) -> None:
    choice = choose_methods(["all", "big=occlusion"], [], model)
    assert [method_key(method) for method in choice.methods] == ["gradient", "occlusion", "big"]


@pytest.mark.parametrize("available", [True, False], ids=["available", "not-available"])
def test_a_method_that_only_lacks_donors_is_among_all_when_background_cases_are_given(
    available: bool, model: catalog_pb2.Model
) -> None:
    permutation = model.methods.add(method="feature-permutation", available=available)
    permutation.reasons.add(code="NO_DONORS", description="no background cases")
    without, given = (choose_methods(["all"], [], model, with_background=background) for background in (False, True))
    assert dict(without.left_out)["feature-permutation"].endswith("; give --background MODALITY=FILE")
    assert "feature-permutation" not in [method_name(method) for method in without.methods]
    assert "feature-permutation" in [method_name(method) for method in given.methods]
    assert "feature-permutation" not in dict(given.left_out)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["saliency"], "allowed are all, gradient"),
        (["occlusion", "occlusion"], "twice"),
        (["Big=occlusion"], "a-z"),
        (["=occlusion"], "a-z"),
        ([], "no method"),
    ],
)
def test_a_wrong_method_is_refused_in_words(names: list[str], words: str, model: catalog_pb2.Model) -> None:
    with pytest.raises(UsageFault, match=words):
        choose_methods(names, [], model)


def test_a_method_that_the_model_cannot_do_is_left_to_the_server_to_refuse(model: catalog_pb2.Model) -> None:
    choice = choose_methods(["guided-backprop"], [], model)
    assert [method_name(method) for method in choice.methods] == ["guided-backprop"]


def test_reasons_stand_side_by_side_without_double_punctuation() -> None:
    availability = catalog_pb2.MethodAvailability(method="lime")
    for code in ("A", "B"):
        availability.reasons.add(code=code, description="Send some.")
    assert reasons_in_words(availability) == "A: Send some; B: Send some"

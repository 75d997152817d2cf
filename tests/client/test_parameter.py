"""`--set` reaches every parameter of the contract by its path."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from voxplain.v1 import catalog_pb2, method_pb2
from voxplain_client.command.method_choice import choose_methods
from voxplain_client.command.parameter import list_parameters
from voxplain_client.command.usage_fault import UsageFault
from voxplain_client.method_names import METHOD_NAMES, make_method


def choose(method: str, *settings: str) -> method_pb2.Method:
    """The one method after `--set`."""
    (chosen,) = choose_methods([method], settings, catalog_pb2.Model()).methods
    return chosen


@pytest.mark.parametrize(
    ("method", "setting", "message"),
    [
        ("occlusion", "window=11", "occlusion { window: 11 }"),
        ("occlusion", "window=11,9,7", "occlusion { window: 11 window: 9 window: 7 }"),
        ("occlusion", "stride=3", "occlusion { stride: 3 }"),
        ("occlusion", "fill=zero", "occlusion { fill { zero {} } }"),
        ("occlusion", "fill=modality-mean", "occlusion { fill { modality_mean {} } }"),
        ("occlusion", "fill.gaussian_blur.sigma_voxels=2.5", "occlusion { fill { gaussian_blur { sigma_voxels: 2.5 } } }"),
        ("lime", "grouping.slic.segments=30", "lime { grouping { slic { segments: 30 } } }"),
        ("lime", "kernel-width=0.25", "lime { kernel_width: 0.25 }"),
        ("lime", "grouping.shared=true", "lime { grouping { shared: true } }"),
        ("lime", "grouping.grouping-modality=t1c", 'lime { grouping { grouping_modality: "t1c" } }'),
        ("feature-ablation", "grouping=whole_modality", "feature_ablation { grouping { whole_modality {} } }"),
        ("kernel-shap", "grouping.grid.edge-voxels=8,8,4",
         "kernel_shap { grouping { grid { edge_voxels: 8 edge_voxels: 8 edge_voxels: 4 } } }"),
        ("deep-lift", "max-pool-rule=complete", "deep_lift { max_pool_rule: MAX_POOL_RULE_COMPLETE }"),
        ("deep-lift", "max_pool_rule=MAX_POOL_RULE_CAPTUM", "deep_lift { max_pool_rule: MAX_POOL_RULE_CAPTUM }"),
        ("grad-cam", "relu=false", "grad_cam { relu: false }"),
        ("grad-cam", "layers=a,b", 'grad_cam { layers: "a" layers: "b" }'),
        ("smooth-grad", "noise_std=0", "smooth_grad { noise_std: 0 }"),
    ],
)  # fmt: skip
def test_a_setting_lands_in_its_field(method: str, setting: str, message: str) -> None:
    assert choose(method, f"{method}.{setting}") == text_format.Parse(message, method_pb2.Method())


@pytest.mark.parametrize(
    ("method", "setting", "words"),
    [
        ("occlusion", "occlusion.windw=3", "window, stride, fill"),
        ("occlusion", "occlusion.window=3.5", "whole number"),
        ("occlusion", "occlusion.window=-1", "from 0 to"),
        ("occlusion", "occlusion.window=4294967296", "from 0 to"),
        ("occlusion", "occlusion.window.x=3", "nothing below"),
        ("occlusion", "occlusion.fill=black", "zero, modality-mean, normal-noise"),
        ("occlusion", "occlusion.fill.gaussian-blur=3", "sigma-voxels"),
        ("occlusion", "occlusion.window", "write --set"),
        ("occlusion", "window=3", "write --set"),
        ("occlusion", "lime.samples=3", "occlusion"),
        ("deep-lift", "deep-lift.max-pool-rule=mine", "captum, complete"),
        ("grad-cam", "grad-cam.relu=maybe", "true, false"),
        ("lime", "lime.kernel-width=wide", "finite number"),
        ("lime", "lime.kernel-width=inf", "finite number"),
        ("input-x-gradient", "input-x-gradient.x=1", "no parameters"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_option_and_what_is_allowed(method: str, setting: str, words: str) -> None:
    with pytest.raises(UsageFault) as refused:
        choose(method, setting)
    assert words in refused.value.message
    assert refused.value.field == "--set " + setting.partition("=")[0]


def test_two_choices_of_one_group_are_refused() -> None:
    with pytest.raises(UsageFault, match="zero was chosen before"):
        choose("occlusion", "occlusion.fill=zero", "occlusion.fill=normal-noise")


def test_a_choice_may_be_made_and_then_refined() -> None:
    method = choose("occlusion", "occlusion.fill=gaussian-blur", "occlusion.fill.gaussian-blur.sigma-voxels=3")
    assert method.occlusion.fill.gaussian_blur.sigma_voxels == 3.0


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_listed_parameter_of_every_method_exists(name: str) -> None:
    method = make_method(name)
    message = getattr(method, name.replace("-", "_"))
    listed = list_parameters(message.DESCRIPTOR)
    assert {path.split(".")[0].replace("-", "_") for path in listed} == set(message.DESCRIPTOR.fields_by_name)
    for path in listed:
        *above, last = path.replace("-", "_").split(".")
        descriptor = message.DESCRIPTOR
        for part in above:
            descriptor = descriptor.fields_by_name[part].message_type
        assert descriptor is not None and last in descriptor.fields_by_name, path

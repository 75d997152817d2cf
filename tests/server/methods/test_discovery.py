"""Methods are registered by being there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from voxplain.v1 import method_pb2
from voxplain_server import methods
from voxplain_server.methods import all_methods
from voxplain_server.methods.method import GradientMethod, Method, PerturbationMethod

FOLDER = Path(methods.__file__).parent
METHODS = all_methods()


def test_every_file_that_defines_a_method_is_found() -> None:
    defining = {path.stem for path in FOLDER.glob("*.py") if re.search(r"^METHOD\b.*=", path.read_text(), re.MULTILINE)}
    assert defining == {name.replace("-", "_") for name in METHODS}


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_a_method_describes_itself(method: Method) -> None:
    assert method.summary.endswith(".") and len(method.citation) > 10
    assert method.assumptions and all(each.endswith(".") for each in method.assumptions)
    assert method.needs_gradients == isinstance(method, GradientMethod)
    assert method.needs_gradients != isinstance(method, PerturbationMethod)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_its_name_is_its_field_and_its_defaults_are_its_message(method: Method) -> None:
    field = method_pb2.Method.DESCRIPTOR.fields_by_name[method.name.replace("-", "_")]
    assert method.defaults(None).DESCRIPTOR is field.message_type


def test_methods_load_without_anything_heavy() -> None:
    code = (
        "import sys; from voxplain_server.methods import all_methods; import voxplain_server.methods.resolve; all_methods();"
        " print([name for name in"
        " ('torch', 'onnxruntime', 'captum', 'skimage', 'scipy', 'onnx') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"

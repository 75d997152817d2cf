"""Where one version of one model lies on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from voxplain_server.models.model_refused import ModelRefused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class BundlePlace:
    """A folder that claims to be a version of a model. Nothing of it was opened but, for its version, metadata.json.

    Attributes:
        name, version: how it is asked for.
        folder: the version's folder.
    """

    name: str
    version: str
    folder: Path

    def check_names(self) -> None:
        """Refuse names that cannot be asked for safely: MODEL_NAME."""
        if not (_NAME.fullmatch(self.name) and _NAME.fullmatch(self.version)):
            message = "The folders of a model and its version need names of letters, digits, '.', '_' and '-'. Rename them."
            raise ModelRefused("MODEL_NAME", message)

    def metadata_path(self) -> Path:
        """metadata.json, whichever layout the bundle has; it may not exist."""
        own = self.folder / "metadata.json"
        monai = self.folder / "configs" / "metadata.json"
        return monai if monai.is_file() and not own.is_file() else own

    def onnx_path(self) -> Path:
        """The one ONNX file.

        Raises:
            ModelRefused: ONNX_MISSING, or ONNX_AMBIGUOUS where the MONAI layout holds several and none is model.onnx.
        """
        own = self.folder / "model.onnx"
        if own.is_file():
            return own
        found = sorted(onnx_files(self.folder / "models"))
        named = [path for path in found if path.name == "model.onnx"]
        if len(named or found) == 1:
            return (named or found)[0]
        if found:
            raise ModelRefused("ONNX_AMBIGUOUS", "models/ holds several ONNX files. Name the one to serve model.onnx.")
        raise ModelRefused("ONNX_MISSING", "There is no model.onnx, nor an ONNX file in models/. Export the network to one.")


def onnx_files(folder: Path) -> list[Path]:
    """The ONNX files right in a folder; none where it does not exist."""
    return [path for path in folder.glob("*.onnx") if path.is_file()] if folder.is_dir() else []

"""The models that the checking worker let in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from voxplain.errors import ModelNotFound
from voxplain.v1 import catalog_pb2

from voxplain_server.models.model import Model
from voxplain_server.models.traits import ModelTraits


@dataclass(frozen=True, slots=True, eq=False)
class CatalogEntry:
    """One version of one model.

    Attributes:
        model: what its bundle says.
        traits: what checking its graph has shown.
        description: as clients see it.
        engine: name of the engine that evaluates it where a call pins none.
    """

    model: Model
    traits: ModelTraits
    description: catalog_pb2.Model
    engine: str

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of all engines that can evaluate it."""
        choice = self.traits.engine_choice
        return (self.engine,) if choice is None else choice.available


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that was not let in.

    Attributes:
        name: the model's name, as its folder has it.
        version: what clients are told, without a path.
    """

    name: str
    version: catalog_pb2.RefusedVersion


class Catalog:
    """Every model by name and version. It may change between two steps of the event loop; a call keeps the entry it began with.

    Args:
        entries: what was let in.
        refusals: what was not.
    """

    def __init__(self, entries: Iterable[CatalogEntry] = (), refusals: Iterable[Refusal] = ()) -> None:
        self._by_name: dict[str, dict[str, CatalogEntry]] = {}
        self._refusals: dict[tuple[str, str], Refusal] = {}
        for entry in entries:
            self.let_in(entry)
        for refusal in refusals:
            self._refusals[refusal.name, refusal.version.version] = refusal

    def let_in(self, entry: CatalogEntry) -> None:
        """Serve an entry from now on, in the place of what had its name and version."""
        model = entry.model
        versions = self._by_name.get(model.name, {}) | {model.version: entry}
        # In an order of its own, the default first.
        self._by_name[model.name] = {
            version: versions[version] for version in sorted(versions, key=version_order, reverse=True)
        }
        self._refusals.pop((model.name, model.version), None)

    def refuse(self, refusal: Refusal) -> None:
        """Tell why a version is not served; one that is served stays: a bad bundle never replaces a good one."""
        key = refusal.name, refusal.version.version
        if key[1] not in self._by_name.get(key[0], {}):
            self._refusals[key] = refusal

    def remove(self, name: str, version: str) -> None:
        """Forget a version; calls that began with it go on."""
        self._refusals.pop((name, version), None)
        versions = self._by_name.get(name, {})
        versions.pop(version, None)
        if not versions:
            self._by_name.pop(name, None)

    def serves(self, entry: CatalogEntry) -> bool:
        """Whether new calls would get this very entry."""
        return self._by_name.get(entry.model.name, {}).get(entry.model.version) is entry

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What was not let in."""
        return tuple(self._refusals.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Models by name, those with only refused versions included."""
        return tuple(sorted({*self._by_name, *(refusal.name for refusal in self.refusals)}))

    @property
    def entries(self) -> tuple[CatalogEntry, ...]:
        """Every entry, by name, the default version first."""
        return tuple(entry for name in sorted(self._by_name) for entry in self._by_name[name].values())

    def versions(self, name: str) -> tuple[CatalogEntry, ...]:
        """The versions of a model, the default (the highest number) first; empty for an unknown name."""
        return tuple(self._by_name.get(name, {}).values())

    def refused(self, name: str) -> tuple[catalog_pb2.RefusedVersion, ...]:
        """The versions of a model that were not let in."""
        return tuple(refusal.version for refusal in self.refusals if refusal.name == name)

    def find(self, name: str, version: str = "") -> CatalogEntry:
        """One model; without a version its default.

        Raises:
            ModelNotFound: MODEL_NOT_FOUND or VERSION_NOT_FOUND; MODEL_REFUSED where its bundle was not let in.
        """
        versions = self._by_name.get(name, {})
        if version and version not in versions and any(each.version == version for each in self.refused(name)):
            raise ModelNotFound("MODEL_REFUSED", "this version's bundle was refused; ListModels tells why", field="version")
        if not versions:
            if self.refused(name):
                raise ModelNotFound("MODEL_REFUSED", "this model's bundle was refused; ListModels tells why", field="model")
            raise ModelNotFound("MODEL_NOT_FOUND", "no such model; ListModels tells which there are", field="model")
        if not version:
            return next(iter(versions.values()))
        if version not in versions:
            raise ModelNotFound("VERSION_NOT_FOUND", "no such version; GetModel tells which there are", field="version")
        return versions[version]


def version_order(version: str) -> tuple[int, tuple[int, ...], str]:
    """Numbers, also dotted ones, by value and above names."""
    parts = version.split(".")
    if all(part.isdecimal() for part in parts):
        return 1, tuple(int(part) for part in parts), version
    return 0, (), version

"""Who may call which method. What no rule names is denied."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from voxplain_server.access import AccessRefused

EXPLAIN = "/voxplain.v1.ExplainService/Explain"
_CATALOG = "/voxplain.v1.CatalogService/"
CATALOG = tuple(_CATALOG + name for name in ("ListModels", "GetModel", "ListMethods", "EstimateExplanation"))
_INFERENCE = "/inference.GRPCInferenceService/"
INFER = _INFERENCE + "ModelInfer"
INFERENCE_FACTS = tuple(
    _INFERENCE + name for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
)
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
METHODS = (EXPLAIN, *CATALOG, INFER, *INFERENCE_FACTS, REFLECTION)
"""Every method that a rule may name. Written out, so that a new method is denied until somebody has thought about it."""

EXPLAIN_SCOPE = "voxplain.explain"
CATALOG_SCOPE = "voxplain.catalog"
INFER_SCOPE = "voxplain.infer"

_CONDITIONS = ("scopes", "subjects", "certificates")
_MAX_POLICY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as it was proven.

    Attributes:
        subject: `sub` of the token.
        scopes: of the token.
        certificates: names in the client's certificate: the alternative names and the common name.
    """

    subject: str = ""
    scopes: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """Lets callers call methods. Every condition that it states must hold; one of a condition's names is enough.

    Attributes:
        methods: full names, as /voxplain.v1.ExplainService/Explain.
        scopes, subjects, certificates: None: no condition.
    """

    methods: frozenset[str]
    scopes: frozenset[str] | None = None
    subjects: frozenset[str] | None = None
    certificates: frozenset[str] | None = None

    def admits(self, method: str, caller: Caller) -> bool:
        """Whether it lets this caller call this method."""
        return (
            method in self.methods
            and (self.scopes is None or not self.scopes.isdisjoint(caller.scopes))
            and (self.subjects is None or caller.subject in self.subjects)
            and (self.certificates is None or not self.certificates.isdisjoint(caller.certificates))
        )


class Policy:
    """Rules; a call is let in where one of them admits it."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)

    def admits(self, method: str, caller: Caller) -> bool:
        """Whether this caller may call this method."""
        return any(rule.admits(method, caller) for rule in self.rules)


def built_in_policy(*, tokens: bool) -> Policy:
    """Where the operator gives no policy: whoever is let in may call every method; tokens need a scope of ours."""
    explain = frozenset({EXPLAIN_SCOPE}) if tokens else None
    look = frozenset({EXPLAIN_SCOPE, CATALOG_SCOPE}) if tokens else None
    # Who may have a prediction explained may have the prediction; not the other way round.
    infer = frozenset({EXPLAIN_SCOPE, INFER_SCOPE}) if tokens else None
    facts = frozenset({EXPLAIN_SCOPE, CATALOG_SCOPE, INFER_SCOPE}) if tokens else None
    return Policy(
        [
            Rule(frozenset({EXPLAIN}), explain),
            Rule(frozenset({*CATALOG, REFLECTION}), look),
            Rule(frozenset({INFER}), infer),
            Rule(frozenset(INFERENCE_FACTS), facts),
        ]
    )


def read_policy(path: Path, *, tokens: bool, certificates: bool) -> Policy:
    """Read {"rules": [{"methods": [...], "scopes": [...], "subjects": [...], "certificates": [...]}]}.

    Args:
        path: JSON file.
        tokens, certificates: what callers must show; a condition on anything else could never hold.

    Raises:
        AccessRefused: the file cannot be read, or a rule says what cannot be.
    """
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_MAX_POLICY_BYTES))
    except (OSError, ValueError, RecursionError):
        raise AccessRefused("--policy must be a readable JSON file of at most 1 MiB") from None
    if not isinstance(told, dict) or set(told) != {"rules"} or not isinstance(told["rules"], list):
        raise AccessRefused('--policy must hold one object, {"rules": [...]}')
    return Policy([_rule(each, tokens=tokens, certificates=certificates) for each in told["rules"]])


def _rule(told: object, *, tokens: bool, certificates: bool) -> Rule:
    if not isinstance(told, dict) or "methods" not in told or not set(told) <= {"methods", *_CONDITIONS}:
        raise AccessRefused("every rule of --policy needs methods, and may have scopes, subjects and certificates")
    names = {key: _names(value) for key, value in told.items()}
    if not names["methods"] <= set(METHODS):
        raise AccessRefused(f"--policy names a method that there is not; there are {', '.join(METHODS)}")
    if ("scopes" in names or "subjects" in names) and not tokens:
        raise AccessRefused("--policy asks for scopes or subjects: give --token-keys too")
    if "certificates" in names and not certificates:
        raise AccessRefused("--policy asks for certificates: give --tls-client-ca too")
    return Rule(names["methods"], *(names.get(condition) for condition in _CONDITIONS))


def _names(told: object) -> frozenset[str]:
    if not isinstance(told, list) or not told or not all(isinstance(each, str) and each for each in told):
        raise AccessRefused("methods, scopes, subjects and certificates of --policy are lists of names, none of them empty")
    return frozenset(told)

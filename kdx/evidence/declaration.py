"""The declaration in conf/evidence: families of systems and claims about them, checked before any run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Len
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, TypeAdapter, ValidationError

from kdx.config.errors import ConfigError, explain_omegaconf, nearest
from kdx.evidence.figures import Figure
from kdx.evidence.kinds import Test
from kdx.experiment import build
from kdx.ranges import Count, Number, explain


@dataclass
class ClaimConfig:
    """One claim: its sentence, the tests that all must hold, and an optional note that explains the result."""

    sentence: str = MISSING
    tests: list[Any] = MISSING
    note: str = ""


@dataclass
class FamilyConfig:
    """Systems that are compared with each other. Each is a list of kdx-train overrides; nested lists are flattened."""

    paper: str = MISSING
    about: str = MISSING  # the setting, in a sentence or two
    budget: dict[str, Any] = field(default_factory=dict)  # numbers that the overrides refer to
    systems: dict[str, Any] = MISSING
    claims: dict[str, ClaimConfig] = MISSING
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvidenceConfig:
    """The keys of conf/evidence.yaml; the YAML file explains them."""

    name: str = MISSING
    title: str = MISSING
    outputs: str = MISSING
    seeds: Any = MISSING
    jobs: int | None = None
    only: list[str] | None = None
    overrides: list[str] = MISSING
    formats: list[str] = MISSING
    families: dict[str, FamilyConfig] = MISSING


@dataclass(frozen=True)
class Claim:
    """A claim with its tests as objects."""

    family: str
    name: str
    paper: str
    sentence: str
    tests: tuple[Test, ...]
    note: str

    @property
    def needs(self) -> Iterator[tuple[str, str]]:
        """The (system, metric) pairs that its tests read."""
        for test in self.tests:
            yield from ((system, metric) for system in test.systems for metric in test.metrics)


@dataclass(frozen=True)
class Family:
    """A family with the claims that `only` selects, and its figures."""

    name: str
    paper: str
    about: str
    systems: dict[str, tuple[str, ...]]  # overrides, without the common overrides of all runs
    claims: tuple[Claim, ...]
    figures: dict[str, Figure]

    @property
    def needed(self) -> dict[str, dict[str, str]]:
        """The systems that the claims read, in the declared order: system -> metric -> name of a claim that reads it."""
        by_system: dict[str, dict[str, str]] = {name: {} for name in self.systems}
        for claim in self.claims:
            for system, metric in claim.needs:
                by_system[system].setdefault(metric, claim.name)
        return {name: reasons for name, reasons in by_system.items() if reasons}


@dataclass(frozen=True)
class Declaration:
    """All systems to run and all claims to test."""

    name: str
    title: str
    outputs: str
    seeds: tuple[int, ...]
    jobs: int | None
    overrides: tuple[str, ...]
    formats: tuple[str, ...]
    families: tuple[Family, ...]


def declare(cfg: DictConfig) -> Declaration:
    """Return the declaration in `cfg` (conf/evidence.yaml, composed).

    Raises:
        ConfigError: If the declaration is invalid; the message ends with the remedy.
    """
    try:
        typed = OmegaConf.merge(OmegaConf.structured(EvidenceConfig), cfg)
        missing = sorted(OmegaConf.missing_keys(typed))
        if missing:
            raise ConfigError(f"Missing required option: {missing[0]}=VALUE")
        plain: Any = OmegaConf.to_container(typed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_omegaconf(error)) from None
    unsupported = sorted(set(plain["formats"]) - {"png", "svg", "pdf"})
    if unsupported:
        raise ConfigError(f"Unknown format '{unsupported[0]}' in formats. Available: png, svg, pdf.")
    if plain["jobs"] is not None:
        _fit("jobs", plain["jobs"], Count)
    families = tuple(_family(name, node) for name, node in plain["families"].items())
    return Declaration(
        name=plain["name"],
        title=plain["title"],
        outputs=plain["outputs"],
        seeds=_seeds(plain["seeds"]),
        jobs=plain["jobs"],
        overrides=tuple(plain["overrides"]),
        formats=tuple(plain["formats"]),
        families=_chosen(families, plain["only"]),
    )


def flatten(overrides: Any) -> Iterator[str]:
    """Yield the strings in nested lists."""
    if isinstance(overrides, list):
        for item in overrides:
            yield from flatten(item)
    else:
        yield str(overrides)


def _family(name: str, node: dict[str, Any]) -> Family:
    where = f"families.{name}"
    systems = {system: tuple(flatten(overrides)) for system, overrides in node["systems"].items()}
    claims = []
    for key, claim in node["claims"].items():
        path = f"{where}.claims.{key}"
        if not claim["tests"]:
            raise ConfigError(f"{path}.tests is empty: add at least one test")
        tests = tuple(_make(test, f"{path}.tests[{i}]", Test) for i, test in enumerate(claim["tests"]))
        for test in tests:
            _check_systems(path, test.systems, list(systems))
        claims.append(Claim(name, key, node["paper"], claim["sentence"], tests, claim["note"]))
    figures = {key: _make(figure, f"{where}.figures.{key}", Figure) for key, figure in node["figures"].items()}
    for key, figure in figures.items():
        _check_systems(f"{where}.figures.{key}", figure.systems, list(systems))
    return Family(name, node["paper"], node["about"], systems, tuple(claims), figures)


def _make(node: Any, path: str, kind: type) -> Any:
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"{path} has no _target_: add one, such as {kind.__module__}.{kind.__subclasses__()[0].__name__}")
    built = build.make(node, path)
    if not isinstance(built, kind):
        raise ConfigError(f"{path}: {node['_target_']} is not a {kind.__name__}: choose a class in {kind.__module__}")
    return built


def _check_systems(path: str, names: list[str], systems: list[str]) -> None:
    for name in names:
        if name not in systems:
            raise ConfigError(f"{path}: unknown system '{name}'.{nearest(name, systems)} Available: {', '.join(systems)}.")


def _chosen(families: tuple[Family, ...], only: list[str] | None) -> tuple[Family, ...]:
    """Return the families with the claims that `only` names: a family, a claim, or family.claim."""
    if only is None:
        return families
    names = {f"{claim.family}.{claim.name}": {claim.family, claim.name} for family in families for claim in family.claims}
    words = list(dict.fromkeys([*(family.name for family in families), *(claim.split(".")[1] for claim in names), *names]))
    for word in only:
        if word not in words:
            raise ConfigError(f"Unknown claim '{word}' in only.{nearest(word, words)} Available: {', '.join(names)}.")
    kept = {full for full, parts in names.items() if {full, *parts} & set(only)}
    chosen = []
    for family in families:
        claims = tuple(claim for claim in family.claims if f"{claim.family}.{claim.name}" in kept)
        if claims:
            chosen.append(Family(family.name, family.paper, family.about, family.systems, claims, family.figures))
    return tuple(chosen)


def _seeds(given: Any) -> tuple[int, ...]:
    """Return the seeds in a list such as [0,1,2] or an inclusive range such as 0-2."""
    if isinstance(given, str) and given.count("-") == 1:
        first, last = given.split("-")
        if first.strip().isdigit() and last.strip().isdigit():
            given = list(range(int(first), int(last) + 1))
    _fit("seeds", given, Annotated[list[Number], Len(2), Field(strict=True)])
    if len(set(given)) < len(given):
        raise ConfigError(f"Duplicate seeds in seeds={given}: give each seed once")
    return tuple(given)


def _fit(path: str, value: Any, annotation: Any) -> None:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        hint = ": give two or more seeds, such as [0,1,2] or 0-4" if path == "seeds" else ""
        raise ConfigError(f"{path}={value}: {explain(error)}{hint}") from None

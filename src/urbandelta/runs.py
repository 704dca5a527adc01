"""A prediction decided: inputs matched, plan made, engine chosen. Nothing is computed or written here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from urbandelta import __version__
from urbandelta.assemble import Moment
from urbandelta.engines import Engine, engine_named
from urbandelta.errors import ConfigError
from urbandelta.inputs import InputPlan, resolve_inputs
from urbandelta.network import FoldedNetwork, fold
from urbandelta.plan import PredictPlan, plan_prediction
from urbandelta.store import Cube
from urbandelta.weights import Weights

MaskRule: TypeAlias = Literal["explicit", "published"]
MASK_RULES: tuple[MaskRule, ...] = ("explicit", "published")


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Everything that a prediction needs, checked and decided."""

    cube: Cube
    weights: Weights
    network: FoldedNetwork
    inputs: InputPlan
    plan: PredictPlan
    engine: Engine
    mask_rule: MaskRule

    @property
    def attributes(self) -> dict[str, Any]:
        """Provenance of the scores; a resumed run must have the same `identity`."""
        identity = {
            **self.plan.identity,
            "weights_sha256": self.weights.sha256,
            "cube_snapshot": self.cube.snapshot,
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "mask_rule": self.mask_rule,
            "substitutions": list(self.inputs.substitutions),
            "accepted": list(self.inputs.accepted),
        }
        return {
            "title": f"Urban change scores, {self.plan.era.title}",
            "source": f"urbandelta {__version__}",
            "version": __version__,
            "era": self.plan.era.name,
            "weights_name": self.weights.name,
            "weights_description": dict(self.weights.description),
            "weights_sha256": self.weights.sha256,
            "cube_url": self.cube.url,
            "cube_snapshot": self.cube.snapshot,
            "substitutions": list(self.inputs.substitutions),
            "accepted": list(self.inputs.accepted),
            "unstated": list(self.inputs.unstated),
            "parameters": {
                key: value for key, value in identity.items() if key not in ("weights_sha256", "cube_snapshot")
            },
            "identity": identity,
        }


def prepare_run(
    cube: Cube,
    weights: Weights,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    stride: int | None = None,
    tile: int | None = None,
    halo: int | None = None,
    engine: str = "auto",
    mask_rule: str = "explicit",
    precision: str = "fp32",
    substitutions: Sequence[str] = (),
    accepted: Sequence[str] = (),
) -> Run:
    """Check and plan a prediction without computing it; parameters and errors as in `predict`."""
    for rule in MASK_RULES:
        if rule == mask_rule:
            break
    else:
        raise ConfigError(f"unknown mask rule {mask_rule!r}; expected one of {', '.join(MASK_RULES)}")
    inputs = resolve_inputs(cube, weights, substitutions=substitutions, accepted=accepted)
    plan = plan_prediction(
        cube, weights.config, inputs.sources, start=start, end=end, stride=stride, tile=tile, halo=halo
    )
    return Run(
        cube=cube,
        weights=weights,
        network=fold(weights.parameters, weights.config),
        inputs=inputs,
        plan=plan,
        engine=engine_named(engine, precision=precision),
        mask_rule=rule,
    )

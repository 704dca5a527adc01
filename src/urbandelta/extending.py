"""Keep scores current: score the windows that are new or changed, and leave the others as they are.

The result is, bit by bit, what one prediction over everything gives. Windows are told apart by what they were made from
(`window_inputs`); tiles and blocks are the same for a part of the windows as for all (`plan.PredictPlan.tail`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from urbandelta.assemble import Moment
from urbandelta.errors import StoreError
from urbandelta.execute import run_blocks
from urbandelta.infer import SCORE_CHUNKS
from urbandelta.repository import icechunk_errors
from urbandelta.runs import Run, prepare_run, usable_cores
from urbandelta.score_growth import INPUTS, StoredWindows, grow_scores, stored_windows
from urbandelta.scores import ScoreWriter, create_or_resume_scores, resume_scores, store_exists
from urbandelta.store import Cube, open_cube
from urbandelta.types import Progress
from urbandelta.weights import Weights, find_weights
from urbandelta.window_inputs import window_inputs


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What was done: windows left as they were, scored now, provisional among all, and the snapshot of the scores."""

    kept: int
    scored: int
    provisional: int
    snapshot: str

    @property
    def windows(self) -> int:
        """All windows of the store."""
        return self.kept + self.scored


def extend_scores(
    cube: Cube | str,
    weights: Weights | str,
    out: str,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    stride: int | None = None,
    tile: int | None = None,
    halo: int | None = None,
    engine: str = "auto",
    mask_rule: str = "explicit",
    precision: str = "fp32",
    workers: int | None = None,
    substitutions: Sequence[str] = (),
    accepted: Sequence[str] = (),
    progress: Progress | None = None,
) -> Extension:
    """Score what is new in a cube into a score store, which is made if there is none.

    Killed at any moment, the same call goes on. Readers see the store as it was until all is done. Parameters as in
    `infer.predict`; `start` must stay the same from call to call, since windows are counted from it.

    Raises
    ------
    StoreError
        If the store was made with other weights or options.
    ContractError, TooFewObservations, EngineError, ConfigError
        As in `infer.predict`.
    """
    cube = cube if isinstance(cube, Cube) else open_cube(cube)
    weights = weights if isinstance(weights, Weights) else find_weights(weights)
    run = prepare_run(
        cube,
        weights,
        start=start,
        end=end,
        stride=stride,
        tile=tile,
        halo=halo,
        engine=engine,
        mask_rule=mask_rule,
        precision=precision,
        substitutions=substitutions,
        accepted=accepted,
    )
    plan = run.plan
    inputs = window_inputs(cube, run.inputs.sources, plan.steps, plan.windows, look_back=run.mask_rule == "explicit")
    attributes = {**run.attributes, INPUTS: inputs}
    stored = stored_windows(out) if store_exists(out) else None
    keep = _kept(stored, inputs, run, out)
    if stored is not None and stored.complete and keep == len(inputs) == len(stored.inputs):
        return Extension(kept=keep, scored=0, provisional=sum(plan.provisional), snapshot=stored.snapshot)
    sink: ScoreWriter
    if stored is None or (not stored.complete and stored.attributes.get("identity") == attributes["identity"]):
        sink = (
            resume_scores(out, attributes)
            if stored is not None
            else create_or_resume_scores(
                out,
                grid=cube.grid,
                windows=plan.windows,
                chunks=SCORE_CHUNKS,
                attributes=attributes,
                provisional=plan.provisional,
            )
        )
    else:
        sink = grow_scores(out, windows=plan.windows, keep=keep, attributes=attributes, provisional=plan.provisional)
    if keep < len(inputs):
        part = dataclasses.replace(run, plan=plan.tail(keep)) if keep else run
        with icechunk_errors(out):
            run_blocks(part, sink, workers=usable_cores() if workers is None else workers, progress=progress)
    snapshot = sink.finish()
    return Extension(kept=keep, scored=len(inputs) - keep, provisional=sum(plan.provisional), snapshot=snapshot)


def _kept(stored: StoredWindows | None, inputs: Sequence[str], run: Run, out: str) -> int:
    if stored is None:
        return 0
    try:
        return stored.kept(inputs, run.attributes["identity"])
    except StoreError as error:
        raise StoreError(f"{out}: {error}") from None

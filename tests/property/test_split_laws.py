"""Laws of the leakage guard, for areas of any shape."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from urbandelta.errors import ConfigError, TooFewObservations
from urbandelta.split import UNUSED, PlannedWindow, SplitOptions, TrainingPlan, leaks, plan_training
from urbandelta.types import Window
from urbandelta.windows import find_windows

settings.register_profile("urbandelta", deadline=None, max_examples=50)
settings.load_profile("urbandelta")

DAY = np.timedelta64(1, "D")
BEGIN = np.datetime64("2018-01-01", "ns")


def series(days: int, *, every: int = 4, length: int = 60, triplets: bool = True) -> list[Window]:
    times = BEGIN + np.arange(0, days, every) * DAY
    return find_windows(times, length=length * DAY, min_obs=5, max_obs=40, stride=1, triplets=triplets)


ALL_YEAR = series(400)


@st.composite
def spatial_plans(draw: st.DrawFn) -> TrainingPlan:
    tile = draw(st.integers(1, 40))
    shape = tile * draw(st.integers(1, 14)) + draw(st.integers(0, 9)), tile * draw(st.integers(1, 14))
    options = SplitOptions(
        tile=tile,
        block_tiles=draw(st.none() | st.integers(1, 5)),
        buffer_px=draw(st.integers(0, 60)),
        validation=draw(st.floats(0.05, 0.5)),
        test=draw(st.sampled_from([0.0, 0.1, 0.3])),
        seed=draw(st.integers(0, 5)),
    )
    try:
        return plan_training(shape, ALL_YEAR, window_days=60, options=options)
    except ConfigError as error:
        assume("too few" not in str(error))
        raise


@given(spatial_plans())
def test_no_training_pixel_lies_within_the_buffer_of_a_pixel_held_out(plan: TrainingPlan) -> None:
    assert leaks(plan) == ()
    tile, buffer_px = plan.options.tile, plan.options.buffer_px
    assert buffer_px is not None
    owner = np.full(plan.shape, UNUSED, dtype=object)
    for item in plan.tiles:
        part = owner[item.y : item.y + tile, item.x : item.x + tile]
        assert part.shape == (tile, tile)
        assert (part == UNUSED).all()
        part[...] = item.role
    for item in plan.tiles:
        if item.role != UNUSED:
            top, left = max(item.y - buffer_px, 0), max(item.x - buffer_px, 0)
            around = owner[top : item.y + tile + buffer_px, left : item.x + tile + buffer_px]
            assert set(around.ravel()) <= {item.role, UNUSED}


@given(spatial_plans())
def test_what_was_asked_for_is_held_out_whole_blocks_at_a_time(plan: TrainingPlan) -> None:
    options, count = plan.options, len(plan.tiles)
    assert count == (plan.shape[0] // options.tile) * (plan.shape[1] // options.tile)
    assert plan.roles == (("train", "validation", "test") if options.test else ("train", "validation"))
    block = options.block_tiles
    assert block is not None
    rings = [
        {tile.role for tile in plan.tiles if (tile.row // block, tile.column // block) == place}
        for place in {(tile.row // block, tile.column // block) for tile in plan.tiles}
    ]
    assert all(len(roles - {UNUSED}) <= 1 for roles in rings)
    if options.test:
        # No tile of test falls to a buffer, and the last block is the only one that goes beyond the share.
        held = len(plan.tiles_of("test"))
        assert options.test * count <= held < options.test * count + block**2


@given(spatial_plans())
def test_a_plan_survives_json(plan: TrainingPlan) -> None:
    text = json.dumps(plan.to_json())
    assert TrainingPlan.from_json(json.loads(text)) == plan


@given(spatial_plans(), st.data())
def test_leaks_finds_a_tile_that_was_moved(plan: TrainingPlan, data: st.DataObject) -> None:
    validation = data.draw(st.sampled_from(plan.tiles_of("validation")))
    trains = plan.tiles_of("train")
    moved = data.draw(st.sampled_from(trains))
    assert plan.options.buffer_px is not None
    assume(plan.options.buffer_px > 0)
    side = data.draw(st.sampled_from([-1, 1]))
    gap = data.draw(st.integers(0, plan.options.buffer_px - 1))
    nearer = dataclasses.replace(moved, y=validation.y, x=validation.x + side * (plan.options.tile + gap))
    tiles = tuple(nearer if tile == moved else tile for tile in plan.tiles)
    found = leaks(dataclasses.replace(plan, tiles=tiles))
    assert any(leak.kind == "space" and leak.roles == ("train", "validation") for leak in found)
    assert all(leak.nearest <= gap for leak in found if leak.roles == ("train", "validation"))


@st.composite
def timed_plans(draw: st.DrawFn) -> TrainingPlan:
    label_days = draw(st.sampled_from([0.0, 60.0, 90.0]))
    length = draw(st.integers(500, 900))
    windows = series(length, every=draw(st.integers(4, 9)), triplets=label_days > 0)
    share = draw(st.floats(0.3, 0.7))
    days = int(draw(st.floats(0.3, 0.7)) * length)
    split: tuple[object, ...] = draw(st.sampled_from([(share,), (str(BEGIN + days * DAY),), (share, share + 0.09)]))
    options = SplitOptions(
        tile=8,
        test=0.2,
        time_split=split,  # type: ignore[arg-type]
        label_days=label_days,
        time_buffer_days=draw(st.sampled_from([0.0, 7.0])),
        window_share=draw(st.sampled_from([1.0, 0.5])),
    )
    try:
        return plan_training((64, 64), windows, window_days=60, options=options)
    except (TooFewObservations, ConfigError) as error:
        assume("no window is left" not in str(error))
        raise


def spans(windows: tuple[PlannedWindow, ...], days: float) -> list[tuple[np.datetime64, np.datetime64]]:
    """Moments that a window and its label look at: the triplet's three windows."""
    look = np.timedelta64(int(days * 24), "h")
    return [(w.start - look, max(w.end, w.start + 60 * DAY) + look if days else w.end) for w in windows]


@settings(max_examples=20)
@given(timed_plans())
def test_windows_of_different_roles_share_no_moment(plan: TrainingPlan) -> None:
    assert leaks(plan) == ()
    buffer_days = np.timedelta64(int(plan.options.time_buffer_days), "D")
    assert plan.options.label_days is not None
    for first, second in itertools.combinations(plan.roles, 2):
        if len(plan.options.time_split) == 1 and first == "validation":
            assert plan.windows_of(first) == plan.windows_of(second)
            continue
        assert max(w.last for w in plan.windows_of(first)) < min(w.first for w in plan.windows_of(second))
        earlier = max(end for _, end in spans(plan.windows_of(first), plan.options.label_days))
        later = min(start for start, _ in spans(plan.windows_of(second), plan.options.label_days))
        assert later - earlier > buffer_days


@settings(max_examples=20)
@given(timed_plans())
def test_leaks_finds_windows_that_overlap(plan: TrainingPlan) -> None:
    last = plan.windows_of("train")[-1]
    held_out = plan.windows_of("validation")[0]
    moved = dataclasses.replace(last, start=held_out.start, end=held_out.end)
    windows = tuple(moved if window == last else window for window in plan.windows)
    found = leaks(dataclasses.replace(plan, windows=windows))
    assert any(leak.kind == "time" and "train" in leak.roles for leak in found)


@given(st.integers(2, 30), st.integers(4, 30), st.integers(4, 40), st.integers(0, 9))
def test_the_published_checkerboard_is_that_and_its_leak_is_told(rows: int, columns: int, tile: int, seed: int) -> None:
    options = SplitOptions(split="checkerboard", tile=tile, seed=seed)
    plan = plan_training((rows * tile, columns * tile), ALL_YEAR, window_days=60, options=options)
    for item in plan.tiles:
        i, j = item.row, item.column
        # Twice and four times the published terms, so that whole numbers decide.
        train, validation = (2 * j + i) % 4 == 0, (2 * j + i + 1 + 2) % 8 == 0
        assert not (train and validation)
        assert item.role == ("train" if train else "validation" if validation else UNUSED)
    assert len(plan.windows) == round(len(ALL_YEAR) / 10)
    assert plan.windows_of("train") == plan.windows_of("validation")
    (leak,) = leaks(plan)
    assert leak.kind == "space"
    assert leak.nearest == 0
    assert "too close, the nearest 0 px apart" in str(leak)


def test_a_draw_is_a_function_of_its_seed() -> None:
    def plan(**options: object) -> TrainingPlan:
        return plan_training((512, 512), ALL_YEAR, window_days=60, options=SplitOptions(**options))  # type: ignore[arg-type]

    assert plan(seed=3, window_share=0.2) == plan(seed=3, window_share=0.2)
    assert plan(seed=3).tiles != plan(seed=4).tiles
    assert plan(seed=3, window_share=0.2).windows != plan(seed=4, window_share=0.2).windows


def test_a_whole_cube_has_one_role() -> None:
    plan = plan_training((40, 70), ALL_YEAR, window_days=60, options=SplitOptions(split="whole", role="test"))
    assert plan.counts == {"test": {"tiles": 2, "windows": len(ALL_YEAR), "samples": 2 * len(ALL_YEAR)}} | {
        "unused": {"tiles": 0}
    }
    assert leaks(plan) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "stripes"}, "unknown split 'stripes'"),
        ({"split": "whole"}, "a whole cube needs a role"),
        ({"role": "train"}, "a whole cube needs a role"),
        ({"split": "checkerboard", "validation": 0.3}, "validation means nothing to the split checkerboard"),
        ({"split": "whole", "role": "test", "time_split": (0.5,)}, "a time split means nothing"),
        ({"tile": 0}, "tile 0 is out of range"),
        ({"block_tiles": 0}, "block_tiles 0"),
        ({"buffer_px": -1}, "buffer_px -1"),
        ({"validation": 1.5}, "validation 1.5"),
        ({"validation": 0.5, "test": 0.5}, "leave nothing to train on"),
        ({"window_share": 0.0}, "window_share 0"),
        ({"label_days": -1.0}, "label_days -1"),
        ({"time_buffer_days": float("nan")}, "time_buffer_days nan"),
        ({"time_split": (1.5,)}, "time split 1.5 is out of range"),
        ({"time_split": ("soon",)}, "is not a date"),
        ({"time_split": (0.2, 0.8)}, "two where there is a share for test"),
        ({"time_split": (0.8, 0.2), "test": 0.1}, "must ascend"),
        ({"tile": 300}, "holds no tile of 300 px"),
        ({"tile": 128}, "2 x 2 tiles of 128 px are too few"),
        ({"buffer_px": 500}, "too few"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_training((256, 256), ALL_YEAR, window_days=60, options=SplitOptions(**options))  # type: ignore[arg-type]


def test_no_window_left_is_told() -> None:
    with pytest.raises(TooFewObservations, match="no window is left for train and validation; import"):
        plan_training((256, 256), [], window_days=60)
    with pytest.raises(
        TooFewObservations, match="for train, with a time split at 2018-02-01 and labels that look 60 days"
    ):
        plan_training((256, 256), ALL_YEAR, window_days=60, options=SplitOptions(time_split=("2018-02-01",)))


@pytest.mark.parametrize("damage", [None, [], {}, {"format": 2}, {"format": 1, "options": {"x": 1}}])
def test_what_is_no_plan_is_refused(damage: object) -> None:
    with pytest.raises(ConfigError, match="training plan"):
        TrainingPlan.from_json(damage)

"""Samples: what a batch shows equals what predict sees; an epoch is a function of the seed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from fake_labels import FakeLabels

from urbandelta import samples as module
from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, ContractError
from urbandelta.grid import Grid
from urbandelta.inputs import NewNetwork
from urbandelta.network import NetworkConfig
from urbandelta.samples import Batch, CubeSet, Sample, SampleSource, Shares, cube_set, turned
from urbandelta.split import SplitOptions
from urbandelta.store import Cube, create_cube
from urbandelta.timeline import block_timeline
from urbandelta.types import Acquisition

Cubes = Callable[..., Cube]
OPTIONS = SplitOptions(tile=8, buffer_px=8, block_tiles=1, validation=0.1, label_days=0)
WHOLE = SplitOptions(split="whole", role="train", tile=8)
TIGHT = 6_000_000
"""Bytes, for two or three bricks."""


def network(era: str = "s12", variant: str = "combined") -> NewNetwork:
    return NewNetwork(ERAS[era], NetworkConfig.for_era(ERAS[era], variant))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cube(make_cube: Cubes) -> Cube:
    return make_cube(shape=(40, 32), days=280)


@pytest.fixture(scope="module")
def labels(cube: Cube) -> FakeLabels:
    return FakeLabels(cube)


@pytest.fixture(scope="module")
def whole(cube: Cube, labels: FakeLabels) -> CubeSet:
    return cube_set(cube, labels, split=WHOLE)


def source(*cubes: CubeSet, **options: object) -> SampleSource:
    return SampleSource(cubes, network(), **{"role": "train", "batch_size": 4} | options)  # type: ignore[arg-type]


def timeline(cube: Cube, steps: np.ndarray, *, look_back: bool = True) -> np.ndarray:
    """Everything that predict shows, (step, band, y, x)."""
    region = (slice(0, cube.grid.height), slice(0, cube.grid.width))
    shown = block_timeline(cube, cube.streams, region, steps, look_back=look_back, batch=8)
    return np.stack([np.concatenate([view.frames[name] for name in cube.streams], -1) for view in shown]).transpose(
        0, 3, 1, 2
    )


def unpacked(batch: Batch, n: int) -> np.ndarray:
    """What the network sees of one sample, (step, band, y, x)."""
    steps = batch.valid[n]
    return np.concatenate([batch.frames[path][batch.index[path][n, steps]] for path in batch.frames], axis=1)


def same(first: Batch, second: Batch) -> bool:
    paths = first.frames.keys() == second.frames.keys()
    return (
        paths
        and first.origin == second.origin
        and all(np.array_equal(first.frames[path], second.frames[path]) for path in first.frames)
        and all(np.array_equal(first.index[path], second.index[path]) for path in first.frames)
        and np.array_equal(first.valid, second.valid)
        and np.array_equal(first.truth, second.truth, equal_nan=True)
    )


def check_equality(item: CubeSet, batches: list[Batch], tile: int, *, look_back: bool = True) -> None:
    labels = item.labels
    assert isinstance(labels, FakeLabels)
    shown = timeline(item.cube, labels.steps, look_back=look_back)
    for batch in batches:
        for n, sample in enumerate(batch.origin):
            window = labels.windows[sample.window]
            place = slice(sample.y, sample.y + tile), slice(sample.x, sample.x + tile)
            expected = shown[(slice(window.first, window.last + 1), slice(None), *place)]
            np.testing.assert_array_equal(unpacked(batch, n), turned(expected, sample.turn))
            truth = labels.truth[(sample.window, *place)]
            np.testing.assert_array_equal(batch.truth[n], turned(truth, sample.turn))


@pytest.mark.parametrize("look_back", [True, False])
def test_samples_are_the_frames_that_predict_shows_bit_by_bit(whole: CubeSet, look_back: bool) -> None:
    batches = list(source(whole, augment="flips", look_back=look_back).epoch(3))
    assert {sample.turn for batch in batches for sample in batch.origin} == set(range(8))
    check_equality(whole, batches, 8, look_back=look_back)


def test_a_small_budget_cuts_bricks_in_time_and_changes_no_sample(whole: CubeSet) -> None:
    roomy, tight = source(whole), source(whole, budget_bytes=TIGHT)
    assert len(roomy._plans) == 1
    assert len(tight._plans) > 3
    assert max(plan.first for plan in tight._plans) > 0
    batches = list(tight.epoch(0))
    check_equality(whole, batches, 8)
    drawn = sorted((s.window, s.y, s.x) for b in batches for s in b.origin)
    assert len(set(drawn)) == len(drawn) == tight.size // 4 * 4


def test_integers_with_an_offset_are_decoded_as_a_cube_decodes_them(tmp_path: object) -> None:
    era = ERAS["s12"]
    cube = create_cube(f"{tmp_path}/cube", era="s12", grid=Grid.from_bounds((0, 0, 160, 160), "EPSG:32631", (16, 16)))
    rng = np.random.default_rng(3)
    for stream in era.streams:
        scale, offset = (1e-4, -0.1) if stream.kind == "optical" else (0.001, 0.0)
        cube.append(
            stream.name,
            [
                Acquisition(
                    time=np.datetime64("2018-01-01", "ns") + np.timedelta64(5 * n, "D"),
                    values=rng.integers(0, 9999, (16, 16, len(stream.bands)), np.uint16),
                    mask=(rng.random((16, 16)) < 0.5 + 0.5 * (np.indices((16, 16)).sum(0) < 3)).astype(np.uint8),
                    bands=stream.bands,
                    scale=scale,
                    offset=offset,
                    orbit_state=stream.orbit_state,
                    processing_level=stream.processing_level,
                    backscatter_coefficient=stream.backscatter_coefficient,
                )
                for n in range(0, 45, 1 if stream.kind == "optical" else 6)
            ],
        )
    item = cube_set(cube, FakeLabels(cube), split=WHOLE)
    drawn = source(item, batch_size=2)
    assert {stream.raw.dtype for stream in drawn._cache.get(0, drawn._plans[0]).streams.values()} == {np.dtype("u2")}
    check_equality(item, list(drawn.epoch(0)), 8)


def test_images_are_distinct_and_shared_among_steps(whole: CubeSet) -> None:
    batch = next(source(whole).epoch(0))
    for path, images in batch.frames.items():
        used = batch.index[path][batch.valid]
        assert set(used) == set(range(len(images)))
        assert len(images) < batch.valid.sum()
        rows = batch.index[path][0][batch.valid[0]]
        assert all(not np.array_equal(images[a], images[a + 1]) for a in range(rows.max()))


def test_an_epoch_depends_on_its_number_alone(whole: CubeSet) -> None:
    first, again = source(whole, augment="flips", balance=0.5), source(whole, augment="flips", balance=0.5)
    list(again.epoch(7))
    batches = list(first.epoch(2))
    assert len(batches) == first.batches()
    assert all(same(a, b) for a, b in zip(batches, again.epoch(2), strict=True))
    assert all(same(a, b) for a, b in zip(batches[5:], again.epoch(2, skip=5), strict=True))
    assert not same(batches[0], next(again.epoch(3)))
    assert not same(batches[0], next(source(whole, augment="flips", balance=0.5, seed=1).epoch(2)))


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(("size", "world"), [(40, 1), (43, 3), (8, 2)])
def test_shares_of_an_epoch_follow_each_other(size: int, world: int, trains: bool) -> None:
    shares = Shares(size=size, batch_size=4, trains=trains)
    ranges = [shares.samples(rank, world, skip=0) for rank in range(world)]
    assert ranges[0][0] == 0
    assert all(one[1] == other[0] for one, other in pairwise(ranges))
    assert ranges[-1][1] == (size // 4 // world * world * 4 if trains else size)
    assert shares.samples(0, world, skip=1) == (4, ranges[0][1])


@pytest.mark.parametrize("budget", [TIGHT, 1_000_000_000])
def test_ranks_share_an_epoch(whole: CubeSet, budget: int) -> None:
    drawn = source(whole, budget_bytes=budget)
    ranks = [[s for batch in drawn.epoch(1, rank=rank, world=3) for s in batch.origin] for rank in range(3)]
    assert len({len(rank) for rank in ranks}) == 1
    together = [(s.window, s.y, s.x) for rank in ranks for s in rank]
    assert len(set(together)) == len(together)
    assert drawn.size - len(together) < 3 * 4


def test_validation_is_every_sample_once_in_order(cube: Cube, labels: FakeLabels) -> None:
    item = cube_set(cube, labels, split=OPTIONS)
    drawn = source(item, role="validation", batch_size=5)
    batches = list(drawn.epoch(0))
    origins = [s for batch in batches for s in batch.origin]
    expected = {
        Sample(0, n, tile.y, tile.x) for n in range(len(labels.windows)) for tile in item.plan.tiles_of("validation")
    }
    assert len(origins) == drawn.size
    assert set(origins) == expected
    assert all(same(a, b) for a, b in zip(batches, drawn.epoch(9), strict=True))
    shared = [s for rank in range(2) for batch in drawn.epoch(0, rank=rank, world=2) for s in batch.origin]
    assert shared == origins
    assert [s for b in source(item, role="validation", samples=7).epoch(0) for s in b.origin] == [
        origins[n * len(origins) // 7] for n in range(7)
    ]


def test_training_sees_training_tiles_only(cube: Cube, labels: FakeLabels) -> None:
    item = cube_set(cube, labels, split=OPTIONS)
    seen = {(s.y, s.x) for batch in source(item).epoch(0) for s in batch.origin}
    assert seen == {(tile.y, tile.x) for tile in item.plan.tiles_of("train")}


def test_balance_draws_around_labelled_change(whole: CubeSet, labels: FakeLabels) -> None:
    def share(**options: object) -> float:
        truth = np.concatenate([batch.truth for batch in source(whole, **options).epoch(0)])
        return float((truth > 0.5).any(axis=(1, 2)).mean())

    assert share() < 0.25
    assert share(balance=0.6) > 0.6
    assert share(balance=0.6, budget_bytes=TIGHT) > 0.55


def test_where_no_label_reaches_a_half_the_strongest_are_drawn(cube: Cube) -> None:
    faint = FakeLabels(cube)
    faint.truth = np.where(faint.truth == 1, np.float32(0.3), 0.1 * faint.truth)
    item = cube_set(cube, faint, split=WHOLE)

    def share(**options: object) -> float:
        truth = np.concatenate([batch.truth for batch in source(item, **options).epoch(0)])
        return float((truth > 0.15).any(axis=(1, 2)).mean())

    assert share() < 0.25
    assert share(balance=0.6) > 0.55


def test_tiles_without_a_pixel_that_counts_are_not_trained_on(cube: Cube) -> None:
    labels = FakeLabels(cube)
    labels.truth[:, :16] = np.nan
    drawn = source(cube_set(cube, labels, split=WHOLE))
    assert {s.y for batch in drawn.epoch(0) for s in batch.origin} == {16, 24, 32}
    labels.truth[:] = np.nan
    assert len(list(source(cube_set(cube, labels, split=WHOLE)).epoch(0))) == drawn.batches()


def test_a_short_epoch_takes_fewer_bricks_and_others_next_time(whole: CubeSet) -> None:
    drawn = source(whole, samples=20, budget_bytes=TIGHT)
    windows = []
    for number in range(6):
        origins = [s for batch in drawn.epoch(number) for s in batch.origin]
        assert len(set(origins)) == len(origins) == 20
        windows.append({s.window for s in origins})
    assert len(set.union(*windows)) > 2 * max(len(part) for part in windows)


def test_an_epoch_may_be_longer_than_its_samples(whole: CubeSet) -> None:
    drawn = source(whole, samples=source(whole).size * 2)
    origins = [(s.window, s.y, s.x) for batch in drawn.epoch(0) for s in batch.origin]
    assert len(origins) == 2 * len(set(origins))


def test_fewer_steps_on_request(whole: CubeSet) -> None:
    full, short = next(source(whole).epoch(0)), next(source(whole, max_steps=6).epoch(0))
    assert short.valid.shape == (4, 6)
    assert short.valid.all()
    assert full.origin == short.origin
    for n in range(4):
        everything, some = unpacked(full, n), unpacked(short, n)
        at = [next(k for k, frame in enumerate(everything) if np.array_equal(frame, one)) for one in some]
        assert at == sorted(at)
    assert source(whole, max_steps=1000).epoch(0).__next__().valid.shape == full.valid.shape


def test_several_cubes_and_a_held_out_one(make_cube: Cubes, whole: CubeSet) -> None:
    other = make_cube(shape=(16, 16), days=200, seed=9)
    item = cube_set(other, FakeLabels(other), split=WHOLE)
    held_out = cube_set(other, FakeLabels(other), split=SplitOptions(split="whole", role="validation", tile=8))
    assert {s.cube for batch in source(whole, item).epoch(0) for s in batch.origin} == {0, 1}
    assert source(whole, held_out).size == source(whole).size
    assert source(whole, held_out, role="validation").size == source(item).size


def test_missing_streams_need_a_declaration(make_cube: Cubes) -> None:
    cube = make_cube(shape=(16, 16), days=190, streams=("s1_asc", "optical"))
    labels = FakeLabels(cube)
    with pytest.raises(ContractError, match="needs stream s1_dsc"):
        source(cube_set(cube, labels, split=WHOLE))
    for text in ("s1_dsc=s1_asc", "s1_dsc=0.25"):
        batch = next(source(cube_set(cube, labels, split=WHOLE, substitutions=[text])).epoch(0))
        images = batch.frames["sar"]
        expected = images[:, :2] if text.endswith("asc") else np.full_like(images[:, :2], 0.25)
        np.testing.assert_array_equal(images[:, 2:], expected)


def test_a_single_path_reads_its_streams_alone(whole: CubeSet) -> None:
    drawn = SampleSource([whole], network(variant="sar"), role="train", batch_size=2)
    assert set(next(drawn.epoch(0)).frames) == {"sar"}


def test_bricks_in_use_stay_within_the_budget(whole: CubeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    read = module.read_brick

    def spy(plan, *args, **options):  # type: ignore[no-untyped-def]
        brick = read(plan, *args, **options)
        actual = sum(s.nbytes for s in brick.streams.values()) + brick.truth.nbytes
        assert actual == plan.nbytes
        held.append(drawn._cache._bytes() + plan.nbytes)
        return brick

    monkeypatch.setattr(module, "read_brick", spy)
    drawn = source(whole, budget_bytes=TIGHT)
    list(drawn.epoch(0))
    assert len(held) == len(drawn._plans)
    assert max(held) <= TIGHT
    drawn = source(whole)
    held.clear()
    for number in range(2):
        list(drawn.epoch(number))
    assert len(held) == len(drawn._plans)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size 0 is out of range"),
        ({"samples": 0}, "samples 0"),
        ({"balance": 1.5}, "balance 1.5"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"augment": "blur"}, "unknown augmentation 'blur'"),
        ({"budget_bytes": 1000}, "allow at least"),
        ({"role": "test"}, "no test sample"),
    ],
)
def test_impossible_options_are_refused(whole: CubeSet, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source(whole, **options)


def test_what_does_not_fit_is_refused(whole: CubeSet, make_cube: Cubes) -> None:
    other = make_cube(shape=(16, 16), days=200, seed=9)
    with pytest.raises(ConfigError, match="its training plan 40 x 32"):
        source(cube_set(other, FakeLabels(other), split=whole.plan))
    with pytest.raises(ConfigError, match="cubes with tiles of one size"):
        source(whole, cube_set(whole.cube, whole.labels, split=SplitOptions(split="whole", role="train", tile=4)))
    with pytest.raises(ConfigError, match="has no labels"):
        source(cube_set(whole.cube, FakeLabels(whole.cube, stride=4), split=whole.plan))
    with pytest.raises(ConfigError, match="do not fill a batch of 4 for each of 99 processes"):
        next(source(whole).epoch(0, world=99))
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        next(source(whole).epoch(0, rank=2, world=2))

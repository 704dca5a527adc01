from dataclasses import dataclass, replace

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, SourceError, StoreError
from urbandelta.grid import Grid
from urbandelta.sources.base import Declared, Found, Layer, Part, Scene
from urbandelta.sources.calibrate import Encoding, MaskRule
from urbandelta.sources.importing import ImportJob, NewCube, plan_import, run_import
from urbandelta.store import create_cube, open_cube

GRID = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 40.0), 4, 4)
KNOWN = Declared(level="GRD", coefficient="gamma0")


@dataclass(frozen=True, eq=False)
class ArrayLayer:
    """A layer without a file; `damaged` fails as a cut-short file does."""

    values: np.ndarray
    grid: Grid = GRID
    damaged: bool = False
    origin: str = "memory"
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    def read(self, rows, columns):
        if self.damaged:
            raise SourceError("memory: cut short")
        return self.values[rows, columns], None


def scene(day, value=1.0, *, bands=("VV", "VH"), grid=GRID, **options):
    damaged = options.pop("damaged", False)
    layers: dict[str, Layer] = {
        band: ArrayLayer(np.full(grid.shape, value, np.float32), grid, damaged) for band in bands
    }
    time = np.datetime64("2018-01-01T17:30:00", "ns") + np.timedelta64(day * 86_400, "s")
    return Scene(time=time, parts=(Part(layers, f"day{day}"),), **options)


def job(into, *scenes, **options):
    options = {"declared": KNOWN, "orbit": "ascending", "new_cube": NewCube(era="s12", native=True)} | options
    return ImportJob(into=str(into), stream="s1_asc", find=lambda _: Found(scenes), where="here", **options)


def test_an_import_creates_the_cube_and_running_it_again_changes_nothing(tmp_path):
    wanted = job(tmp_path / "cube", scene(12), scene(0))
    first = run_import(plan_import(wanted))
    again = run_import(plan_import(wanted))
    assert (first.added, again.added, again.skipped) == (2, 0, 2)
    assert again.snapshot == first.snapshot
    cube = open_cube(tmp_path / "cube")
    assert cube.grid == GRID
    info = cube.attributes("s1_asc")
    assert (info.orbit_states, info.processing_levels, info.backscatter_coefficients) == (
        ("ascending",), ("GRD",), ("gamma0",)
    )  # fmt: skip


def test_provenance_holds_every_option(tmp_path):
    plan = plan_import(job(tmp_path / "cube", scene(0), encoding=Encoding(scale=2.0, conversion="db")))
    provenance = next(iter(plan.source.acquisitions())).provenance
    assert provenance["encoding"]["conversion"] == "db"
    assert provenance["encoding"]["zero"] == "nodata"
    assert provenance["declared"] == {"level": "GRD", "coefficient": "gamma0", "orbit_state": "ascending"} | {
        "boa_offset_applied": False
    }
    assert provenance["files"] == ["memory"]


def test_radar_zeros_are_nodata_unless_declared_valid(tmp_path):
    strict = plan_import(job(tmp_path / "cube", scene(0, value=0.0)))
    lax = plan_import(job(tmp_path / "cube", scene(0, value=0.0), zero="valid"))
    assert next(strict.source.acquisitions()).mask.all()
    assert not next(lax.source.acquisitions()).mask.any()


def test_planning_writes_nothing(tmp_path):
    plan = plan_import(job(tmp_path / "cube", scene(0), scene(12)))
    assert [info.item_id for info in plan.source.describe()] == ["day0", "day12"]
    assert not (tmp_path / "cube").exists()


def test_a_first_file_that_cannot_be_read_leaves_no_cube(tmp_path):
    with pytest.raises(SourceError, match=r"cut short$"):
        run_import(plan_import(job(tmp_path / "cube", scene(0, damaged=True), scene(12))))
    assert not (tmp_path / "cube").exists()


def test_a_later_file_that_cannot_be_read_leaves_whole_acquisitions(tmp_path):
    with pytest.raises(SourceError, match="cut short; 1 of 2 acquisitions are stored"):
        run_import(plan_import(job(tmp_path / "cube", scene(0), scene(12, damaged=True))))
    assert len(open_cube(tmp_path / "cube").times("s1_asc")) == 1
    report = run_import(plan_import(job(tmp_path / "cube", scene(0), scene(12))))
    assert (report.added, report.skipped) == (1, 1)


def test_progress_counts_to_the_end(tmp_path):
    calls = []
    run_import(plan_import(job(tmp_path / "cube", scene(0), scene(12))), progress=lambda *call: calls.append(call))
    assert calls == [(0, 2, "day0"), (1, 2, "day12"), (2, 2, "")]


def test_parts_of_one_pass_are_merged_and_the_first_valid_part_counts(tmp_path):
    south = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 20.0), 4, 4)
    first, second = scene(0, 1.0), scene(0, 2.0, grid=south)
    second = replace(second, time=second.time + np.timedelta64(2, "s"))
    plan = plan_import(job(tmp_path / "cube", second, first, merge_within=2.0))
    (acquisition,) = plan.source.acquisitions()
    assert plan.source.grid.shape == (6, 4)
    npt.assert_array_equal(acquisition.values[:, 0, 0], [1, 1, 1, 1, 2, 2])
    assert acquisition.time == first.time
    assert acquisition.item_id == "day0 + day0"
    assert len(plan_import(job(tmp_path / "cube", second, first, merge_within=1.0)).source.scenes) == 2


def test_other_platforms_are_never_merged(tmp_path):
    scenes = scene(0, platform="S1A"), scene(0, platform="S1B")
    with pytest.raises(SourceError, match="have the same time"):
        plan_import(job(tmp_path / "cube", *scenes, merge_within=10.0))


def test_scenes_of_the_other_orbit_or_beside_the_grid_are_left_out(tmp_path):
    far = Grid("EPSG:32631", (10.0, 0.0, 9000.0, 0.0, -10.0, 40.0), 4, 4)
    scenes = scene(0, orbit_state="ascending"), scene(1, orbit_state="descending"), scene(2, grid=far)
    plan = plan_import(job(tmp_path / "cube", *scenes))
    assert (len(plan.source.scenes), plan.other_orbit, plan.outside) == (1, 1, 1)


def test_files_that_record_the_orbit_need_no_declaration(tmp_path):
    plan = plan_import(job(tmp_path / "cube", scene(0, orbit_state="ascending"), orbit=""))
    assert next(plan.source.acquisitions()).orbit_state == "ascending"


def test_an_unknown_orbit_is_stored_as_unknown(tmp_path):
    plan = plan_import(job(tmp_path / "cube", scene(0), orbit="unknown"))
    assert next(plan.source.acquisitions()).orbit_state == ""


@pytest.mark.parametrize(
    ("scenes", "options", "error", "message"),
    [
        ((), {}, SourceError, "holds no band of stream s1_asc"),
        ((scene(0, bands=("HH",)),), {}, SourceError, "found HH"),
        ((scene(0), scene(12, bands=("VV",))), {}, SourceError, "lacks VH unlike the others"),
        ((scene(0), scene(0)), {}, SourceError, "have the same time"),
        ((scene(0),), {"encoding": Encoding(masks=(MaskRule.valid("m"),))}, SourceError, "no mask band m"),
        ((scene(0, orbit_state="descending"),), {}, SourceError, "no acquisition is ascending"),
        ((scene(0),), {"orbit": "descending"}, SourceError, "not for descending"),
        ((scene(0),), {"orbit": ""}, SourceError, "--orbit"),
        ((scene(0),), {"declared": Declared(level="GRD")}, SourceError, "--coefficient"),
        ((scene(0),), {"declared": Declared(coefficient="sigma0")}, SourceError, "--level"),
        ((scene(0),), {"only": ("VX",)}, ConfigError, "--only VX"),
        ((scene(0),), {"new_cube": NewCube(era="s13", native=True)}, ConfigError, "unknown era"),
        ((scene(0),), {"new_cube": NewCube(native=True)}, ConfigError, "give --era"),
        ((scene(0),), {"new_cube": NewCube(era="s12")}, ConfigError, "give its grid"),
        ((scene(0),), {"new_cube": NewCube(era="s12", bbox=(5.0, 50.0, 5.1, 50.1))}, SourceError, "none of 1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, scenes, options, error, message):
    with pytest.raises(error, match=message):
        plan_import(job(tmp_path / "cube", *scenes, **options))
    assert not (tmp_path / "cube").exists()


def test_a_cube_that_exists_keeps_its_era_and_grid(tmp_path):
    create_cube(str(tmp_path / "cube"), era="s12", grid=GRID)
    assert plan_import(job(tmp_path / "cube", scene(0), new_cube=NewCube())).source.grid == GRID
    with pytest.raises(ConfigError, match="of era s12, not ers12ls5"):
        plan_import(job(tmp_path / "cube", scene(0), new_cube=NewCube(era="ers12ls5")))
    other = Grid("EPSG:32631", (20.0, 0.0, 0.0, 0.0, -20.0, 40.0), 2, 2)
    with pytest.raises(ConfigError, match="leave the grid options out"):
        plan_import(job(tmp_path / "cube", scene(0, grid=other), new_cube=NewCube(native=True)))


def test_something_else_in_the_place_of_the_cube_is_not_touched(tmp_path):
    (tmp_path / "cube").mkdir()
    (tmp_path / "cube" / "precious").write_text("x")
    with pytest.raises(StoreError):
        plan_import(job(tmp_path / "cube", scene(0)))
    assert (tmp_path / "cube" / "precious").read_text() == "x"


def test_one_way_to_a_grid():
    with pytest.raises(ConfigError, match="one of"):
        NewCube(native=True, bbox=(0, 0, 1, 1))
    with pytest.raises(ConfigError, match="--pixel-m"):
        NewCube(native=True, pixel_m=10.0)


def test_chosen_bands_are_read_by_a_source_that_knows_all(tmp_path):
    seen = []
    wanted = replace(job(tmp_path / "cube", only=("VH",)), find=lambda stream: seen.append(stream) or Found([scene(0)]))
    plan = plan_import(wanted)
    assert seen[0].bands == ("VV", "VH")
    assert next(plan.source.acquisitions()).bands == ("VH",)


def test_an_optical_stream_needs_no_orbit(tmp_path):
    wanted = ImportJob(
        into=str(tmp_path / "cube"),
        stream="optical",
        find=lambda _: Found([scene(0, bands=ERAS["s12"].stream("optical").bands)]),
        where="here",
        declared=Declared(level="L1C"),
        new_cube=NewCube(era="s12", native=True),
    )
    assert len(plan_import(wanted).source.scenes) == 1

import numpy as np
import numpy.testing as npt
import pytest
import xarray as xr

from urbandelta.eras import ERAS
from urbandelta.errors import SourceError
from urbandelta.sources.base import Recipe, read_scene
from urbandelta.sources.calibrate import Encoding
from urbandelta.sources.netcdf import NetcdfOptions, find_scenes

OPTICAL = ERAS["s12"].stream("optical")


def write(path, *, pixel=10.0, names=("B02",), dtype="uint16", south_up=False, attrs=None, size=4, **options):
    y = 100 - pixel * (np.arange(size) + 0.5)
    values = np.arange(2 * size * size).reshape(2, size, size).astype(dtype)
    dataset = xr.Dataset(
        {name: (("t", "y", "x"), values, attrs or {}) for name in names},
        coords={
            "t": ("t", np.array([0, 5], np.int32), {"units": "days since 2018-01-01 10:00:00"}),
            "y": y[::-1] if south_up else y,
            "x": pixel * (np.arange(size) + 0.5),
        },
        attrs={"epsg": 32631},
    )
    dataset.to_netcdf(path, engine=options.pop("engine", "h5netcdf"), **options)
    return values


def read(scene, grid=None, stream=OPTICAL, **encoding):
    grid = grid or scene.parts[0].layers["B02"].grid
    return read_scene(scene, Recipe(stream=stream, encoding=Encoding(**encoding)), grid)


def test_packed_integers_stay_as_stored(tmp_path):
    attrs = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": np.uint16(3)}
    values = write(tmp_path / "a.nc", attrs=attrs)
    scenes = find_scenes(tmp_path, NetcdfOptions())
    assert [str(scene.time)[:13] for scene in scenes] == ["2018-01-01T10", "2018-01-06T10"]
    acquisition = read(scenes[0])
    npt.assert_array_equal(acquisition.values[..., 0], values[0])
    assert acquisition.values.dtype == np.uint16
    assert (acquisition.scale, acquisition.offset) == (1e-4, -0.1)
    npt.assert_array_equal(np.argwhere(acquisition.mask), [[0, 3]])
    grid = scenes[0].parts[0].layers["B02"].grid
    assert (grid.crs, grid.bounds) == ("EPSG:32631", (0, 60, 40, 100))


def test_rows_stored_from_south_to_north_are_turned(tmp_path):
    values = write(tmp_path / "a.nc", south_up=True)
    scene = find_scenes(tmp_path, NetcdfOptions())[0]
    layer = scene.parts[0].layers["B02"]
    assert layer.grid.bounds == (0, 60, 40, 100)
    npt.assert_array_equal(read(scene).values[..., 0], values[0, ::-1])
    npt.assert_array_equal(layer.read(slice(0, 1), slice(1, 3))[0], values[0, -1:, 1:3])


def test_files_of_two_resolutions_are_joined_by_time(tmp_path):
    write(tmp_path / "ten.nc")
    write(tmp_path / "twenty.nc", pixel=20.0, names=("B11", "other"), size=2)
    scene = find_scenes(tmp_path, NetcdfOptions())[1]
    acquisition = read(scene)
    assert acquisition.bands == ("B02", "B11")
    npt.assert_array_equal(acquisition.values[..., 1], np.array([[4, 5], [6, 7]]).repeat(2, 0).repeat(2, 1))


def test_unsigned_flag_is_honoured_also_for_the_fill_value(tmp_path):
    write(tmp_path / "a.nc", dtype="int16", attrs={"_Unsigned": "true", "_FillValue": np.int16(-2)})
    layer = find_scenes(tmp_path, NetcdfOptions())[0].parts[0].layers["B02"]
    assert layer.read(slice(0, 1), slice(0, 1))[0].dtype == np.uint16
    assert layer.nodata == 65534


def test_variables_are_renamed(tmp_path):
    write(tmp_path / "a.nc", names=("S2-B02",))
    assert set(find_scenes(tmp_path, NetcdfOptions(rename={"S2-B02": "B02"}))[0].parts[0].layers) == {"B02"}


def test_the_old_format_is_read(tmp_path):
    pytest.importorskip("scipy")
    values = write(tmp_path / "a.nc", dtype="int16", engine="scipy", format="NETCDF3_CLASSIC")
    npt.assert_array_equal(read(find_scenes(tmp_path, NetcdfOptions())[1]).values[..., 0], values[1])


def test_the_same_variable_and_time_twice_is_refused(tmp_path):
    write(tmp_path / "a.nc")
    write(tmp_path / "b.nc")
    with pytest.raises(SourceError, match="narrow --files"):
        find_scenes(tmp_path, NetcdfOptions())


def change(path, edit):
    with xr.open_dataset(path, decode_cf=False, engine="h5netcdf") as dataset:
        edited = edit(dataset.load())
    edited.to_netcdf(path, engine="h5netcdf")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda ds: ds.drop_attrs(deep=False), "has no CRS"),
        (lambda ds: ds.drop_vars("x"), "has no coordinates"),
        (lambda ds: ds.assign_coords(x=[0.0, 1.0, 2.0, 9.0]), "not evenly spaced"),
        (lambda ds: ds.assign_coords(x=ds.x[::-1].values), "east to west"),
        (lambda ds: ds.assign_coords(t=[1, 2]), "has no times"),
        (lambda ds: ds.assign_coords(t=("t", [3, 3], ds.t.attrs)), "more than once"),
        (lambda ds: ds.assign_coords(t=("t", [1, 2], {"units": "days since then"})), "cannot be decoded"),
        (lambda ds: ds.rename(t="band"), r"no variable has dimensions \(time, y, x\)"),
        (lambda ds: ds.isel(x=[0]), "single value"),
    ],
)
def test_files_without_place_or_time_are_refused(tmp_path, edit, message):
    write(tmp_path / "a.nc")
    change(tmp_path / "a.nc", edit)
    with pytest.raises(SourceError, match=message):
        find_scenes(tmp_path, NetcdfOptions())


def test_a_declared_crs_must_agree(tmp_path):
    write(tmp_path / "a.nc")
    with pytest.raises(SourceError, match="not in the declared"):
        find_scenes(tmp_path, NetcdfOptions(crs="EPSG:32632"))
    change(tmp_path / "a.nc", lambda ds: ds.drop_attrs(deep=False))
    scene = find_scenes(tmp_path, NetcdfOptions(crs="EPSG:32632"))[0]
    assert scene.parts[0].layers["B02"].grid.crs == "EPSG:32632"


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        find_scenes(tmp_path / "absent", NetcdfOptions())
    with pytest.raises(SourceError, match="no file matches"):
        find_scenes(tmp_path, NetcdfOptions())
    write(tmp_path / "a.nc")
    (tmp_path / "a.nc").write_bytes((tmp_path / "a.nc").read_bytes()[:600])
    with pytest.raises(SourceError, match=r"a\.nc: not a readable NetCDF"):
        find_scenes(tmp_path, NetcdfOptions())

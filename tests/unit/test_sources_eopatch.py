import gzip
import io
import json
import pickle

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.eras import ERAS
from urbandelta.errors import SourceError
from urbandelta.sources.base import Recipe, read_scene
from urbandelta.sources.calibrate import Encoding
from urbandelta.sources.eopatch import PatchOptions, find, read_feature

ASC = ERAS["s12"].stream("s1_asc")
ERS = ERAS["ers12ls5"].stream("ers_asc")
BOX = {
    "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}},
    "type": "Polygon",
    "coordinates": [[[0, 0], [0, 40], [60, 40], [60, 0], [0, 0]]],
}
VALUES = np.arange(48, dtype=np.float32).reshape(2, 4, 3, 2)
TIMES = ["2018-01-02T03:04:05", "2018-01-08T03:04:05+00:00"]


def npy(path, array, *, allow_pickle=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    content = buffer.getvalue()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def patch(tmp_path):
    folder = tmp_path / "patch"
    npy(folder / "data/L1_GND.npy", VALUES)
    npy(folder / "mask/dataMask.npy", np.ones((2, 4, 3, 1), np.bool_))
    (folder / "bbox.geojson").write_text(json.dumps(BOX))
    (folder / "timestamps.json").write_text(json.dumps(TIMES))
    return folder


def read(scene, grid=None, stream=ASC, masks=()):
    recipe = Recipe(stream=stream, encoding=Encoding(masks=masks))
    return read_scene(scene, recipe, grid or scene.parts[0].layers[stream.bands[0]].grid)


def test_many_dates_in_one_patch(patch):
    found = find(patch, ASC, PatchOptions())
    assert [str(scene.time)[:19] for scene in found.scenes] == [TIMES[0], TIMES[1][:19]]
    assert (found.level, found.coefficient) == ("GRD", "gamma0")
    acquisition = read(found.scenes[1], masks=found.masks)
    assert acquisition.values.tobytes() == VALUES[1].tobytes()
    assert not acquisition.mask.any()
    grid = found.scenes[0].parts[0].layers["VV"].grid
    assert (grid.crs, grid.bounds, grid.shape) == ("EPSG:32631", (0, 0, 60, 40), (4, 3))


def test_compressed_features_are_read_one_date_at_a_time(patch):
    npy(patch / "data/L1_GND.npy.gz", VALUES + 1)
    (patch / "data/L1_GND.npy").unlink()
    found = find(patch, ASC, PatchOptions())
    npt.assert_array_equal(read(found.scenes[1]).values, VALUES[1] + 1)
    npt.assert_array_equal(read(found.scenes[0]).values, VALUES[0] + 1)


def test_the_old_layout_takes_its_time_from_the_folder_and_unpickles_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    for index, name in enumerate(("19950102T030405", "19950203T040506")):
        folder = tmp_path / name
        npy(folder / "data/Bands.npy.gz", VALUES[index : index + 1, ..., :1])
        npy(folder / "mask/Mask.npy.gz", np.array([[[[1], [0], [1]]] * 4], np.uint8))
        for part in ("timestamp.pkl", "bbox.pkl", "meta_info.pkl"):
            (folder / part).write_bytes(pickle.dumps(Bomb()))
    options = PatchOptions(bounds=(0, 0, 60, 40), crs="EPSG:32631")
    found = find(tmp_path, ERS, options)
    assert [str(scene.time)[:19] for scene in found.scenes] == ["1995-01-02T03:04:05", "1995-02-03T04:05:06"]
    acquisition = read(found.scenes[0], stream=ERS, masks=found.masks)
    npt.assert_array_equal(acquisition.values, VALUES[0, ..., :1])
    npt.assert_array_equal(acquisition.mask, [[0, 1, 0]] * 4)
    with pytest.raises(SourceError, match="--source-bounds"):
        find(tmp_path, ERS, PatchOptions())


def test_a_cloud_mask_by_its_short_name(patch):
    cloud = np.zeros((2, 4, 3, 1), np.uint8)
    cloud[0, 0, 0] = 1
    npy(patch / "mask/CLM.npy", cloud)
    layer = find(patch, ASC, PatchOptions(masks=("CLM",))).scenes[0].parts[0].layers["CLM"]
    assert layer.read(slice(0, 1), slice(0, 2))[0].tolist() == [[1, 0]]


def test_pickled_objects_are_refused(patch):
    npy(patch / "data/L1_GND.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(SourceError, match="never opened"):
        find(patch, ASC, PatchOptions())


@pytest.mark.parametrize("suffix", [".npy", ".npy.gz"])
def test_a_feature_cut_short_is_named(patch, suffix):
    (patch / "data/L1_GND.npy").unlink()
    path = patch / f"data/L1_GND{suffix}"
    npy(path, np.random.default_rng(0).random((2, 40, 30, 2), np.float32))
    npy(patch / "mask/dataMask.npy", np.ones((2, 40, 30, 1), np.bool_))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(SourceError, match=r"L1_GND.*(cut short|unpacked)"):
        read(find(patch, ASC, PatchOptions()).scenes[1])


def test_a_wrong_number_of_channels_says_how_to_name_them(patch):
    with pytest.raises(SourceError, match="has 2 channels where 13 were expected"):
        find(patch, ERAS["s12"].stream("optical"), PatchOptions(feature="data/L1_GND"))


def test_the_features_at_hand_are_listed(patch):
    with pytest.raises(SourceError, match=r"has no data/L1C_data or data/Bands; it holds data/L1_GND, mask/dataMask"):
        find(patch, ERAS["s12"].stream("optical"), PatchOptions())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("timestamps.json", '["2018-01-02T03:04:05"]', "lists 1 times, L1_GND.npy has 2"),
        ("timestamps.json", '["soon", "later"]', "ISO 8601"),
        ("timestamps.json", "[", "not readable JSON"),
        ("bbox.geojson", "{}", "not a GeoJSON polygon"),
        ("bbox.geojson", json.dumps(BOX).replace("32631", "999999"), "unknown CRS"),
    ],
)
def test_damaged_metadata_are_named(patch, name, content, message):
    (patch / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        find(patch, ASC, PatchOptions())


def test_without_times_or_a_dated_folder_there_is_no_guess(patch):
    (patch / "timestamps.json").unlink()
    with pytest.raises(SourceError, match=r"has no timestamps\.json"):
        find(patch, ASC, PatchOptions())


def test_masks_of_another_shape_are_refused(patch):
    npy(patch / "mask/dataMask.npy", np.ones((2, 3, 3, 1), np.bool_))
    with pytest.raises(SourceError, match="does not fit"):
        find(patch, ASC, PatchOptions())


def test_folders_that_are_no_patches(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        find(tmp_path / "absent", ASC, PatchOptions())
    with pytest.raises(SourceError, match="neither an EOPatch"):
        find(tmp_path, ASC, PatchOptions())


def test_a_file_that_is_no_array(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"no")
    with pytest.raises(SourceError, match="not a readable numpy array"):
        read_feature(tmp_path / "x.npy")

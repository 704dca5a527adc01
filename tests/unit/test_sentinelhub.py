"""Sentinel Hub: what is asked, what is made of the answers, and what happens when they fail."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.testing as npt
import pytest
from hub_scene import HubScene, hub_scene
from servers.sentinel_hub import CLIENT_ID, CLIENT_SECRET, TOKEN_PATH, serving

from urbandelta.aoi import read_aoi
from urbandelta.eras import ERAS
from urbandelta.errors import ConfigError, FetchError
from urbandelta.grid import Grid
from urbandelta.sources import sentinelhub
from urbandelta.sources.hub_client import ENDPOINTS, Access, HubClient, Patience, find_access
from urbandelta.sources.hub_requests import evalscript, process_request, search_request
from urbandelta.sources.sentinelhub import HubRequest, find_passes, read_hub_pass, tiles
from urbandelta.sources.stac import Period
from urbandelta.types import MaskReason

pytest.importorskip("sentinelhub")

ASCENDING, OPTICAL = ERAS["s12"].stream("s1_asc"), ERAS["s12"].stream("optical")
ENVIRONMENT = {"SH_CLIENT_ID": CLIENT_ID, "SH_CLIENT_SECRET": CLIENT_SECRET}
PROCESS = "/api/v1/process"


@pytest.fixture
def scene():
    made = hub_scene()
    with serving(made.deployment):
        yield made


@pytest.fixture(autouse=True)
def no_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SH_CLIENT_ID", "SH_CLIENT_SECRET", "SH_PROFILE", "SH_BASE_URL", "SH_TOKEN_URL"):
        monkeypatch.delenv(name, raising=False)


def client_of(scene: HubScene, pauses: list[float] | None = None, **patience) -> HubClient:
    kept = pauses if pauses is not None else []
    return HubClient(
        find_access("sentinel-hub", url=scene.deployment.url, environment=ENVIRONMENT),
        Patience(sleep=kept.append, **patience),
    )


def period(scene: HubScene) -> Period:
    west, south, east, north = scene.deployment.footprint
    inset = 1e-3
    return Period(
        aoi=read_aoi((west + inset, south + inset, east - inset, north - inset)),
        start=np.datetime64("2020-01-01", "ns"),
        end=np.datetime64("2020-02-01", "ns"),
    )


def passes(scene: HubScene, stream=ASCENDING, client=None, **request):
    return find_passes(
        client or client_of(scene), stream, period(scene), HubRequest(**request), endpoint="sentinel-hub"
    )


def read(scene: HubScene, one, client=None):
    with ThreadPoolExecutor(2) as threads:
        return read_hub_pass(one, client or client_of(scene), scene.grid, threads)


def test_catalogue_is_read_over_pages_and_granules_become_passes(scene):
    found = passes(scene)
    assert [(one.platform, one.relative_orbit, len(one.items)) for one in found] == [
        ("S1A", 88, 2),
        ("S1B", 88, 1),
        ("S1A", 88, 1),
    ]
    assert scene.deployment.asked["/api/v1/catalog/1.0.0/search"] == 2
    assert not scene.deployment.problems


def test_tracks_and_clouds_are_chosen_by_the_monitor(scene):
    assert len(passes(scene, relative_orbits=(88,))) == 3
    assert passes(scene, relative_orbits=(15,)) == ()
    assert [one.platform for one in passes(scene, OPTICAL, max_cloud=50)] == ["S2A", "S2B"]


def test_radar_pass_equals_its_granules(scene):
    one = passes(scene)[0]
    acquisition = read(scene, one)
    left, right = (granule for granule in scene.deployment.granules if granule.time.startswith("2020-01-03"))
    seen_left = left.image["dataMask"][scene.window] == 1
    expected = np.where(seen_left[..., None], scene.expected(left, ("VV", "VH")), scene.expected(right, ("VV", "VH")))
    npt.assert_array_equal(acquisition.values, expected)
    assert acquisition.values.dtype == np.float32
    assert not acquisition.mask.any()
    assert acquisition.time == np.datetime64("2020-01-03T17:24:10", "ns")
    assert acquisition.orbit_state == "ascending"
    assert acquisition.backscatter_coefficient == "gamma0"
    assert acquisition.processing_level == "GRD"
    asked = acquisition.provenance["request"]["data"][0]["processing"]
    assert asked == {"backCoeff": "GAMMA0_ELLIPSOID", "orthorectify": True, "demInstance": "COPERNICUS"}


def test_optical_pass_has_thirteen_bands_and_both_masks(scene):
    one = passes(scene, OPTICAL)[0]
    acquisition = read(scene, one)
    granule = scene.granule("S2A_MSIL1C_20200107")
    unseen = granule.image["dataMask"][scene.window] == 0
    cloudy = granule.image["CLM"][scene.window] == 1
    assert unseen.any()
    assert acquisition.values.dtype == np.uint16
    npt.assert_array_equal(acquisition.values[~unseen], scene.expected(granule, OPTICAL.bands)[~unseen])
    assert (acquisition.mask[unseen] & int(MaskReason.NODATA) > 0).all()
    npt.assert_array_equal(acquisition.mask[~unseen] == int(MaskReason.CLOUD), cloudy[~unseen])
    assert (acquisition.scale, acquisition.offset) == (1e-4, 0.0)
    assert acquisition.processing_baseline == "02.08"
    assert not acquisition.boa_offset_applied


def test_harmonised_baselines_say_so(scene):
    assert read(scene, passes(scene, OPTICAL)[2]).boa_offset_applied


def test_where_the_provider_has_no_cloud_mask_s2cloudless_looks(scene):
    pytest.importorskip("s2cloudless")
    scene.deployment.has_clm = False
    one = passes(scene, OPTICAL, clouds="s2cloudless")[1]
    acquisition = read(scene, one)
    assert acquisition.provenance["masking"]["clouds"]["method"] == "s2cloudless"
    assert not scene.deployment.problems


def test_tiles_give_the_same_as_one_image(scene, monkeypatch):
    one = passes(scene)[0]
    whole = read(scene, one)
    scene.deployment.bodies.clear()
    monkeypatch.setattr(sentinelhub, "tiles", lambda grid: tiles(grid, 16))
    parts = read(scene, one)
    assert len(scene.deployment.bodies) > 4
    assert max(body["output"]["width"] for body in scene.deployment.bodies) <= 16
    npt.assert_array_equal(parts.values, whole.values)
    npt.assert_array_equal(parts.mask, whole.mask)


@pytest.mark.parametrize("shape", [(1, 1), (2500, 2501), (7000, 100), (5001, 5001)])
def test_tiles_cover_a_grid_once_and_are_small_enough(shape):
    grid = Grid.from_bounds((0, 0, 10 * shape[1], 10 * shape[0]), "EPSG:32631", shape)
    count = np.zeros(shape, np.uint8)
    for rows, columns in tiles(grid):
        count[rows, columns] += 1
        assert rows.stop - rows.start <= 2500
        assert columns.stop - columns.start <= 2500
    assert (count == 1).all()


@pytest.mark.parametrize("fault", ["429", "500", "503", "401", "cut", "shape", "text"])
def test_a_passing_fault_does_not_show(scene, fault):
    one = passes(scene)[1]
    clean = read(scene, one)
    before = scene.deployment.asked[PROCESS]
    scene.deployment.fault = lambda path, count: (
        fault if path == PROCESS and count <= before + 2 - (fault == "401") else ""
    )
    pauses: list[float] = []
    again = read(scene, one, client_of(scene, pauses))
    npt.assert_array_equal(again.values, clean.values)
    npt.assert_array_equal(again.mask, clean.mask)
    assert len(pauses) == (1 if fault == "401" else 2)


def test_a_hanging_server_is_asked_again(scene):
    one = passes(scene)[1]
    scene.deployment.fault = lambda path, count: "hang" if path == PROCESS and count == 1 else ""
    assert not read(scene, one, client_of(scene, read_seconds=0.3)).mask.any()


@pytest.mark.parametrize("fault", ["429", "500", "401", "cut", "shape", "text"])
def test_a_lasting_fault_is_an_error_and_no_pixel(scene, fault):
    one = passes(scene)[1]
    scene.deployment.fault = lambda path, count: fault if path == PROCESS else ""
    with pytest.raises(FetchError, match="S1B_IW_GRDH") as error:
        read(scene, one, client_of(scene, tries=3))
    assert CLIENT_SECRET not in str(error.value)
    assert "token" not in str(error.value).replace("refused the token", "")


def test_pauses_grow_and_respect_the_server(scene):
    scene.deployment.fault = lambda path, count: "500" if path == PROCESS else ""
    pauses: list[float] = []
    with pytest.raises(FetchError, match="answered 500, 5 times"):
        read(scene, passes(scene)[1], client_of(scene, pauses, tries=5, pause_seconds=1, longest_pause=4))
    assert len(pauses) == 4
    for pause, least in zip(pauses, (1, 2, 4, 4), strict=True):
        assert least <= pause <= 1.25 * least


def test_expired_tokens_are_renewed_before_they_are_used(scene):
    scene.deployment.token_seconds = 0
    client = client_of(scene)
    passes(scene, client=client)
    assert scene.deployment.asked[TOKEN_PATH] == 2


def test_one_token_serves_all_threads(scene):
    client = client_of(scene)
    found = passes(scene, client=client)
    with ThreadPoolExecutor(3) as readers:
        list(readers.map(lambda one: read(scene, one, client), found))
    assert scene.deployment.asked[TOKEN_PATH] == 1


def test_wrong_credentials_are_named_not_shown(scene):
    wrong = {"SH_CLIENT_ID": "me", "SH_CLIENT_SECRET": "secret-wrong"}
    client = HubClient(find_access("sentinel-hub", url=scene.deployment.url, environment=wrong), Patience())
    with pytest.raises(ConfigError, match="refuses the credentials \\(401\\)") as error:
        passes(scene, client=client)
    assert "secret-wrong" not in str(error.value)


def test_the_servers_reason_is_passed_on(scene):
    scene.deployment.has_clm = False
    with pytest.raises(FetchError, match="answered 400: bands"):
        read(scene, passes(scene, OPTICAL)[0])


def test_credentials_are_in_no_repr_and_no_log(scene, caplog):
    client = client_of(scene)
    with caplog.at_level(logging.DEBUG):
        scene.deployment.fault = lambda path, count: "500" if count == 1 else ""
        read(scene, passes(scene, client=client)[0], client)
    texts = (caplog.text, repr(client.access), repr(client), repr(vars(client)["access"]))
    for secret in (CLIENT_SECRET, CLIENT_ID, *scene.deployment.tokens):
        assert not any(secret in text for text in texts)


def test_endpoints_are_the_documented_ones():
    for name, row in ENDPOINTS.items():
        access = find_access(name, environment=ENVIRONMENT)
        assert (access.base_url, access.token_url) == (row.base_url, row.token_url)
        assert access.base_url.startswith("https://")
    assert not ENDPOINTS["cdse"].has_cloud_mask


def test_missing_credentials_say_how_to_set_them():
    with pytest.raises(ConfigError, match="SH_CLIENT_ID and SH_CLIENT_SECRET"):
        find_access("cdse", environment={})


def test_the_librarys_profile_is_read_and_none_is_made(tmp_path, monkeypatch):
    from sentinelhub.config import SHConfig

    location = tmp_path / "config.toml"
    monkeypatch.setattr(SHConfig, "get_config_location", classmethod(lambda cls: str(location)))
    with pytest.raises(ConfigError):
        find_access("sentinel-hub", environment={})
    assert not location.exists()
    location.write_text('[default-profile]\nsh_client_id = "me"\nsh_client_secret = "mine"\n')
    access = find_access("sentinel-hub", environment={})
    assert (access.client_id, access.client_secret) == ("me", "mine")
    mixed = find_access("sentinel-hub", environment={"SH_CLIENT_SECRET": "other"})
    assert mixed.client_secret == "other"
    location.write_text('[default-profile]\nsh_client_secret = "secret-broken\n')
    with pytest.raises(ConfigError, match="cannot be read") as error:
        find_access("sentinel-hub", environment={})
    assert "secret-broken" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://services.sentinel-hub.com", "https://sentinel-hub.com.evil"]
)
def test_a_monitor_file_cannot_send_secrets_elsewhere(url):
    with pytest.raises(ConfigError, match="is no deployment of Sentinel Hub that is known"):
        find_access("sentinel-hub", url=url, environment=ENVIRONMENT)


def test_other_deployments_are_named_by_the_environment():
    named = {**ENVIRONMENT, "SH_BASE_URL": "https://hub.example.org", "SH_TOKEN_URL": "https://id.example.org/token"}
    access = find_access("sentinel-hub", url="https://hub.example.org/", environment=named)
    assert access == Access(
        base_url="https://hub.example.org",
        token_url="https://id.example.org/token",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
    )
    own = find_access("sentinel-hub", url="https://services-uswest2.sentinel-hub.com", environment=ENVIRONMENT)
    assert own.token_url == ENDPOINTS["sentinel-hub"].token_url


def test_only_known_streams_and_grids_are_asked_for():
    moment = np.datetime64("2020-01-01", "s")
    grid = Grid.from_bounds((0, 0, 20, 20), "ESRI:54009", (2, 2))
    with pytest.raises(ConfigError, match="World_Mollweide"):
        process_request(ASCENDING, grid, start=moment, end=moment, cloud_mask=False)
    with pytest.raises(ConfigError, match="nothing for stream"):
        search_request(ERAS["ers12ls5"].streams[0], (0, 0, 1, 1), start=moment, end=moment)
    with pytest.raises(ConfigError, match="nothing for stream"):
        search_request(replace(OPTICAL, processing_level="L2A"), (0, 0, 1, 1), start=moment, end=moment)


def test_script_of_radar():
    assert evalscript(ASCENDING, cloud_mask=True).splitlines() == [
        "//VERSION=3",
        "function setup() {",
        "  return {",
        '    input: [{bands: ["VV", "VH", "dataMask"], units: ["LINEAR_POWER", "LINEAR_POWER", "DN"]}],',
        '    output: {id: "default", bands: 3, sampleType: "FLOAT32"}',
        "  };",
        "}",
        "function evaluatePixel(sample) {",
        "  return [sample.VV, sample.VH, sample.dataMask];",
        "}",
    ]

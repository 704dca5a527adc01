"""The torch module with the published weights against what the published program computed."""

from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest

torch = pytest.importorskip("torch")

from urbandelta.eras import ERAS  # noqa: E402
from urbandelta.model import network_from  # noqa: E402
from urbandelta.weights import load_weights  # noqa: E402

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference"
TOLERANCE = 1e-5
STATE_TOLERANCE = 5e-5  # hidden states lie in -1..1 and go through 92 steps of float32; scores do not feel it
NAMES = {"s12": "s12", "ers12ls5": "ers"}

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference arrays beside the repository")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of small convolutions wait for each other for seconds when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=sorted(NAMES))
def era(request):
    return ERAS[request.param]


@pytest.fixture(scope="module")
def network(era):
    weights = load_weights(REFERENCE / f"best_weights_{era.name}.hdf5")
    return network_from(weights.parameters, weights.config)


def tensor(x):
    """(window, t, y, x, band) -> (B, T, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 2)))


def golden_window(data, number):
    """Input (t, y, x, band) of one window, put together from its distinct frames."""
    shown = data[f"w{number}_idx"]
    parts = []
    for column, sensor in enumerate(("asc", "dsc", "opt")):
        frames = data[f"w{number}_{sensor}"]
        padded = np.concatenate([frames, np.zeros((1, *frames.shape[1:]), np.float32)])  # index -1: not seen yet
        part = padded[np.maximum(shown[:, column], -1)]
        part[shown[:, column] == -2] = -1.0
        parts.append(part)
    return np.concatenate(parts, axis=-1)


def test_whole_windows_equal_the_published_scores(era, network):
    with np.load(REFERENCE / f"golden_infer_{NAMES[era.name]}.npz") as data:
        for number in range(data["output"].shape[0]):
            x, valid = golden_window(data, number)[None], data[f"w{number}_valid"][None]
            with torch.no_grad():
                scores = network(tensor(x), torch.from_numpy(valid)).numpy()
            npt.assert_allclose(scores[0], data["output"][number], rtol=0, atol=TOLERANCE)


def test_states_before_the_head_equal_the_published_ones(era, network):
    with np.load(REFERENCE / f"golden_infer_{NAMES[era.name]}.npz") as data:
        x, valid = golden_window(data, 0)[None], data["w0_valid"][None]
        with torch.no_grad():
            merged = network.merged(tensor(x), torch.from_numpy(valid)).numpy()[0]
        published = np.concatenate([data["w0_sar_convlstm"], data["w0_opt_convlstm"]], axis=-1)
    npt.assert_allclose(merged.transpose(1, 2, 0), published, rtol=0, atol=STATE_TOLERANCE)


def test_every_masking_case_equals_the_published_scores(era, network):
    with np.load(REFERENCE / f"golden_masksem_{NAMES[era.name]}.npz") as data:
        with torch.no_grad():
            scores = network(tensor(data["x"]), torch.from_numpy(data["valid"].astype(bool))).numpy()
        npt.assert_allclose(scores, data["output"], rtol=0, atol=TOLERANCE)

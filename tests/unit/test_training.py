import math
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.errors import ShapeError, TrainingError
from urbandelta.losses import tanimoto_loss
from urbandelta.training.run_folder import claim
from urbandelta.training.settings import TrainingSettings, differences

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from urbandelta.training import losses as twin  # noqa: E402
from urbandelta.training.callbacks import AtomicCheckpoints, KeepBest  # noqa: E402
from urbandelta.training.lightning import LOWEST_RATE, WARM_UP, rate_factor  # noqa: E402
from urbandelta.training.metrics import CalibrationError, ValidationMetrics  # noqa: E402


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("shapes", [((4, 4), (4, 4)), ((1, 4, 4), (1, 4, 5)), ((1, 2, 4), (1, 2, 4)), ((0, 4, 4),) * 2])
def test_a_loss_of_unfit_arrays_is_refused(shapes):
    with pytest.raises(ShapeError, match="samples, rows, columns"):
        tanimoto_loss(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_the_border_does_not_count():
    truth, scores = drawn(2, 6, 6), drawn(2, 6, 6, seed=1)
    other = scores.copy()
    other[:, 0], other[:, -1], other[:, :, 0], other[:, :, -1] = 0, 1, 0, 1
    assert tanimoto_loss(truth, scores) == tanimoto_loss(truth, other)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("name", ["tanimoto", "tanimoto+bce"])
def test_pixels_of_unknown_truth_neither_count_nor_learn(name, per_sample):
    truth, logits = torch.from_numpy(drawn(2, 6, 8)), torch.from_numpy(drawn(2, 6, 8, seed=1) - 0.5)
    truth[:, :, 4:] = math.nan
    whole = logits.clone().requires_grad_()
    loss = twin.loss_of(name, truth, whole, per_sample=per_sample)
    loss.backward()
    assert (whole.grad[:, :, 4:] == 0).all()
    assert (whole.grad[:, 1:-1, 1:4] != 0).all()
    # The known part alone; one more column stands for the border that it lacks.
    part = twin.loss_of(name, truth[:, :, :5].nan_to_num(0), logits[:, :, :5], per_sample=per_sample)
    npt.assert_allclose(loss.item(), part.item(), rtol=1e-6)


def test_a_batch_without_known_pixels_has_a_finite_loss():
    logits = torch.zeros(1, 5, 5, requires_grad=True)
    twin.loss_of("tanimoto+bce", torch.full((1, 5, 5), math.nan), logits).backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"loss": "mse"}, "tanimoto"),
        ({"optimiser": "adam"}, "adamw"),
        ({"epochs": 0}, "epochs"),
        ({"rate": -1.0}, "rate"),
        ({"dropout": 1.0}, "dropout"),
        ({"balance": 1.5}, "balance"),
        ({"input_scale": "log"}, "input_scale"),
        ({"batch_norm": "published", "input_scale": "data"}, "input_scale"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(given, told):
    with pytest.raises(TrainingError, match=told):
        TrainingSettings(**given).completed(1)


def test_settings_are_completed_as_published():
    published = TrainingSettings(optimiser="sgd", batch_norm="published").completed(4)
    assert published.rate == pytest.approx(0.004)
    assert published.input_scale == "none"
    assert TrainingSettings().completed(4).rate == 0.004
    assert TrainingSettings().completed(1).input_scale == "data"


def test_differences_are_named_by_their_path():
    before = {"settings": {"rate": 1, "seed": 0}, "init": None}
    now = {"settings": {"rate": 2, "seed": 0}, "init": "abc"}
    assert differences(before, now) == ["init: None -> abc", "settings.rate: 1 -> 2"]
    assert differences(now, now) == []


def test_a_run_folder_belongs_to_one_training(tmp_path):
    folder = claim(tmp_path / "run", {"seed": 1}, restart=False, write=True)
    assert folder.result is None
    folder.checkpoint.write_bytes(b"state")
    folder.finish({"sha256": "abc"})
    assert claim(tmp_path / "run", {"seed": 1}, restart=False, write=True).result == {"sha256": "abc"}
    with pytest.raises(TrainingError, match="seed: 1 -> 2"):
        claim(tmp_path / "run", {"seed": 2}, restart=False, write=True)
    fresh = claim(tmp_path / "run", {"seed": 2}, restart=True, write=True)
    assert not fresh.checkpoint.exists()
    assert fresh.result is None


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    for restart in (False, True):
        with pytest.raises(TrainingError, match="no training"):
            claim(tmp_path, {}, restart=restart, write=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_the_rate_rises_then_falls_to_its_floor():
    factors = [rate_factor(step, 400) for step in range(400)]
    assert factors[0] == pytest.approx(1 / WARM_UP, rel=1e-3)
    assert max(factors) > 0.98
    assert all(later < earlier for earlier, later in zip(factors[WARM_UP:], factors[WARM_UP + 1 :], strict=False))
    assert factors[-1] == pytest.approx(LOWEST_RATE, abs=1e-3)
    assert 0 < rate_factor(0, 1) <= 1


def test_calibration_error_is_the_gap_between_scores_and_what_happened():
    scores, changed = torch.rand(20_000, generator=torch.Generator().manual_seed(1)), None
    changed = (torch.rand(20_000, generator=torch.Generator().manual_seed(2)) < scores).long()
    error = CalibrationError()
    for part in range(0, 20_000, 4000):
        error.update(scores[part : part + 4000], changed[part : part + 4000])
    assert float(error.compute()) < 0.03
    sure = CalibrationError()
    sure.update(torch.full((100,), 0.9), torch.tensor([1] * 60 + [0] * 40))
    assert float(sure.compute()) == pytest.approx(0.3, abs=1e-6)


def test_figures_leave_out_the_border_and_unknown_pixels():
    truth, scores = torch.zeros(1, 5, 5), torch.full((1, 5, 5), 0.25)
    truth[:, 1, 1], scores[:, 1, 1] = 1.0, 0.75
    truth[:, 0], scores[:, 0] = 1.0, 0.0
    truth[:, 3, 3] = math.nan
    figures = ValidationMetrics()
    figures.update(truth, scores)
    figures.update(torch.full((1, 5, 5), math.nan), scores)
    found = {name: float(value) for name, value in figures.compute().items()}
    assert found["mae"] == pytest.approx(0.25)
    assert found["rmse"] == pytest.approx(0.25)
    assert found["f1"] == found["pr_auc"] == pytest.approx(1)


def test_the_best_weights_are_those_of_the_monitored_figure():
    keep = KeepBest(lambda *_, **__: None, monitor="pr_auc", validated=True, patience=None)
    assert keep._better({"pr_auc": 0.1, "loss": 1.0})
    keep.best = {"pr_auc": 0.5, "loss": 0.4}
    assert keep._better({"pr_auc": 0.6, "loss": 0.9})
    assert not keep._better({"pr_auc": 0.4, "loss": 0.1})
    assert keep._better({"pr_auc": 0.5, "loss": 0.3})
    assert not keep._better({"pr_auc": 0.5, "loss": 0.4})
    keep.best = {"pr_auc": math.nan, "loss": 0.4}
    assert keep._better({"pr_auc": math.nan, "loss": 0.3})


def test_checkpoints_are_replaced_whole_and_never_unpickled(tmp_path):
    store, path = AtomicCheckpoints(), tmp_path / "last.ckpt"
    store.save_checkpoint({"step": 1, "state": {"w": torch.ones(2)}}, path)
    store.save_checkpoint({"step": 2, "state": {"w": torch.ones(2)}}, path)
    assert store.load_checkpoint(path)["step"] == 2
    assert [item.name for item in tmp_path.iterdir()] == ["last.ckpt"]
    torch.save({"foreign": Path("code")}, path)
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        store.load_checkpoint(path)
    with pytest.raises(Exception, match="lambda"):
        store.save_checkpoint({"bad": lambda: None}, path)
    assert [item.name for item in tmp_path.iterdir()] == ["last.ckpt"]

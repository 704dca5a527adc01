import numpy as np
import numpy.testing as npt
import pytest

torch = pytest.importorskip("torch")

from urbandelta.model import Network, parameters_of  # noqa: E402
from urbandelta.network import NetworkConfig  # noqa: E402
from urbandelta.training.network import TensorBatch, logits  # noqa: E402
from urbandelta.training.recurrence import recur  # noqa: E402
from urbandelta.training.start import input_scale, new_network, scaled_parameters, warm_network  # noqa: E402

CONFIG = NetworkConfig(sar_bands=2, optical_bands=3, sar_filters=2, optical_filters=3, head_filters=2)
PATHS = CONFIG.paths


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn_batch(*, windows=2, steps=5, images=4, size=7, seed=1):
    """Windows that show few distinct images, with padding in the first one."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(shape, generator=generator)

    valid = torch.ones(windows, steps, dtype=torch.bool)
    valid[0, -2:] = False
    index = {path: torch.randint(images, (windows, steps), generator=generator) for path in PATHS}
    for rows in index.values():
        rows[1, :images] = torch.arange(images)  # every image is shown
        rows[~valid] = 0
    return TensorBatch(
        {path: draw(images, CONFIG.path_bands(path), size, size) for path in PATHS},
        index,
        valid,
        (draw(windows, size, size) > 0.8).float(),
    )


def dense(batch):
    """The same windows as whole arrays (B, T, C, H, W), padding -1."""
    x = torch.cat([batch.frames[path][batch.index[path]] for path in PATHS], dim=2)
    return torch.where(batch.valid[:, :, None, None, None], x, -1.0)


def grown(batch, count):
    """The batch with `count` more steps of padding."""
    extra = torch.zeros(len(batch.valid), count, dtype=torch.int64)
    return TensorBatch(
        batch.frames,
        {path: torch.cat([rows, extra], dim=1) for path, rows in batch.index.items()},
        torch.cat([batch.valid, extra.bool()], dim=1),
        batch.truth,
    )


def drawn_network(seed=0):
    network = new_network(CONFIG, seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return network


def gradients(network, scores, truth):
    network.zero_grad()
    (scores.sigmoid() - truth).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name in expected:
        value = np.asarray(expected[name])
        npt.assert_allclose(found[name], value, atol=tolerance * max(1, float(np.abs(value).max())), err_msg=name)


def test_distinct_images_score_as_whole_windows():
    network, batch = drawn_network().eval(), drawn_batch()
    with torch.no_grad():
        npt.assert_allclose(logits(network, batch).sigmoid(), network(dense(batch), batch.valid), atol=1e-6)


def test_gradients_are_those_of_autograd():
    network, batch = drawn_network().eval(), drawn_batch()  # fixed batch norm: the same in both
    found = gradients(network, logits(network, batch), batch.truth)
    expected = gradients(network, torch.logit(network(dense(batch), batch.valid)), batch.truth)
    close(found, expected)


def test_gradients_of_the_recurrence_equal_finite_differences():
    generator = torch.Generator().manual_seed(2)
    gates = (2 * torch.randn(3, 8, 3, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    kernel = torch.randn(8, 2, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    index = torch.tensor([[0, 1, 1, 2], [2, 0, 1, 0]])
    valid = torch.tensor([[True, True, False, True], [True, True, True, True]])

    def last(gates, kernel, dropout=0.0):
        torch.manual_seed(5)
        return recur(gates, kernel, index, valid, dropout=dropout)

    assert torch.autograd.gradcheck(last, (gates, kernel), fast_mode=True)
    assert torch.autograd.gradcheck(lambda g, k: last(g, k, 0.4), (gates, kernel), fast_mode=True)


@pytest.mark.parametrize("mode", ["images", "published"])
def test_padding_changes_published_batch_norm_and_nothing_else(mode):
    batch = drawn_batch()
    outcomes = []
    for padded in (batch, grown(batch, 3)):
        network = drawn_network().train()
        scores = logits(network, padded, batch_norm=mode)
        outcomes.append((scores.detach(), gradients(network, scores, batch.truth), parameters_of(network)))
    (few, few_gradients, few_state), (many, many_gradients, many_state) = outcomes
    if mode == "images":
        npt.assert_array_equal(few, many)
        close(many_gradients, few_gradients, 1e-7)
        close(many_state, few_state, 0)
    else:
        assert (few - many).abs().max() > 1e-3


def test_published_batch_norm_is_that_of_every_frame_of_whole_windows():
    batch, network, plain = drawn_batch(), drawn_network().train(), drawn_network().train()
    scores = logits(network, batch, batch_norm="published")
    expected = plain.head.logits(plain.merged(dense(batch), batch.valid))
    npt.assert_allclose(scores.detach(), expected.detach(), atol=1e-5)
    close(gradients(network, scores, batch.truth), gradients(plain, expected, batch.truth), 1e-4)
    # torch's own update is one with a share of 0.01; the published per-frame blocks do two.
    start, once, twice = (net.state_dict()["sar.block1.bn.running_mean"] for net in (drawn_network(), plain, network))
    npt.assert_allclose(twice - start, (once - start) * 1.99, atol=1e-6)


def test_dropout_scales_what_it_keeps_and_differs_between_gates_and_steps():
    gates = torch.zeros(1, 4, 40, 40)
    gates[:, 0] = gates[:, 3] = 9  # input and output gates open, so h is tanh of what came in
    gates[:, 2] = 1
    centre = torch.zeros(4, 1, 3, 3)
    centre[2, 0, 1, 1] = 0.1  # the candidate sees h where it is
    valid = torch.ones(1, 2, dtype=torch.bool)
    index = torch.zeros(1, 2, dtype=torch.int64)
    torch.manual_seed(3)
    dropped = recur(gates, centre, index, valid, dropout=0.4)
    again = recur(gates, centre, index, valid, dropout=0.4)
    whole = recur(gates, centre, index, valid)
    lost = recur(gates, torch.zeros_like(centre), index, valid)
    kept = (dropped - lost).abs() > 1e-6
    assert 0.55 < kept.float().mean() < 0.65
    assert (dropped != again).any()
    assert dropped[kept].min() > whole.max()  # 1 / 0.6 of what is kept without dropout
    torch.manual_seed(3)
    npt.assert_array_equal(recur(gates, centre, index, valid, dropout=0.4), dropped)


def test_input_scale_folds_into_the_weights_and_out_again():
    batch = drawn_batch()
    scale = {path: np.linspace(0.1, 3, CONFIG.path_bands(path)).astype(np.float32) for path in PATHS}
    physical = drawn_network().eval()
    inner = warm_network(physical, scale)
    scaled = TensorBatch(
        {path: images / torch.from_numpy(scale[path])[:, None, None] for path, images in batch.frames.items()},
        batch.index,
        batch.valid,
        batch.truth,
    )
    with torch.no_grad():
        npt.assert_allclose(logits(inner, scaled), logits(physical, batch), atol=1e-5)
    close(scaled_parameters(inner, scale), parameters_of(physical), 1e-6)


def test_input_scale_is_the_deviation_of_what_was_seen():
    rng = np.random.default_rng(0)
    frames = {path: rng.normal(5, 2, (6, CONFIG.path_bands(path), 8, 8)).astype(np.float32) for path in PATHS}
    frames["sar"][:2] = 0  # not seen yet
    frames["optical"][:, 1] = 0.5  # stands in for a missing band

    class Images:
        pass

    batch = Images()
    batch.frames = frames
    scale = input_scale([batch, batch], CONFIG)
    npt.assert_allclose(scale["sar"], frames["sar"][2:].std(axis=(0, 2, 3)), rtol=1e-4)
    assert scale["optical"][1] == 1


def test_an_untrained_network_is_drawn_by_its_seed_and_disturbs_no_generator():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (parameters_of(new_network(CONFIG, seed=seed)) for seed in (1, 1, 2))
    npt.assert_array_equal(torch.get_rng_state(), before)
    close(first, again, 0)
    assert any((first[name] != other[name]).any() for name in first)
    assert isinstance(new_network(CONFIG, seed=0), Network)

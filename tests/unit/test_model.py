import numpy as np
import numpy.testing as npt
import pytest

from urbandelta.eras import ERAS
from urbandelta.errors import ShapeError, WeightsError
from urbandelta.network import VARIANTS, NetworkConfig, parameter_shapes

torch = pytest.importorskip("torch")

from urbandelta.model import ConvLstm, Network, hard_sigmoid, network_from, parameters_of  # noqa: E402

SMALL = NetworkConfig(sar_bands=2, optical_bands=3, sar_filters=2, optical_filters=3, head_filters=2)


def drawn_network(config=SMALL, seed=0):
    torch.manual_seed(seed)
    network = Network(config)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var") or name.endswith("bn.weight"):
                value.uniform_(0.5, 2)
            elif not name.endswith("tracked"):
                value.normal_(0, 0.5)
    return network.eval()


def drawn_input(windows=2, steps=4, size=6, bands=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((windows, steps, bands, size, size), generator=generator)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("era", ERAS.values(), ids=lambda era: era.name)
def test_state_has_the_names_and_shapes_of_the_weights_file(era, variant):
    config = NetworkConfig.for_era(era, variant)
    state = parameters_of(Network(config))
    assert {name: array.shape for name, array in state.items()} == parameter_shapes(config)


@pytest.mark.parametrize(("era", "count", "trainable"), [("s12", 69_069, 68_913), ("ers12ls5", 37_593, 37_473)])
def test_number_of_parameters_is_the_published_one(era, count, trainable):
    network = Network(NetworkConfig.for_era(ERAS[era]))
    assert sum(parameter.numel() for parameter in network.parameters()) == trainable
    assert sum(array.size for array in parameters_of(network).values()) == count


def test_hard_sigmoid_is_that_of_keras_2():
    values = torch.tensor([-9.0, -2.5, -1.0, 0.0, 1.0, 2.5, 9.0])
    npt.assert_allclose(hard_sigmoid(values), [0, 0, 0.3, 0.5, 0.7, 1, 1], atol=1e-7)


def test_cell_follows_its_equations():
    torch.manual_seed(3)
    cell = ConvLstm(2)
    x, h, c = (torch.randn(1, 2, 5, 5) for _ in range(3))
    with torch.no_grad():
        new_h, new_c = cell.step(cell.input(x), h, c)
        z = cell.input(x) + cell.recurrent(h)
    i, f, g, o = np.split(z.numpy(), 4, axis=1)
    expected_c = np.clip(0.2 * f + 0.5, 0, 1) * c.numpy() + np.clip(0.2 * i + 0.5, 0, 1) * np.tanh(g)
    npt.assert_allclose(new_c, expected_c, atol=1e-6)
    npt.assert_allclose(new_h, np.clip(0.2 * o + 0.5, 0, 1) * np.tanh(expected_c), atol=1e-6)


def test_scores_are_probabilities_per_window_and_pixel():
    with torch.no_grad():
        scores = drawn_network()(drawn_input(), torch.ones(2, 4, dtype=torch.bool))
    assert scores.shape == (2, 6, 6)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.std() > 0


def test_skipped_steps_equal_removed_steps_wherever_they_stand():
    network, x = drawn_network(), drawn_input()
    valid = torch.tensor([[False, True, True, False], [True, False, True, False]])
    with torch.no_grad():
        masked = network(x, valid)
        for window in range(2):
            kept = x[window, valid[window]][None]
            alone = network(kept, torch.ones(1, 2, dtype=torch.bool))
            npt.assert_allclose(masked[window], alone[0], atol=1e-6)


def test_a_window_without_valid_steps_scores_the_empty_state():
    network = drawn_network()
    with torch.no_grad():
        scores = network(drawn_input(), torch.zeros(2, 4, dtype=torch.bool))
        empty = network.head(torch.zeros(1, 5, 6, 6))
    npt.assert_allclose(scores, empty.expand(2, 6, 6), atol=1e-6)


@pytest.mark.parametrize(("variant", "mine"), [("sar", slice(0, 2)), ("optical", slice(2, 5))])
def test_single_path_variants_read_their_channels_only(variant, mine):
    config = NetworkConfig(
        sar_bands=2, optical_bands=3, sar_filters=2, optical_filters=3, head_filters=2, variant=variant
    )
    network, x, valid = drawn_network(config), drawn_input(), torch.ones(2, 4, dtype=torch.bool)
    other = torch.full_like(x, 7.0)
    other[:, :, mine] = x[:, :, mine]
    with torch.no_grad():
        scores = network(x, valid)
        npt.assert_array_equal(network(other, valid), scores)
        assert (network(x + 1, valid) != scores).any()


def test_parameters_round_trip():
    network = drawn_network()
    again = network_from(parameters_of(network), SMALL)
    assert not again.training
    x, valid = drawn_input(), torch.ones(2, 4, dtype=torch.bool)
    with torch.no_grad():
        npt.assert_array_equal(again(x, valid), network(x, valid))


def test_loaded_network_does_not_share_memory_with_its_origin():
    parameters = parameters_of(drawn_network())
    before = parameters["head.output.bias"].copy()
    network = network_from(parameters, SMALL)
    with torch.no_grad():
        network.head.output.bias += 1
    npt.assert_array_equal(parameters["head.output.bias"], before)


def test_foreign_parameters_are_refused():
    parameters = parameters_of(drawn_network())
    del parameters["sar.lstm.recurrent.weight"]
    with pytest.raises(WeightsError, match=r"sar\.lstm\.recurrent\.weight is missing"):
        network_from(parameters, SMALL)


def test_wrong_shapes_are_named():
    network, x = drawn_network(), drawn_input()
    with pytest.raises(ShapeError, match="5 bands"):
        network(x[:, :, :4], torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match="valid has shape"):
        network(x, torch.ones(2, 3, dtype=torch.bool))


def test_every_parameter_learns():
    network = drawn_network().train()
    network(drawn_input(), torch.ones(2, 4, dtype=torch.bool)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name

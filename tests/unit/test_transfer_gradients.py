"""Gradients window by window are those of autograd over all windows at once."""

import numpy as np
import pytest
import torch

from urbandelta.model import network_from
from urbandelta.training.losses import loss_of
from urbandelta.training.max_windows import maximum_over, window_gradients, with_gradients
from urbandelta.training.network import TensorBatch, logits

SAMPLES, WINDOWS, SIZE = 3, 4, 9
# The third window is of two samples only, as where a series is shorter.
ROWS = [torch.arange(SAMPLES), torch.arange(SAMPLES), torch.tensor([0, 2]), torch.arange(SAMPLES)]


def make_window(config, number):
    generator = torch.Generator().manual_seed(number)
    count, steps = len(ROWS[number]), 6
    frames = {
        path: 0.3 * torch.rand(count * 4, config.path_bands(path), SIZE, SIZE, generator=generator, dtype=torch.float64)
        for path in config.paths
    }
    index = {
        path: torch.randint(0, 4, (count, steps), generator=generator).sort(1).values + 4 * torch.arange(count)[:, None]
        for path in config.paths
    }
    valid = torch.ones(count, steps, dtype=torch.bool)
    valid[-1, 4:] = False
    return TensorBatch(frames, index, valid, torch.zeros(count, SIZE, SIZE))


@pytest.fixture
def setting(make_weights):
    weights = make_weights("s12")
    batches = [make_window(weights.config, number) for number in range(WINDOWS)]
    truth = (torch.rand(SAMPLES, SIZE, SIZE, generator=torch.Generator().manual_seed(9)) > 0.7).double()
    truth[0, 4, 4] = torch.nan

    def network():
        return network_from(weights.parameters, weights.config).double().train()

    return network, batches, lambda scores: loss_of("tanimoto", truth, scores, per_sample=True)


def scorer(network, batches, *, batch_norm="images", dropout=0.0, calls=None):
    def score(number):
        if calls is not None:
            calls.append(number)
        torch.manual_seed(100 + number)
        return logits(network, batches[number], batch_norm=batch_norm, momentum=0.03, dropout=dropout)

    return score


def stacked(score):
    """All windows at once, -inf where a sample lacks one."""
    scores = []
    for number, rows in enumerate(ROWS):
        part = score(number)
        full = part.new_full((SAMPLES, SIZE, SIZE), -torch.inf)
        scores.append(full.index_put((rows,), part))
    return torch.stack(scores)


@pytest.mark.parametrize("batch_norm", ["images", "published"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_equal_those_of_the_stacked_maximum(setting, batch_norm, dropout):
    make, batches, loss = setting
    options = {"batch_norm": batch_norm, "dropout": dropout}
    plain, ours = make(), make()
    expected = loss(stacked(scorer(plain, batches, **options)).max(dim=0).values)
    expected.backward()

    parameters = list(ours.parameters())
    score = scorer(ours, batches, **options)
    value, gradients = window_gradients(score, ROWS, SAMPLES, loss, ours, parameters)
    assert abs(float(value - expected.detach())) < 1e-12
    for (name, parameter), gradient in zip(plain.named_parameters(), gradients, strict=True):
        # A convolution's bias before batch norm has no effect, and its gradient is rounding alone.
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-10, atol=1e-10, msg=name)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-3
    for (name, buffer), other in zip(plain.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(other, buffer, rtol=1e-14, atol=1e-14, msg=name)
    before = make()
    assert not torch.equal(before.head.block1.bn.running_mean, ours.head.block1.bn.running_mean)

    with_gradients(value, parameters, gradients).mul(2).backward()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)


def test_windows_that_win_nowhere_are_scored_once(setting):
    make, batches, loss = setting
    network, calls = make().eval(), []
    inner = scorer(network, batches, calls=calls)
    # The second window is beaten everywhere.
    window_gradients(
        lambda number: inner(number) - 1e3 * (number == 1), ROWS, SAMPLES, loss, network, list(network.parameters())
    )
    assert calls == [0, 1, 2, 3, 0, 2, 3]


def test_of_equal_windows_the_first_takes_all():
    scores = torch.tensor([[[1.0, 2.0]], [[1.0, 3.0]], [[1.0, 3.0]]], requires_grad=True)
    rows = [torch.arange(1)] * 3
    maximum, winner = maximum_over(lambda number: scores.detach()[number : number + 1], rows, 1)
    assert maximum.tolist() == [[[1.0, 3.0]]]
    assert winner.tolist() == [[[0, 1]]]
    _, (gradient,) = window_gradients(
        lambda number: scores[number : number + 1], rows, 1, torch.sum, torch.nn.Identity(), [scores]
    )
    np.testing.assert_array_equal(gradient, [[[1, 0]], [[0, 1]], [[0, 0]]])

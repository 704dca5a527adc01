"""The weights that come with the package: whole, documented, and for the network they claim."""

from pathlib import Path

import pytest

import urbandelta.weights
from urbandelta.weights import find_weights, input_contract, shipped_weights

MOST_BYTES = 1_000_000


@pytest.mark.parametrize("name", shipped_weights())
def test_each_set_is_whole_and_says_what_it_is(name):
    weights = find_weights(name)
    assert weights.name == name
    assert weights.contract == input_contract(weights.era)
    assert "simulated" in weights.description["data"]
    assert "measures nothing about real cities" in weights.description["limits"]
    assert weights.description["licence"] == "Apache-2.0"


@pytest.mark.parametrize("path", shipped_weights().values(), ids=lambda path: path.stem)
def test_each_set_has_a_card_that_states_its_limits(path):
    card = path.with_suffix(".md").read_text()
    assert card.startswith(f"# {path.stem}\n")
    assert "simulated scenes only" in card
    assert f"`{find_weights(path).era.name}`" in card


def test_there_is_a_set_for_the_demo_and_all_are_small():
    assert "s12_simulated" in shipped_weights()
    folder = Path(urbandelta.weights.__file__).parent / "data" / "weights"
    assert sum(path.stat().st_size for path in folder.iterdir()) < MOST_BYTES

"""Members: networks by what they were trained on. Trained once, stored, and read when asked for again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from data import load_city
from prepare import Pair, prepare
from published import Published
from torch import nn
from train import Recipe, scores, train
from variant import Pyramid, PyramidConfig

from urbandelta.types import FloatArray
from urbandelta.weights import find_weights

METADATA_KEY = "oscd"
SCENE_MARGIN = 3.4
"""Near the best for each three of the four default folds (3.2 to 3.6), so for all eight cities."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network: training cities, seed and recipe decide it."""

    cities: tuple[str, ...]
    """Sorted, so that folds that leave out the same cities share a member."""
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Name of its files."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()
        return f"member-{digest[:12]}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Folders of a run."""

    data: Path
    out: Path

    @property
    def cache(self) -> Path:
        """Cities on their grids."""
        return self.out / "cache"

    def weights(self, member: Member) -> Path:
        """Weights file of a member."""
        return self.out / "members" / f"{member.name}.safetensors"

    def scores(self, member: Member, city: str) -> Path:
        """Scores of a city by a member."""
        return self.out / "scores" / f"{member.name}-{city}.npy"


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


def recipe_from(document: Mapping[str, Any]) -> Recipe:
    """Inverse of `dataclasses.asdict`."""
    return Recipe(**{**document, "network": PyramidConfig.from_document(document["network"])})


def save_member(network: nn.Module, member: Member, path: Path) -> None:
    """Weights with what they were trained on, beside the target first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    metadata = {METADATA_KEY: json.dumps(dataclasses.asdict(member))}
    partial.write_bytes(safetensors.torch.save(state, metadata=metadata))
    partial.replace(path)


def load_member(path: Path) -> tuple[Member, nn.Module]:
    """A stored member and its network, in evaluation mode."""
    with safetensors.safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()[METADATA_KEY])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    recipe = recipe_from(document["recipe"])
    member = Member(cities=tuple(document["cities"]), seed=document["seed"], recipe=recipe)
    network: nn.Module = Pyramid(recipe.network) if recipe.init is None else Published(None, repeats=recipe.repeats)
    network.load_state_dict(state)
    return member, network.eval()


def new_network(recipe: Recipe) -> nn.Module:
    """The network that a recipe starts from: the variant, or the published architecture."""
    if recipe.init is None:
        return Pyramid(recipe.network)
    return Published(None if recipe.init == "scratch" else find_weights(recipe.init), repeats=recipe.repeats)


@lru_cache(maxsize=16)
def _pair(data: Path, cache: Path, city: str, register: bool) -> Pair:
    return prepare(load_city(data, city, cache=cache), register=register)


def pair(work: Work, city: str, recipe: Recipe) -> Pair:
    """A city as a recipe wants it."""
    return _pair(work.data, work.cache, city, recipe.register)


def ensure(work: Work, member: Member, cities: Iterable[str]) -> None:
    """Train `member` and score `cities` with it, each only if that has not been done."""
    torch.set_num_threads(1)
    path = work.weights(member)
    if not path.exists():
        label = f"{member.name[7:13]} ({' '.join(member.cities)}, seed {member.seed})"
        network = train(
            [pair(work, city, member.recipe) for city in member.cities],
            member.recipe,
            lambda: new_network(member.recipe),
            seed=member.seed,
            progress=lambda text: say(f"{label}: {text}"),
        )
        save_member(network, member, path)
    missing = [city for city in cities if not work.scores(member, city).exists()]
    if missing:
        network = load_member(path)[1]
    for city in missing:
        target = work.scores(member, city)
        target.parent.mkdir(parents=True, exist_ok=True)
        map_ = scores(network, pair(work, city, member.recipe), views=member.recipe.views)
        partial = target.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, map_)
        partial.replace(target)


def ensure_all(work: Work, wanted: Mapping[Member, Sequence[str]], *, jobs: int) -> None:
    """All members and their scores, `jobs` side by side, one thread each."""
    if jobs == 1 or len(wanted) == 1:
        for member, cities in wanted.items():
            ensure(work, member, cities)
        return
    # Fresh processes: torch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(ensure, work, member, tuple(cities)) for member, cities in wanted.items()]:
            future.result()


def anchored(scores: FloatArray) -> FloatArray:
    """Scores (y, x) of a whole scene, relative to the scene: its median pixel lies `SCENE_MARGIN` logits below 0.5.

    Most of a city does not change, whatever the season, haze and sensor do to its pair of images. They move the scores
    of all its pixels alike, so that one threshold fits one city and not the next; the median tells by how much.
    """
    clipped = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    logits = np.log(clipped / (1 - clipped))
    return np.asarray(1 / (1 + np.exp(np.median(logits) + SCENE_MARGIN - logits)), np.float32)


def ensemble_scores(work: Work, members: Sequence[Member], city: str) -> FloatArray:
    """Mean of the members' scores (y, x), anchored."""
    return anchored(np.asarray(np.mean([np.load(work.scores(member, city)) for member in members], axis=0)))

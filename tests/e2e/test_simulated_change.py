"""The shipped weights find what was built in a scene that their training never saw."""

import numpy as np
import pytest

from urbandelta.infer import predict
from urbandelta.metrics import roc_auc
from urbandelta.simulate import NO_CHANGE, LandCover, simulate
from urbandelta.store import create_cube


@pytest.mark.slow
def test_buildings_stand_out_and_crops_do_not(tmp_path):
    scene = simulate("s12", size=64, months=12, seed=301)
    cube = create_cube(str(tmp_path / "cube"), era="s12", grid=scene.grid)
    for name in scene.era.stream_names:
        cube.append(name, scene.acquisitions(name))
    scores = predict(cube, "s12_simulated", stride=10)
    last_day = scores["window_end"].values.max().astype("datetime64[D]").astype(int)
    # What begins in the last weeks has left no trace yet.
    visible = (scene.truth != NO_CHANGE) & (scene.truth < last_day - scene.era.window_days // 4)
    unchanged = scene.truth == NO_CHANGE
    highest = np.nan_to_num(scores.values).max(axis=0)
    compared = visible | unchanged
    assert roc_auc(highest[compared], visible[compared]) > 0.95
    assert (highest[visible] > 0.5).mean() > 0.6
    assert (highest[unchanged & (scene.land_cover == LandCover.FIELD)] > 0.5).mean() < 0.03

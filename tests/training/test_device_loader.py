"""A batch is the images of its rows, wherever they lie and whatever was asked for in advance."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octdino.training.device_loader import DeviceLoader

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, 2, 5, 4)).astype(np.uint8))
CPU = torch.device("cpu")
ROWS = st.lists(st.integers(0, 29), min_size=1, max_size=12).map(torch.tensor)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ROWS, st.none() | ROWS), min_size=1, max_size=6), st.booleans())
def test_batches_are_the_rows_images(asked, resident):
    """Also where what was announced is not what is then asked for."""
    feed = DeviceLoader(IMAGES, CPU, resident=resident)
    for rows, following in asked:
        assert torch.equal(feed.take(rows, following), IMAGES[rows])


def test_the_next_batch_is_gathered_while_this_one_is_used(monkeypatch):
    feed, gathered = DeviceLoader(IMAGES, CPU, resident=False), []
    send = feed._send
    monkeypatch.setattr(feed, "_send", lambda rows: (gathered.append(rows.tolist()), send(rows))[1])
    one, two = torch.tensor([1, 2]), torch.tensor([3])
    feed.take(one, two)
    feed.take(two)
    assert gathered == [[1, 2], [3]], "each once"


def test_images_on_the_host_are_never_copied():
    feed = DeviceLoader(IMAGES, CPU)
    assert feed.resident
    assert feed._images.data_ptr() == IMAGES.data_ptr()

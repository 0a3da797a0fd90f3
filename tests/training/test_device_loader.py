"""Batches contain the images of their rows, resident or prefetched."""

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
def test_batches_contain_images_of_rows_with_and_without_prefetch(requests, resident):
    """Also where other rows than the prefetched ones are requested."""
    loader = DeviceLoader(IMAGES, CPU, resident=resident)
    for rows, prefetch in requests:
        assert torch.equal(loader.take(rows, prefetch), IMAGES[rows])


def test_next_batch_is_prefetched_once(monkeypatch):
    loader, gathered = DeviceLoader(IMAGES, CPU, resident=False), []
    send = loader._send
    monkeypatch.setattr(loader, "_send", lambda rows: (gathered.append(rows.tolist()), send(rows))[1])
    one, two = torch.tensor([1, 2]), torch.tensor([3])
    loader.take(one, two)
    loader.take(two)
    assert gathered == [[1, 2], [3]], "each once"


def test_images_on_the_host_are_never_copied():
    loader = DeviceLoader(IMAGES, CPU)
    assert loader.resident
    assert loader._images.data_ptr() == IMAGES.data_ptr()

"""Data loader: batches of images from device memory, or gathered on the host and prefetched to the device."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

log = logging.getLogger("octdino.training.device_loader")

MEMORY_SHARE = 0.6  # of the device's free memory, for images; the rest is for the network

Sent = tuple[Tensor, torch.cuda.Event | None]


class DeviceLoader:
    """Batches of uint8 images [N, C, H, W]: indexed on the device if they fit there, else gathered on the host.

    On the host, a thread gathers the next batch into pinned memory and copies it on a CUDA stream of its own while the
    device computes.

    Args:
        images: on the host.
        device: for training.
        resident: keep all images on the device; None: if they take at most `MEMORY_SHARE` of its free memory.
    """

    def __init__(self, images: Tensor, device: torch.device, resident: bool | None = None) -> None:
        self.device, self.gpu = device, device.type == "cuda"
        if resident is None:
            resident = not self.gpu or images.nbytes <= MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
        self.resident = resident
        self._images = images.to(device) if resident else images
        self._pool = None if resident else ThreadPoolExecutor(1, "prefetch")
        self._stream: torch.cuda.Stream | None = None
        if self.gpu and not resident:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._next: tuple[Tensor, Future[Sent]] | None = None
        where = "on the device" if resident else "on the host, the next batch prefetched"
        log.info("%.1f GB of images %s", images.nbytes / 1e9, where)

    def __len__(self) -> int:
        return len(self._images)

    def take(self, rows: Tensor, prefetch: Tensor | None = None) -> Tensor:
        """Return the images of `rows`, int64 [B] on the host: uint8 [B, C, H, W] on the device.

        Args:
            prefetch: the next call's rows, which the thread gathers meanwhile.
        """
        if self._pool is None:
            return self._images[rows.to(self.device, non_blocking=True)]
        if self._next is not None and torch.equal(self._next[0], rows):
            batch, arrived = self._next[1].result()
        else:
            batch, arrived = self._send(rows)
        self._next = None if prefetch is None else (prefetch, self._pool.submit(self._send, prefetch))
        if arrived is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(arrived)
            batch.record_stream(stream)
        return batch

    def _send(self, rows: Tensor) -> Sent:
        """Gather a batch and copy it to the device without waiting; return it and an event at its end."""
        staged = torch.empty(len(rows), *self._images.shape[1:], dtype=torch.uint8, pin_memory=self.gpu)
        torch.index_select(self._images, 0, rows, out=staged)
        if self._stream is None:
            return staged.to(self.device), None
        with torch.cuda.stream(self._stream):
            return staged.to(self.device, non_blocking=True), self._stream.record_event()

"""Signals that stop training."""

import os
import signal

from octdino.training.signals import Stopper


def test_stopper_records_sigterm_and_restores_handlers():
    before = signal.getsignal(signal.SIGTERM)
    with Stopper().listening() as stopper:
        assert stopper.asked() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.asked() == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before

"""Trackers of training histories: TensorBoard, Weights & Biases, MLflow, trackio; none can end a training."""

from octdino.tracking.run_tracking import RunTracking, check_installed
from octdino.tracking.tracker import Tracked, Tracker

__all__ = ["RunTracking", "Tracked", "Tracker", "check_installed"]

"""Trackers of training histories: TensorBoard, Weights & Biases, MLflow, trackio; none can end a training."""

from octdino.tracking.run_tracking import Row, RunTracking, check_installed
from octdino.tracking.tracker import Tracked, Tracker

__all__ = ["Row", "RunTracking", "Tracked", "Tracker", "check_installed"]

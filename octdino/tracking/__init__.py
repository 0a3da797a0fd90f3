"""Trackers of training histories: TensorBoard, Weights & Biases, MLflow, trackio; none can end a training."""

from octdino.tracking.run_tracking import RECORDS, Row, RunTracking, check_installed
from octdino.tracking.tracker import Tracked, Tracker

__all__ = ["RECORDS", "Row", "RunTracking", "Tracked", "Tracker", "check_installed"]

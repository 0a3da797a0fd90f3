"""Statistics that several stages share: bootstrap, significance, calibration, thresholds, nearest neighbors."""

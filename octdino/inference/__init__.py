"""On top of a finished run: one self-contained model folder, and predictions for new scans."""

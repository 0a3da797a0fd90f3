"""octdino: self-supervised pretraining on retinal OCT B-scans, compared fairly."""

__version__ = "0.1.0"

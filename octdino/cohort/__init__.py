"""Stage 1: raw files and label tables become a manifest, a quarantine, splits and one HDF5 store.

`octdino.cohort.ingest.build_cohort` is the whole stage. Nothing is imported here: the processes that decode images
start from this package and stay small.
"""

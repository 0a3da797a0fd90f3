"""Files that one stage writes and another reads: schemas, CSV, the HDF5 store, predictions; read_cohort."""

"""`octdino plan`: jobs, disk, memory and time of a run before it starts, from the workflow itself and short trials."""

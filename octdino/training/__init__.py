"""What every training loop shares: checkpoints and their lock, signals, optimizers, schedules, precision, processes."""

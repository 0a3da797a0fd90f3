"""Several results folders side by side: settings that differ, scores, and differences of equal arms."""

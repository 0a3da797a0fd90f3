"""What people see of a run in a terminal: jobs in words, progress from log files, a live region, plain lines, tables.

Used by the logger plugin of Snakemake (`snakemake_logger_plugin_octdino`) and by `octdino watch`. Nothing heavy is
imported: every Snakemake loads its plugins at start.
"""

"""Sources of the documentation; a package so that `docs.extension` can be imported by Sphinx and by tests."""

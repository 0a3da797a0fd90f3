"""The built-in cohort: synthetic patients, written as files in the form of the OLIVES release.

Phantom - not clinical evidence. From people (`people`) over eyes (`anatomy`), lesions in three dimensions (`lesions`),
slices with their labels (`section`), graders (`grading`), pictures (`paint`, `camera`, `speckle`) to files (`plan`,
`files`, `write`).
"""

from octdino.cohort.phantom.write import write_phantom
from octdino.config.cohort import PhantomSettings

__all__ = ["PhantomSettings", "write_phantom"]

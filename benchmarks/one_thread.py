"""Import it before numpy: libraries of linear algebra then use one thread, as `edgebed train` does."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # read when such a library is loaded

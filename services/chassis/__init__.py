"""What every service stands on (README.md)."""

import os

# gRPC's own lines are in no format of ours, and what they tell of a call its caller gets as an error. Read when grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

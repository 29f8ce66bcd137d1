"""The one door from outside: REST and JSON in front, gRPC behind, everything derived from the descriptor set."""

import os

# gRPC's own lines are in no format of ours, and what they tell of a call its caller gets as an error. Read when grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

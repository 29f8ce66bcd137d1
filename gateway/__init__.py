"""The one door from outside: REST and JSON in front, gRPC behind, everything derived from the descriptor set."""

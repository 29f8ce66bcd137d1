"""The RPCs of work_orders: one module per gRPC service, one function per RPC."""

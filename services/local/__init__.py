"""Steward on one machine: an embedded PostgreSQL, a private RabbitMQ node and every process, for development and for tests.

Nothing here is part of a production installation, and no service imports it. What it starts, it keeps running and ends again; what it
writes is in one folder (`state.py`). Read in this order: `plan.py` (which processes), `platform.py` (in which order), `keeper.py` (one
process), `records.py` (what a killed supervisor left).
"""

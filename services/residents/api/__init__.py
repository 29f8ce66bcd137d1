"""The RPCs of residents, one function each, by name."""

from services.residents.api.auth import create_session, end_session, exchange_session, get_me, refresh_session, request_code
from services.residents.api.directory import list_entries
from services.residents.api.imports import download_refusals, get_import, list_imports, list_refusals, start_import

__all__ = [
    "create_session",
    "download_refusals",
    "end_session",
    "exchange_session",
    "get_import",
    "get_me",
    "list_entries",
    "list_imports",
    "list_refusals",
    "refresh_session",
    "request_code",
    "start_import",
]

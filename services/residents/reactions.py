"""What residents does by itself; it reacts to nobody."""

from services.residents.staffing import follow_register

__all__ = ["follow_register"]
